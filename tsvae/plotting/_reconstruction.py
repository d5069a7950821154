"""What was observed and what a model makes of it: filled gaps, denoised signals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._validation import check_levels
from tsvae.plotting._signals import choose_records, read_signals, split_draws
from tsvae.plotting._style import (
    BLUE,
    INK,
    VERMILLION,
    dress,
    hide_inner_labels,
    legend_above,
    make_canvas,
    require_matplotlib,
    shade_steps,
    short,
)
from tsvae.plotting._tracks import read_track, select_variables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float = NDArray[np.float64]


class ReconstructionDisplay:
    """What was observed and what a model makes of it, one panel for each variable or record.

    Of a forecaster: gaps filled, with a band. Of a denoiser: the denoised signal at every step,
    gaps shaded, beside the clean signal if it is known.

    Make it with :meth:`from_estimator`, :meth:`from_predictions` or :meth:`from_signals`; all
    parameters are stored as attributes.

    Parameters
    ----------
    times : ndarray of shape (n_steps,)
        Stamps, datetime64 or numbers.
    observed : ndarray of shape (n_steps, n_panels)
        The data, NaN in gaps.
    filled : ndarray of shape (n_steps, n_panels)
        The data with gaps filled, or denoised.
    names : list of str
        Names of the variables or records.
    lower, upper : ndarray of shape (n_steps, n_panels), default=None
        Band; of filled data drawn in gaps.
    coverage : float, default=None
        Probability of the band.
    clean : ndarray of shape (n_steps, n_panels), default=None
        What the reconstruction should be, where known.
    denoised : bool, default=False
        Whether `filled` differs from `observed` outside of gaps too: drawn at every step.
    axis_name : str, default="time"
        Of the x axis.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : list of matplotlib Axes
        One for each panel; ``ax_`` is the first.
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
        clean: Float | None = None,
        denoised: bool = False,
        axis_name: str = "time",
    ) -> None:
        self.times = times
        self.observed = observed
        self.filled = filled
        self.names = names
        self.lower = lower
        self.upper = upper
        self.coverage = coverage
        self.clean = clean
        self.denoised = denoised
        self.axis_name = axis_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        clean: Any = None,
        condition: Any = None,
        n_draws: int = 0,
        coverage: float = 0.9,
        series: Any = None,
        max_series: int = 3,
        variables: Sequence[Any] | None = None,
        max_variables: int = 4,
        ax: Any = None,
        **plot_params: Any,
    ) -> ReconstructionDisplay:
        """Fill the gaps of X, or denoise it, with a fitted estimator and draw the result.

        Parameters
        ----------
        estimator : object
            A fitted estimator with `reconstruct`, as a denoiser has it, or with `impute`; of the
            latter the band is drawn if it also has `impute_quantiles`.
        X : container
            Signals, or data with gaps. All of it is reconstructed.
        clean : same kind as X, default=None
            Clean signals, for a denoiser.
        condition : optional
            One row for each record, for a denoiser with conditions.
        n_draws : int, default=0
            Draws from q(z | x) that the band of a denoiser is made of; 0 draws none.
        coverage : float, default=0.9
            Probability of the band.
        series : label or list of labels, default=None
            Which records, or which series of a panel (one); positions where there are no labels.
            None takes the first `max_series` records, the first series.
        max_series : int, default=3
            Records at most, if `series` is None.
        variables : sequence of labels, default=None
            Variables to draw; None takes the first `max_variables`.
        max_variables : int, default=4
            Variables at most (of each record), if `variables` is None.
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
        TypeError
            If the estimator is no denoiser and `clean`, `condition` or `n_draws` are given.
        """
        require_matplotlib("ReconstructionDisplay")
        level = float(check_levels(coverage, "coverage"))
        if hasattr(estimator, "reconstruct"):
            given = {} if condition is None else {"condition": condition}
            draws: Sequence[Any] = ()
            denoised = estimator.reconstruct(X, **given)
            if n_draws:
                draws = split_draws(estimator.augment(X, n_draws, **given), n_draws)
            display = cls.from_signals(
                X,
                denoised,
                clean=clean,
                draws=draws,
                coverage=level,
                estimator=estimator,
                series=series,
                max_series=max_series,
                variables=variables,
                max_variables=max_variables,
            )
            return display.plot(ax=ax, **plot_params)
        if clean is not None or condition is not None or n_draws:
            raise TypeError(
                "clean, condition and n_draws are for estimators with a method reconstruct, which "
                f"{type(estimator).__name__} has not; leave them out."
            )
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

    @classmethod
    def from_signals(
        cls,
        X: Any,
        denoised: Any,
        *,
        clean: Any = None,
        draws: Sequence[Any] = (),
        coverage: float = 0.9,
        estimator: Any = None,
        series: Any = None,
        max_series: int = 3,
        variables: Sequence[Any] | None = None,
        max_variables: int = 4,
    ) -> ReconstructionDisplay:
        """Make a display of denoised signals; `plot` draws it.

        Parameters
        ----------
        X : container
            Records (rows), as a denoiser reads them.
        denoised : same kind as X
            The same, denoised.
        clean : same kind as X, default=None
            Clean signals.
        draws : sequence of the same kind as X, default=()
            Variants of the denoised signals; their quantiles are the band.
        coverage : float, default=0.9
            Probability of the band.
        estimator : object, default=None
            A denoiser whose ``window``, ``time``, ``series`` and ``freq`` say how containers are
            read.
        series, max_series, variables, max_variables
            As in :meth:`from_estimator`.

        Returns
        -------
        ReconstructionDisplay
        """
        given = read_signals(X, estimator)
        records = choose_records(given.keys, series, max_series)
        chosen = select_variables(given.names, variables, max_variables)

        def panels(container: Any, name: str) -> Float:
            found = read_signals(container, estimator, name=name)
            return found.columns(records, chosen, like=given, name=name)

        lower = upper = None
        if len(draws):
            tail = (1 - coverage) / 2
            drawn = np.stack([panels(draw, "draws") for draw in draws])
            lower, upper = np.quantile(drawn, [tail, 1 - tail], axis=0)
        return cls(
            times=given.axis,
            observed=panels(X, "X"),
            filled=panels(denoised, "denoised"),
            names=[given.title(record, k) for record in records for k in chosen],
            lower=lower,
            upper=upper,
            coverage=coverage if len(draws) else None,
            clean=None if clean is None else panels(clean, "clean"),
            denoised=True,
            axis_name=given.axis_name,
        )

    def plot(self, ax: Any = None, *, color: str = BLUE) -> Any:
        """Draw the display.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw: one axes for each panel, or one that is divided. None makes a figure.
        color : str, default="#0072B2"
            Colour of the band.

        Returns
        -------
        ReconstructionDisplay
            Itself.
        """
        require_matplotlib("ReconstructionDisplay")
        self.figure_, self.axes_ = make_canvas(ax, len(self.names), height=2.3)
        self.ax_ = self.axes_[0]
        for k, panel in enumerate(self.axes_):
            if self.denoised:
                self._plot_signal(panel, k, color)
            else:
                self._plot_variable(panel, k, color)
            dress(panel, times=self.times)
            panel.set_ylabel(short(self.names[k]), color=INK, fontsize=10)
        hide_inner_labels(self.axes_)
        if not np.issubdtype(self.times.dtype, np.datetime64):
            self.axes_[-1].set_xlabel(self.axis_name, color=INK, fontsize=10)
        legend_above(self.ax_)
        return self

    def _plot_signal(self, ax: Axes, k: int, color: str) -> None:
        lines: dict[str, Any] = {"linewidth": 1.4}
        gap = np.isnan(self.observed[:, k]) & np.isfinite(self.filled[:, k])
        shade_steps(ax, self.times, gap, "gap")
        grey = "#8A8A8A"
        ax.plot(self.times, self.observed[:, k], color=grey, linewidth=0.8, label="observed")
        seen = ~np.isnan(self.observed[:, k])
        alone = np.where(seen & ~_near(seen), self.observed[:, k], np.nan)  # no line reaches it
        ax.plot(self.times, alone, color=grey, linestyle="", marker=".", markersize=2)
        if self.lower is not None and self.upper is not None:
            share = "" if self.coverage is None else f"{self.coverage * 100:g} % of "
            style: dict[str, Any] = {"color": color, "alpha": 0.3, "linewidth": 0}
            band = (self.times, self.lower[:, k], self.upper[:, k])
            ax.fill_between(*band, **style, label=f"{share}draws")
        if self.clean is not None:
            ax.plot(self.times, self.clean[:, k], color=INK, **lines, label="clean")
        ax.plot(self.times, self.filled[:, k], color=VERMILLION, **lines, label="denoised")
        ax.margins(x=0.01)

    def _plot_variable(self, ax: Axes, k: int, color: str) -> None:
        gap = np.isnan(self.observed[:, k])
        near = gap | _near(gap)  # the line reaches the points on either side of a gap
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


def _near(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a neighbour is flagged."""
    near = np.zeros_like(flags)
    near[1:] |= flags[:-1]
    near[:-1] |= flags[1:]
    return near
