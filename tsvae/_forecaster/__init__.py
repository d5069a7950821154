"""What the forecaster consists of: its parameters' table and its methods, by purpose."""
