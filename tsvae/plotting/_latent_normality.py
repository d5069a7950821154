"""Whether the codes are distributed as the prior says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.plotting._latents import informative_entries
from tsvae.plotting._style import BLUE, INK, VERMILLION, dress, make_grid, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float = NDArray[np.float64]

_MOST_QUANTILES = 200


class NormalitySummary(NamedTuple):
    """How far draws of each latent entry are from a standard normal, of which all are 0 or 1."""

    mean: Float  # (K,) 0
    standard_deviation: Float  # (K,) 1
    skewness: Float  # (K,) 0
    excess_kurtosis: Float  # (K,) 0
    distance: Float  # (K,) largest difference of the distribution functions, 0 to 1


class LatentNormalityDisplay:
    """Aggregated posterior of each latent entry against the standard normal prior.

    Draws from the prior decode into lifelike records only where the codes of real records lie.
    The codes compared are draws from q(z | x), one for each record: the means alone are narrower
    than the prior by design.

    Make it with :meth:`from_estimator`; all parameters are stored as attributes.

    Parameters
    ----------
    codes : ndarray of shape (n_draws, n_entries)
        Draws from the aggregated posterior.
    entries : ndarray of shape (n_entries,)
        Which latent entries these are.

    Attributes
    ----------
    summary : NormalitySummary
        Mean, standard deviation, skewness, excess kurtosis of each entry, and its
        Kolmogorov-Smirnov distance to the standard normal (KS in the titles).
    figure_ : matplotlib Figure
    axes_ : list of matplotlib Axes
        One for each entry; ``ax_`` is the first.

    Notes
    -----
    The hierarchical model's finer levels have a prior that depends on the coarser ones; they need
    not be standard normal.

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.plotting import LatentNormalityDisplay
    >>> draws = 2.0 * np.random.default_rng(0).standard_normal((1000, 1))
    >>> LatentNormalityDisplay(codes=draws, entries=[0]).summary.standard_deviation.round(1)
    array([2.])
    """

    figure_: Figure
    ax_: Axes
    axes_: list[Axes]

    def __init__(self, *, codes: Float, entries: Sequence[int] | NDArray[np.intp]) -> None:
        found = np.asarray(codes, dtype=float)
        if found.ndim != 2 or found.shape[1] != len(entries) or len(found) < 2:
            raise ValueError(
                f"codes must have shape (n_draws, {len(entries)}) with two draws or more, one "
                f"column for each of the entries; got {found.shape}."
            )
        self.codes = found
        self.entries = np.asarray(entries)
        self.summary = summarise(found)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        entries: Sequence[int] | None = None,
        n_entries: int = 6,
        n_draws: int = 1,
        condition: Any = None,
        random_state: Any = 0,
        ax: Any = None,
        **plot_params: Any,
    ) -> LatentNormalityDisplay:
        """Draw the distribution of the codes that a fitted denoiser gives to X.

        Parameters
        ----------
        estimator : object
            A fitted estimator with `sample_codes`.
        X : container
            Records, the more the better: those of the training, or held-out ones.
        entries : sequence of int, default=None
            Latent entries; None takes the active ones with the most KL.
        n_entries : int, default=6
            At most, if `entries` is None.
        n_draws : int, default=1
            Draws from q(z | x) for each record.
        condition : optional
            One row for each record, for a denoiser with conditions.
        random_state : int or RandomState, default=0
            Of the draws.
        ax : Axes or sequence of Axes, default=None
            Where to draw: one axes for each entry, or one that is divided. None makes a figure.
        **plot_params
            Passed on to :meth:`plot`.

        Returns
        -------
        LatentNormalityDisplay

        Raises
        ------
        ValueError
            If there is no such entry.
        """
        require_matplotlib("LatentNormalityDisplay")
        given = {} if condition is None else {"condition": condition}
        drawn = estimator.sample_codes(X, n_draws, random_state=random_state, **given)
        codes = np.asarray(drawn).reshape(-1, np.shape(drawn)[-1])
        chosen = informative_entries(estimator, codes, entries, n_entries)
        return cls(codes=codes[:, chosen], entries=chosen).plot(ax=ax, **plot_params)

    def plot(
        self,
        ax: Any = None,
        *,
        kind: Literal["histogram", "qq"] = "histogram",
        color: str = BLUE,
    ) -> Any:
        """Draw the display.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw: one axes for each entry, or one that is divided. None makes a figure.
        kind : {"histogram", "qq"}, default="histogram"
            Histograms under the density of the prior, or quantiles against its quantiles.
        color : str, default="#0072B2"
            Colour of the codes.

        Returns
        -------
        LatentNormalityDisplay
            Itself.
        """
        require_matplotlib("LatentNormalityDisplay")
        if kind not in ("histogram", "qq"):
            raise ValueError(f"kind must be 'histogram' or 'qq'; got {kind!r}.")
        n_columns = min(3, len(self.entries))
        self.figure_, self.axes_ = make_grid(ax, len(self.entries), n_columns)
        self.ax_ = self.axes_[0]
        for k, panel in enumerate(self.axes_):
            if kind == "histogram":
                self._plot_histogram(panel, k, color)
            else:
                self._plot_quantiles(panel, k, color)
            dress(panel)
            panel.set_title(self._title(k), loc="left", fontsize=9, color=INK)
        horizontal = "value" if kind == "histogram" else "quantile of N(0, 1)"
        vertical = "density" if kind == "histogram" else "quantile of the codes"
        for k, panel in enumerate(self.axes_):
            if k + n_columns >= len(self.axes_):
                panel.set_xlabel(horizontal, color=INK, fontsize=9)
            if k % n_columns == 0:
                panel.set_ylabel(vertical, color=INK, fontsize=9)
        return self

    def _title(self, k: int) -> str:
        found = self.summary
        return (
            f"z{self.entries[k]}: mean {found.mean[k]:.2f}, sd "
            f"{found.standard_deviation[k]:.2f}, KS {found.distance[k]:.2f}"
        )

    def _plot_histogram(self, ax: Axes, k: int, color: str) -> None:
        codes = self.codes[:, k]
        reach = max(3.5, float(np.abs(codes).max()))
        width = 3.49 * float(codes.std()) / len(codes) ** (1 / 3)  # Scott's rule
        n_bins = int(np.clip(2 * reach / max(width, 1e-9), 10, 150))
        style: dict[str, Any] = {"density": True, "color": color, "alpha": 0.5, "label": "codes"}
        ax.hist(codes, bins=n_bins, range=(-reach, reach), **style)
        grid = np.linspace(-reach, reach, 201)
        density = np.exp(-0.5 * grid**2) / math.sqrt(2 * math.pi)
        ax.plot(grid, density, color=VERMILLION, linewidth=1.4, label="N(0, 1)")

    def _plot_quantiles(self, ax: Axes, k: int, color: str) -> None:
        n = min(len(self.codes), _MOST_QUANTILES)
        levels = (np.arange(n) + 0.5) / n
        expected = np.array([NormalDist().inv_cdf(level) for level in levels])
        found = np.quantile(self.codes[:, k], levels)
        reach = 1.05 * max(float(np.abs(expected).max()), float(np.abs(found).max()))
        line: dict[str, Any] = {"color": VERMILLION, "linewidth": 1.2, "label": "N(0, 1)"}
        ax.plot([-reach, reach], [-reach, reach], **line)
        ax.plot(expected, found, color=color, linestyle="", marker=".", label="codes")


def summarise(codes: Float) -> NormalitySummary:
    """Compare draws with a standard normal, column by column.

    Parameters
    ----------
    codes : ndarray of shape (n_draws, n_entries)

    Returns
    -------
    NormalitySummary
    """
    mean, spread = codes.mean(axis=0), codes.std(axis=0)
    standard = (codes - mean) / np.where(spread > 0, spread, 1.0)
    ordered = np.sort(codes, axis=0)
    expected = np.vectorize(NormalDist().cdf, otypes=[float])(ordered)
    n = len(codes)
    above = (np.arange(1, n + 1) / n)[:, None] - expected
    below = expected - (np.arange(n) / n)[:, None]
    return NormalitySummary(
        mean,
        spread,
        (standard**3).mean(axis=0),
        (standard**4).mean(axis=0) - 3.0,
        np.maximum(above, below).max(axis=0),
    )
