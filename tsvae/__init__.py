"""Structured variational autoencoders for time series, with a scikit-learn API.

``import tsvae`` is light: the names below are imported at their first use, so that reading a
version or a help text does not load torch.

Examples
--------
>>> import tsvae
>>> tsvae.__version__
'0.1.0'
>>> tsvae.SVAEForecaster.__name__
'SVAEForecaster'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsvae import (
        datasets,
        lds,
        metrics,
        model_selection,
        models,
        nn,
        panel,
        plotting,
        training,
    )
    from tsvae.denoiser import PosteriorCollapseWarning, VAEDenoiser
    from tsvae.forecaster import SVAEForecaster
    from tsvae.linker import PairVAELinker, PretrainingWarning
    from tsvae.model_selection import RollingOriginSplit, backtest

__version__ = "0.1.0"

__all__ = [
    "PairVAELinker",
    "PosteriorCollapseWarning",
    "PretrainingWarning",
    "RollingOriginSplit",
    "SVAEForecaster",
    "VAEDenoiser",
    "__version__",
    "backtest",
    "datasets",
    "lds",
    "metrics",
    "model_selection",
    "models",
    "nn",
    "panel",
    "plotting",
    "training",
]

# Where each exported name lives.
_EXPORTS = {
    "SVAEForecaster": "tsvae.forecaster",
    "PairVAELinker": "tsvae.linker",
    "PretrainingWarning": "tsvae.linker",
    "PosteriorCollapseWarning": "tsvae.denoiser",
    "VAEDenoiser": "tsvae.denoiser",
    "RollingOriginSplit": "tsvae.model_selection",
    "backtest": "tsvae.model_selection",
}
_SUBMODULES = frozenset(__all__) - _EXPORTS.keys() - {"__version__"}


def __getattr__(name: str) -> Any:
    """Import an exported name or a submodule at its first use (PEP 562)."""
    if name in _EXPORTS:
        value = getattr(import_module(_EXPORTS[name]), name)
    elif name in _SUBMODULES:
        value = import_module(f"tsvae.{name}")
    else:
        raise AttributeError(f"module 'tsvae' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
