"""The demonstration behind ``python -m tsvae demo``, and the baselines it compares with."""
