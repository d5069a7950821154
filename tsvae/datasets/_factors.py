"""Series drawn from known, independent factors, to score what a representation has found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Ranges = Mapping[str, float | tuple[float, float]]
RandomState = int | np.random.Generator | np.random.RandomState | None

#: Factors of a series, in the order of the columns of ``factors``.
FACTOR_NAMES = ("amplitude", "period", "phase", "trend", "noise", "level")

_ROWS = "series"


class FactorSeries(NamedTuple):
    """Series and the factors that made them (N series, T steps).

    Parameters
    ----------
    series : ndarray of shape (N, T, 1)
        What is observed: `clean` plus white noise.
    factors : DataFrame of shape (N, 6)
        Columns ``amplitude, period, phase, trend, noise, level``; rows numbered from 0.
    clean : ndarray of shape (N, T, 1)
        The series without noise.
    """

    series: Float
    factors: pd.DataFrame
    clean: Float

    @property
    def varied(self) -> pd.DataFrame:
        """Factors that are not the same for all series: those that a code can be scored on."""
        return self.factors.loc[:, self.factors.nunique() > 1]


class FactorPairs(NamedTuple):
    """Two views of each of N series that share all but a few factors.

    Parameters
    ----------
    first, second : FactorSeries
        The views; row i of one belongs to row i of the other. Noise is drawn anew for each.
    changed : DataFrame of bool of shape (N, 6)
        True where the views have a factor drawn independently; for checks only, a model trained
        on the pairs does not see it.
    """

    first: FactorSeries
    second: FactorSeries
    changed: pd.DataFrame


def make_factor_series(
    n_series: int = 1000,
    n_steps: int = 64,
    *,
    ranges: Ranges | None = None,
    random_state: RandomState = None,
) -> FactorSeries:
    r"""Draw sinusoids on a line, with six known factors.

    With the time :math:`s_t` from -1 to 1 over the record and :math:`c` its middle,

    .. math:: x_t = level + trend \cdot s_t
              + amplitude \cdot \sin(2\pi (t - c) / period + phase) + noise \cdot e_t

    where :math:`e_t` is standard normal. All factors are independent and uniform.

    Parameters
    ----------
    n_series : int, default=1000
        Number of series N.
    n_steps : int, default=64
        Steps T of each, at least 8.
    ranges : mapping of str to (low, high) or to a number, optional
        Ranges that replace the defaults; a number holds a factor fixed. Defaults:

        - ``amplitude`` (0.5, 1.5): away from 0, where phase and period mean nothing;
        - ``period`` (T/4, T/2) steps: two to four cycles, so that a cycle is neither trend nor
          noise;
        - ``phase`` (-pi/2, pi/2) radians, see Notes;
        - ``trend`` (-1, 1): rise from the middle of the record to its end;
        - ``noise`` (0.05, 0.3): standard deviation;
        - ``level`` (-1, 1).
    random_state : int, Generator, RandomState or None, default=None
        Source of the draws; an int gives the same series in every call.

    Returns
    -------
    FactorSeries
        ``series``, ``factors`` and ``clean``; ``varied`` holds the factors that are not fixed.

    Raises
    ------
    ValueError
        If a size or a range cannot be used.
    KeyError
        If `ranges` names a factor that does not exist.

    Notes
    -----
    *Phase* is the angle in the middle of the record, where it is least entangled with the period
    (at the first step a change of period could be taken for one of phase). It lives on a circle:
    on the full one, no single number follows it without a jump, so no code can have a full score
    for it and -pi and pi count as far apart. The default is therefore half a circle, on which the
    phase is an ordinary number. For wider ranges name it in the `circular` parameter of
    :func:`tsvae.metrics.separated_attribute_predictability` and
    :func:`tsvae.metrics.dci_scores`, which then predict its cosine and sine; the mutual
    information gap knows only bins, so that it needs no such care, but two codes that share the
    circle (its cosine and sine, say) have no gap.

    *Noise* changes nothing but the spread of the residuals: a decoder with one scale for all
    series has no reason to encode it. Fix it (``ranges={"noise": 0.1}``) where the codes of such
    models are compared.

    References
    ----------
    In the manner of dSprites: I. Higgins et al. (2017), beta-VAE: learning basic visual concepts
    with a constrained variational framework, ICLR.

    Examples
    --------
    >>> from tsvae.datasets import make_factor_series
    >>> data = make_factor_series(100, ranges={"noise": 0.1}, random_state=0)
    >>> data.series.shape
    (100, 64, 1)
    >>> list(data.varied)
    ['amplitude', 'period', 'phase', 'trend', 'level']
    """
    rng = _generator(random_state)
    bounds = _bounds(ranges, n_series, n_steps)
    return _render(_draw(bounds, n_series, rng), n_steps, rng)


def make_factor_pairs(
    n_series: int = 1000,
    n_steps: int = 64,
    *,
    n_changed: int | None = 1,
    ranges: Ranges | None = None,
    random_state: RandomState = None,
) -> FactorPairs:
    """Draw pairs of series that share all but `n_changed` randomly chosen factors.

    The weak supervision of Ada-GVAE: which factors differ is not told. Two beats of one patient,
    or two days of one sensor, are such pairs.

    Parameters
    ----------
    n_series : int, default=1000
        Number of pairs N.
    n_steps : int, default=64
        Steps T of each series, at least 8.
    n_changed : int or None, default=1
        Factors in which the views of a pair differ, out of those that are not fixed; None draws
        the number for each pair, from 1 to all but one.
    ranges : mapping of str to (low, high) or to a number, optional
        As in :func:`make_factor_series`. A fixed factor is never chosen.
    random_state : int, Generator, RandomState or None, default=None
        As in :func:`make_factor_series`.

    Returns
    -------
    FactorPairs
        ``first`` and ``second`` view, and ``changed``.

    Raises
    ------
    ValueError, KeyError
        As in :func:`make_factor_series`; also if `n_changed` is not between 1 and the number of
        factors that are not fixed.

    References
    ----------
    F. Locatello et al. (2020), Weakly-supervised disentanglement without compromises, ICML,
    section 5 (k = 1, and k random).

    Examples
    --------
    >>> from tsvae.datasets import make_factor_pairs
    >>> pairs = make_factor_pairs(50, n_changed=2, random_state=0)
    >>> differ = pairs.first.factors != pairs.second.factors
    >>> sorted(set(differ.sum(axis=1)))
    [2]
    >>> bool((differ == pairs.changed).all(axis=None))
    True
    """
    rng = _generator(random_state)
    bounds = _bounds(ranges, n_series, n_steps)
    changed = _choose(bounds[:, 0] < bounds[:, 1], n_series, n_changed, rng)
    first = _draw(bounds, n_series, rng)
    second = np.where(changed, _draw(bounds, n_series, rng), first)
    return FactorPairs(_render(first, n_steps, rng), _render(second, n_steps, rng), _table(changed))


def _generator(random_state: RandomState) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31, size=4))
    return np.random.default_rng(random_state)


def _bounds(ranges: Ranges | None, n_series: int, n_steps: int) -> Float:
    """Lower and upper ends of the factors' ranges (6, 2)."""
    _check_size("n_series", n_series, 1)
    _check_size("n_steps", n_steps, 8)
    chosen: dict[str, float | tuple[float, float]] = {
        "amplitude": (0.5, 1.5),
        "period": (n_steps / 4, n_steps / 2),
        "phase": (-math.pi / 2, math.pi / 2),
        "trend": (-1.0, 1.0),
        "noise": (0.05, 0.3),
        "level": (-1.0, 1.0),
    }
    for name, value in (ranges or {}).items():
        if name not in chosen:
            raise KeyError(f"ranges names the factor {name!r}; there are {FACTOR_NAMES}.")
        chosen[name] = value
    return np.array([_range(name, chosen[name]) for name in FACTOR_NAMES])


def _check_size(name: str, value: int, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer; got {value!r}.")
    if value < low:
        raise ValueError(f"{name} must be at least {low}; got {value}.")


def _range(name: str, value: float | tuple[float, float]) -> tuple[float, float]:
    ends = np.atleast_1d(np.asarray(value, dtype=float))
    if ends.shape not in ((1,), (2,)) or not np.isfinite(ends).all():
        raise ValueError(
            f"ranges[{name!r}] must be a finite number or a pair (low, high); got {value!r}."
        )
    low, high = float(ends[0]), float(ends[-1])
    if len(ends) == 2 and not low < high:
        raise ValueError(
            f"ranges[{name!r}] must have low < high; got {value!r}. A number holds a factor fixed."
        )
    if (name == "period" and low <= 0) or (name in ("noise", "amplitude") and low < 0):
        wanted = "positive" if name == "period" else "not negative"
        raise ValueError(f"ranges[{name!r}] must be {wanted}; got {value!r}.")
    return low, high


def _draw(bounds: Float, n_series: int, rng: np.random.Generator) -> Float:
    return rng.uniform(bounds[:, 0], bounds[:, 1], size=(n_series, len(bounds)))


def _choose(
    free: NDArray[np.bool_], n_series: int, n_changed: int | None, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Choose the factors that change (N, 6), `n_changed` of the `free` ones in every row."""
    n_free = int(free.sum())
    if n_free == 0:
        raise ValueError("ranges fixes every factor; pairs need at least one that may differ.")
    if n_changed is None:
        counts = rng.integers(1, max(n_free, 2), size=n_series)
    else:
        _check_size("n_changed", n_changed, 1)
        if n_changed > n_free:
            raise ValueError(
                f"n_changed must be at most the {n_free} factors that are not fixed; got "
                f"{n_changed}."
            )
        counts = np.full(n_series, n_changed)
    rank = np.full((n_series, len(free)), len(free))
    rank[:, free] = rng.permuted(np.tile(np.arange(n_free), (n_series, 1)), axis=1)
    return rank < counts[:, None]


def _render(factors: Float, n_steps: int, rng: np.random.Generator) -> FactorSeries:
    """Series of shape (N, T, 1) with these factors (N, 6)."""
    amplitude, period, phase, trend, noise, level = factors.T[:, :, None]
    offset = np.arange(n_steps) - (n_steps - 1) / 2
    wave = amplitude * np.sin(2 * np.pi * offset / period + phase)
    clean = level + trend * offset / offset[-1] + wave
    series = clean + noise * rng.standard_normal(clean.shape)
    return FactorSeries(series[..., None], _table(factors), clean[..., None])


def _table(values: NDArray[np.generic]) -> pd.DataFrame:
    import pandas as pd

    index = pd.RangeIndex(len(values), name=_ROWS)
    return pd.DataFrame(values, index=index, columns=list(FACTOR_NAMES))
