"""Small data sets: real ones that come with a dependency, and series drawn from known factors.

Nothing is downloaded or shipped.
"""

from __future__ import annotations

from tsvae.datasets._co2 import load_co2
from tsvae.datasets._factors import (
    FACTOR_NAMES,
    FactorPairs,
    FactorSeries,
    make_factor_pairs,
    make_factor_series,
)

__all__ = [
    "FACTOR_NAMES",
    "FactorPairs",
    "FactorSeries",
    "load_co2",
    "make_factor_pairs",
    "make_factor_series",
]
