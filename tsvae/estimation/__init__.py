"""What the estimators share below their surface: scaling, covariates, building, fitting, files."""
