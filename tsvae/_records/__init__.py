"""What the estimators of records share: reading, scaling, networks for given sizes."""
