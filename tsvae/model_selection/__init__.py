"""Cross-validation in time: a splitter for scikit-learn, and back-tests over many origins."""

from __future__ import annotations

from tsvae.model_selection._backtest import backtest
from tsvae.model_selection._result import BacktestResult
from tsvae.model_selection._split import RollingOriginSplit

__all__ = ["BacktestResult", "RollingOriginSplit", "backtest"]
