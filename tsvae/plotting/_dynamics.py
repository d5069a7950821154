"""Latent states and the dynamics that move them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._validation import check_levels
from tsvae.plotting._style import (
    BLUE,
    GRID,
    INK,
    VERMILLION,
    divide,
    dress,
    hide_inner_labels,
    require_matplotlib,
    short,
)
from tsvae.plotting._tracks import plain_times

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float = NDArray[np.float64]


class Modes(NamedTuple):
    """Modes of a linear dynamical system, slowest decay first; a conjugate pair is one mode."""

    eigenvalues: NDArray[np.complex128]  # (M,) with imaginary part >= 0
    periods: Float  # (M,) steps of one turn; inf for a mode that does not turn
    half_lives: Float  # (M,) steps to half the size; inf for one that does not decay


class LatentDynamicsDisplay:
    """Smoothed latent states with bands; eigenvalues of the transition, periods and half-lives.

    Make it with :meth:`from_estimator`.

    Parameters
    ----------
    times : ndarray of shape (n_steps,)
        Stamps, datetime64 or numbers.
    mean : ndarray of shape (n_steps, n_latents)
        Smoothed latent means.
    variance : ndarray of shape (n_steps, n_latents)
        Their variances.
    eigenvalues : complex ndarray of shape (n_latents,)
        Eigenvalues of the transition matrix.
    coverage : float, default=0.9
        Probability of the bands.
    max_latents : int, default=5
        Latent states drawn, those that vary most first.
    names : sequence of str, default=None
        Names of the latent states; None: z0, z1, ...

    Attributes
    ----------
    modes : Modes
        Eigenvalues, periods and half-lives in steps.
    figure_ : matplotlib Figure
    axes_ : list of matplotlib Axes
        Of the latent states; ``ax_`` is the first.
    circle_ax_ : matplotlib Axes
        Of the eigenvalues.
    table_ax_ : matplotlib Axes
        Of the table.

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.plotting import LatentDynamicsDisplay
    >>> turn = 0.5 * np.exp(2j * np.pi / 12)
    >>> display = LatentDynamicsDisplay(
    ...     times=np.arange(3), mean=np.zeros((3, 2)), variance=np.ones((3, 2)),
    ...     eigenvalues=np.array([turn, turn.conjugate()]),
    ... )
    >>> display.modes.periods.round(6), display.modes.half_lives.round(6)
    (array([12.]), array([1.]))
    """

    figure_: Figure
    ax_: Axes
    axes_: list[Axes]
    circle_ax_: Axes
    table_ax_: Axes

    def __init__(
        self,
        *,
        times: NDArray[Any],
        mean: Float,
        variance: Float,
        eigenvalues: NDArray[np.complex128],
        coverage: float = 0.9,
        max_latents: int = 5,
        names: Sequence[str] | None = None,
    ) -> None:
        if np.shape(mean) != np.shape(variance):
            raise ValueError(
                "mean and variance must both have shape (n_steps, n_latents); got "
                f"{np.shape(mean)} and {np.shape(variance)}."
            )
        if max_latents < 1:
            raise ValueError(f"max_latents must be at least 1; got {max_latents}.")
        n_latents = np.shape(mean)[1]
        if names is not None and len(names) != n_latents:
            raise ValueError(f"names must name the {n_latents} latent states; got {len(names)}.")
        self.times = times
        self.names = [f"z{k}" for k in range(n_latents)] if names is None else list(names)
        self.mean = np.asarray(mean, dtype=float)
        self.variance = np.asarray(variance, dtype=float)
        self.eigenvalues = np.asarray(eigenvalues, dtype=complex)
        self.coverage = float(check_levels(coverage, "coverage"))
        self.max_latents = max_latents
        self.modes = find_modes(self.eigenvalues)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        coverage: float = 0.9,
        max_latents: int = 5,
        ax: Any = None,
    ) -> LatentDynamicsDisplay:
        """Draw the latent states of X and the dynamics of a fitted estimator.

        Parameters
        ----------
        estimator : object
            A fitted estimator whose ``latent_dynamics(X)`` returns `mean`, `variance` of shape
            (n_steps, n_latents), `eigenvalues` (n_latents,) and `times` (n_steps,). Latent states
            are named as its ``get_feature_names_out()`` does, if it has that method.
        X : container, default=None
            Data to smooth; None takes the training data that the estimator keeps.
        coverage : float, default=0.9
            Probability of the bands.
        max_latents : int, default=5
            Latent states drawn, those that vary most first.
        ax : Axes, default=None
            Where to draw; its place is divided. None makes a figure.

        Returns
        -------
        LatentDynamicsDisplay
        """
        require_matplotlib("LatentDynamicsDisplay")
        latent = estimator.latent_dynamics(X) if X is not None else estimator.latent_dynamics()
        times = latent.times
        display = cls(
            times=plain_times(times) if hasattr(times, "get_indexer") else np.asarray(times),
            mean=latent.mean,
            variance=latent.variance,
            eigenvalues=latent.eigenvalues,
            coverage=coverage,
            max_latents=max_latents,
            names=_latent_names(estimator, np.shape(latent.mean)[1]),
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None, *, color: str = BLUE, max_rows: int = 8) -> Any:
        """Draw the display.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; its place is divided. None makes a figure.
        color : str, default="#0072B2"
            Colour of the latent states.
        max_rows : int, default=8
            Rows of the table at most, slowest modes first.

        Returns
        -------
        LatentDynamicsDisplay
            Itself.
        """
        require_matplotlib("LatentDynamicsDisplay")
        import matplotlib.pyplot as plt

        shown = np.argsort(-self.mean.var(axis=0), kind="stable")[: self.max_latents]
        n_rows = len(shown)
        if ax is None:
            size = (11.0, max(4.8, 1.0 + 1.1 * n_rows))
            self.figure_, ax = plt.subplots(figsize=size, layout="constrained")
        else:
            self.figure_ = ax.figure
        columns = divide(ax, 1, 2, width_ratios=[1.7, 1.0])
        cells = columns[0].subgridspec(n_rows, 1)
        self.axes_ = [self.figure_.add_subplot(cells[0])]
        for row in range(1, n_rows):
            self.axes_.append(self.figure_.add_subplot(cells[row], sharex=self.axes_[0]))
        self.ax_ = self.axes_[0]
        right = columns[1].subgridspec(2, 1, height_ratios=[1.5, 1.0])
        self.circle_ax_ = self.figure_.add_subplot(right[0])
        self.table_ax_ = self.figure_.add_subplot(right[1])
        self._plot_latents(shown, color)
        self._plot_circle()
        self._plot_table(max_rows)
        return self

    def _plot_latents(self, shown: NDArray[np.intp], color: str) -> None:
        half = _normal_quantile(0.5 + self.coverage / 2) * np.sqrt(self.variance)
        for panel, k in zip(self.axes_, shown, strict=True):
            mean = self.mean[:, k]
            panel.fill_between(
                self.times,
                mean - half[:, k],
                mean + half[:, k],
                color=color,
                alpha=0.25,
                linewidth=0,
            )
            panel.plot(self.times, mean, color=color, linewidth=1.2)
            name = short(self.names[k], 14)
            panel.set_ylabel(name, color=INK, fontsize=10, rotation=0, ha="right", va="center")
            dress(panel, times=self.times)
        hide_inner_labels(self.axes_)
        if not np.issubdtype(np.asarray(self.times).dtype, np.datetime64):
            self.axes_[-1].set_xlabel("time", color=INK, fontsize=10)
        rest = self.mean.shape[1] - len(shown)
        title = f"Smoothed latent states, {self.coverage * 100:g} % bands"
        if rest:
            title += f" ({rest} of less variance not shown)"
        self.ax_.set_title(title, loc="left", fontsize=10, color=INK)

    def _plot_circle(self) -> None:
        ax = self.circle_ax_
        angle = np.linspace(0, 2 * np.pi, 361)
        ax.plot(np.cos(angle), np.sin(angle), color="#888888", linewidth=1.0)
        ax.axhline(0.0, color=GRID, linewidth=0.8, zorder=0.5)
        ax.axvline(0.0, color=GRID, linewidth=0.8, zorder=0.5)
        ax.scatter(
            self.eigenvalues.real,
            self.eigenvalues.imag,
            s=34,
            color=VERMILLION,
            edgecolor="white",
            linewidth=0.7,
            zorder=3,
        )
        limit = 1.12 * max(1.0, float(np.abs(self.eigenvalues).max(initial=0.0)))
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        ax.set_xticks([-1, 0, 1])
        ax.set_yticks([-1, 0, 1])
        ax.tick_params(colors=INK, labelsize=9)
        for side in ax.spines.values():
            side.set_visible(False)
        ax.set_title("Eigenvalues λ of the transition", loc="center", fontsize=10, color=INK)

    def _plot_table(self, max_rows: int) -> None:
        from matplotlib.transforms import Bbox

        ax = self.table_ax_
        ax.set_axis_off()
        rows = [
            [f"{abs(value):.3f}", _steps(period), _steps(half)]
            for value, period, half in zip(*self.modes, strict=True)
        ][:max_rows]
        share = (len(rows) + 1) / (max_rows + 1)  # rows of one height, however many
        table = ax.table(
            cellText=rows,
            colLabels=["|λ|", "period", "half-life"],
            cellLoc="center",
            bbox=Bbox.from_bounds(0.0, 1.0 - share, 1.0, share),
        )
        table.auto_set_font_size(False)
        table.set_fontsize(9)
        for (row, _), cell in table.get_celld().items():
            cell.set_edgecolor(GRID)
            cell.set_linewidth(0.7)
            cell.visible_edges = "B"
            cell.get_text().set_color(INK)
            if row == 0:
                cell.get_text().set_fontweight("bold")
        left = len(self.modes.periods) - len(rows)
        note = "in steps" + (f"; {left} faster modes not shown" if left > 0 else "")
        ax.set_title(f"Slowest modes ({note})", loc="center", fontsize=10, color=INK)


def find_modes(eigenvalues: NDArray[np.complex128]) -> Modes:
    """Periods and half-lives of eigenvalues, conjugate pairs merged.

    Parameters
    ----------
    eigenvalues : complex ndarray of shape (n_latents,)
        Eigenvalues of the transition matrix of one step.

    Returns
    -------
    Modes
        Period ``2 pi / |angle|`` and half-life ``log(1/2) / log|eigenvalue|``, in steps.
    """
    values = np.asarray(eigenvalues, dtype=complex)
    values = values[values.imag >= -1e-12]  # of a pair, the one that turns forward
    size = np.abs(values)
    values = values[np.argsort(-size, kind="stable")]
    size, angle = np.abs(values), np.abs(np.angle(values))
    with np.errstate(divide="ignore", invalid="ignore"):
        periods = np.where(angle > 1e-9, 2 * np.pi / angle, np.inf)
        half_lives = np.where(size < 1 - 1e-12, np.log(0.5) / np.log(size), np.inf)
    return Modes(values, periods, half_lives)


def _latent_names(estimator: Any, n_latents: int) -> list[str] | None:
    """Names that the estimator gives its latent states, if it has one for each."""
    if not hasattr(estimator, "get_feature_names_out"):
        return None
    names = [str(name) for name in estimator.get_feature_names_out()]
    return names if len(names) == n_latents else None


def _steps(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _normal_quantile(level: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(level)
