"""Observed points and filled gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._validation import check_levels
from tsvae.plotting._style import (
    BLUE,
    INK,
    VERMILLION,
    dress,
    hide_inner_labels,
    legend_above,
    make_canvas,
    require_matplotlib,
    short,
)
from tsvae.plotting._tracks import read_track, select_variables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float = NDArray[np.float64]


class ReconstructionDisplay:
    """What was observed and what was filled in, one panel for each variable.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`; all parameters are stored as
    attributes.

    Parameters
    ----------
    times : ndarray of shape (n_steps,)
        Stamps, datetime64 or numbers.
    observed : ndarray of shape (n_steps, n_variables)
        The data, NaN in gaps.
    filled : ndarray of shape (n_steps, n_variables)
        The data with gaps filled.
    names : list of str
        Names of the variables.
    lower, upper : ndarray of shape (n_steps, n_variables), default=None
        Band of the smoothed values; drawn in gaps.
    coverage : float, default=None
        Probability of the band.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : list of matplotlib Axes
        One for each variable; ``ax_`` is the first.
    """

    figure_: Figure
    ax_: Axes
    axes_: list[Axes]

    def __init__(
        self,
        *,
        times: NDArray[Any],
        observed: Float,
        filled: Float,
        names: list[str],
        lower: Float | None = None,
        upper: Float | None = None,
        coverage: float | None = None,
    ) -> None:
        self.times = times
        self.observed = observed
        self.filled = filled
        self.names = names
        self.lower = lower
        self.upper = upper
        self.coverage = coverage

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        coverage: float = 0.9,
        series: Any = None,
        variables: Sequence[Any] | None = None,
        max_variables: int = 4,
        ax: Any = None,
        **plot_params: Any,
    ) -> ReconstructionDisplay:
        """Fill the gaps of X with a fitted estimator and draw them.

        Parameters
        ----------
        estimator : object
            A fitted estimator with `impute`; the band is drawn if it also has `impute_quantiles`.
        X : container
            Data with gaps.
        coverage : float, default=0.9
            Probability of the band.
        series : label, default=None
            Which series of a panel; None takes the first.
        variables : sequence of labels, default=None
            Variables to draw; None takes the first `max_variables`.
        max_variables : int, default=4
            Panels at most, if `variables` is None.
        ax : Axes or sequence of Axes, default=None
            Where to draw; None makes a figure.
        **plot_params
            Passed on to :meth:`plot`.

        Returns
        -------
        ReconstructionDisplay

        Raises
        ------
        ValueError
            If `coverage` is not strictly between 0 and 1.
        KeyError
            If there is no such series or variable.
        """
        require_matplotlib("ReconstructionDisplay")
        level = float(check_levels(coverage, "coverage"))
        quantiles = None
        if hasattr(estimator, "impute_quantiles"):
            bounds = [round(0.5 - level / 2, 10), round(0.5 + level / 2, 10)]
            quantiles = estimator.impute_quantiles(X, quantiles=bounds)
        display = cls.from_predictions(
            X,
            estimator.impute(X),
            quantiles=quantiles,
            coverage=level,
            series=series,
            variables=variables,
            max_variables=max_variables,
        )
        return display.plot(ax=ax, **plot_params)

    @classmethod
    def from_predictions(
        cls,
        X: Any,
        filled: Any,
        *,
        quantiles: Any = None,
        coverage: float | None = None,
        series: Any = None,
        variables: Sequence[Any] | None = None,
        max_variables: int = 4,
    ) -> ReconstructionDisplay:
        """Make a display of filled data; `plot` draws it.

        Parameters
        ----------
        X : container
            Data with gaps.
        filled : container
            The same with gaps filled, as `impute` returns it.
        quantiles : container, default=None
            Lower and upper bound of the band: columns (variable, quantile), a dim ``quantile``,
            or a last axis of two.
        coverage : float, default=None
            Probability of the band.
        series, variables, max_variables
            As in :meth:`from_estimator`.

        Returns
        -------
        ReconstructionDisplay
        """
        data, fill = read_track(X, series=series), read_track(filled, series=series)
        if data.values.shape != fill.values.shape:
            raise ValueError(
                f"X and filled must have one shape; got {data.values.shape} and "
                f"{fill.values.shape} (steps, variables)."
            )
        chosen = select_variables(data.names, variables, max_variables)
        lower = upper = None
        if quantiles is not None:
            band = read_track(quantiles, series=series, trailing=True).values
            if band.shape != (*data.values.shape, 2):
                raise ValueError(
                    f"quantiles must have shape {(*data.values.shape, 2)}; got {band.shape}."
                )
            lower, upper = band[:, chosen, 0], band[:, chosen, 1]
        return cls(
            times=data.times,
            observed=data.values[:, chosen],
            filled=fill.values[:, chosen],
            names=[data.names[k] for k in chosen],
            lower=lower,
            upper=upper,
            coverage=coverage,
        )

    def plot(self, ax: Any = None, *, color: str = BLUE) -> Any:
        """Draw the display.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw: one axes for each variable, or one that is divided. None makes a figure.
        color : str, default="#0072B2"
            Colour of fill and band.

        Returns
        -------
        ReconstructionDisplay
            Itself.
        """
        require_matplotlib("ReconstructionDisplay")
        self.figure_, self.axes_ = make_canvas(ax, len(self.names), height=2.3)
        self.ax_ = self.axes_[0]
        for k, panel in enumerate(self.axes_):
            self._plot_variable(panel, k, color)
            dress(panel, times=self.times)
            panel.set_ylabel(short(self.names[k]), color=INK, fontsize=10)
        hide_inner_labels(self.axes_)
        if not np.issubdtype(self.times.dtype, np.datetime64):
            self.axes_[-1].set_xlabel("time", color=INK, fontsize=10)
        legend_above(self.ax_)
        return self

    def _plot_variable(self, ax: Axes, k: int, color: str) -> None:
        gap = np.isnan(self.observed[:, k])
        near = gap.copy()  # the line reaches the points on either side of a gap
        near[1:] |= gap[:-1]
        near[:-1] |= gap[1:]
        size = 3.5 if len(gap) <= 400 else 2.0
        ax.plot(
            self.times,
            self.observed[:, k],
            color=INK,
            linewidth=0.6,
            marker=".",
            markersize=size,
            label="observed",
        )
        if self.lower is not None and self.upper is not None:
            share = "" if self.coverage is None else f"{self.coverage * 100:g} % "
            label = f"{share}interval"
            ends = np.where(gap, np.nan, self.observed[:, k])
            ax.fill_between(
                self.times,
                np.where(gap, self.lower[:, k], ends),
                np.where(gap, self.upper[:, k], ends),
                where=near,
                color=color,
                alpha=0.25,
                linewidth=0,
                label=label,
            )
        line = np.where(near, self.filled[:, k], np.nan)
        ax.plot(self.times, line, color=VERMILLION, linewidth=1.2, label="filled")
        only = np.where(gap, self.filled[:, k], np.nan)
        ax.plot(self.times, only, color=VERMILLION, linestyle="", marker="o", markersize=size - 0.5)
