"""Behind :mod:`tsvae.export`: graphs, their check, quantisation, the report."""
