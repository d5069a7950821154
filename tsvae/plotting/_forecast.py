"""History, forecast, bands and what happened."""

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
from tsvae.plotting._tracks import Track, quantile_levels, read_track, select_variables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Bands = dict[float, tuple[NDArray[np.float64], NDArray[np.float64]]]


class ForecastDisplay:
    """Forecast with its bands, after the history, one panel for each variable.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`; all parameters are stored as
    attributes.

    Parameters
    ----------
    times : ndarray of shape (n_steps,)
        Stamps of the forecast, datetime64 or numbers.
    median : ndarray of shape (n_steps, n_variables)
        The line of the forecast.
    bands : dict of float to (lower, upper)
        Bounds of shape (n_steps, n_variables) of the central interval of each coverage.
    names : list of str
        Names of the variables.
    history_times, history : ndarray of shape (T,) and (T, n_variables), default=None
        What went before.
    actual_times, actual : ndarray of shape (H,) and (H, n_variables), default=None
        What happened.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : list of matplotlib Axes
        One for each variable; ``ax_`` is the first.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from tsvae.plotting import ForecastDisplay
    >>> quantiles = np.array([[[0.0, 1.0, 2.0]], [[-1.0, 1.0, 3.0]]])  # (steps, variables, 3)
    >>> display = ForecastDisplay.from_predictions(quantiles, quantiles=[0.05, 0.5, 0.95])
    >>> sorted(display.bands)
    [0.9]
    >>> display.plot() is display
    True
    """

    figure_: Figure
    ax_: Axes
    axes_: list[Axes]

    def __init__(
        self,
        *,
        times: NDArray[Any],
        median: NDArray[np.float64],
        bands: Bands,
        names: list[str],
        history_times: NDArray[Any] | None = None,
        history: NDArray[np.float64] | None = None,
        actual_times: NDArray[Any] | None = None,
        actual: NDArray[np.float64] | None = None,
    ) -> None:
        self.times = times
        self.median = median
        self.bands = bands
        self.names = names
        self.history_times = history_times
        self.history = history
        self.actual_times = actual_times
        self.actual = actual

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        horizon: int | None = None,
        coverages: Sequence[float] = (0.5, 0.9),
        history: Any = None,
        actual: Any = None,
        series: Any = None,
        variables: Sequence[Any] | None = None,
        max_variables: int = 4,
        history_length: int | None = None,
        ax: Any = None,
        **plot_params: Any,
    ) -> ForecastDisplay:
        """Forecast with a fitted estimator and draw it.

        Parameters
        ----------
        estimator : object
            A fitted forecaster with `predict_quantiles`.
        X : container, default=None
            History to continue, also drawn. None continues the training data.
        horizon : int, default=None
            Steps to forecast; None takes the estimator's.
        coverages : sequence of float, default=(0.5, 0.9)
            Central intervals to draw.
        history : container, default=None
            What to draw before the forecast; None takes X.
        actual : container, default=None
            What happened, drawn over the forecast.
        series : label, default=None
            Which series of a panel; None takes the first.
        variables : sequence of labels, default=None
            Variables to draw; None takes the first `max_variables`.
        max_variables : int, default=4
            Panels at most, if `variables` is None.
        history_length : int, default=None
            Steps of history drawn; None takes four times the forecast's, at least 40.
        ax : Axes or sequence of Axes, default=None
            Where to draw; None makes a figure.
        **plot_params
            Passed on to :meth:`plot`.

        Returns
        -------
        ForecastDisplay

        Raises
        ------
        ValueError
            If a coverage is not strictly between 0 and 1.
        KeyError
            If there is no such series or variable.
        """
        require_matplotlib("ForecastDisplay")
        levels = _levels_of(coverages)
        given = {} if X is None else {"X": X}
        predicted = estimator.predict_quantiles(**given, horizon=horizon, quantiles=levels)
        display = cls.from_predictions(
            predicted,
            quantiles=levels,
            history=X if history is None else history,
            actual=actual,
            series=series,
            variables=variables,
            max_variables=max_variables,
            history_length=history_length,
        )
        return display.plot(ax=ax, **plot_params)

    @classmethod
    def from_predictions(
        cls,
        predicted: Any,
        *,
        quantiles: Sequence[float] | None = None,
        history: Any = None,
        actual: Any = None,
        series: Any = None,
        variables: Sequence[Any] | None = None,
        max_variables: int = 4,
        history_length: int | None = None,
    ) -> ForecastDisplay:
        """Make a display of forecast quantiles; `plot` draws it.

        Parameters
        ----------
        predicted : container
            Result of `predict_quantiles`: columns (variable, quantile), a dim ``quantile``, or a
            last axis of quantiles.
        quantiles : sequence of float, default=None
            Levels of an array without labels. Levels q and 1 - q make one band; 0.5, or the
            middle of all, is the line.
        history, actual, series, variables, max_variables, history_length
            As in :meth:`from_estimator`.

        Returns
        -------
        ForecastDisplay
        """
        own = quantile_levels(predicted)
        given = own if own is not None else quantiles
        if given is None:
            raise ValueError("quantiles is needed: the levels of the last axis of `predicted`.")
        levels = [float(level) for level in check_levels(given, "quantiles")]
        past = None if history is None else read_track(history, series=series)
        start = 0 if past is None else len(past.times)
        track = read_track(predicted, series=series, trailing=True, start=start)
        if track.values.shape[-1] != len(levels):
            raise ValueError(
                f"predicted has {track.values.shape[-1]} quantiles on its last axis; quantiles "
                f"lists {len(levels)}."
            )
        future = None if actual is None else read_track(actual, series=series, start=start)
        chosen = select_variables(track.names, variables, max_variables)
        values = track.values[:, chosen]
        length = history_length or max(4 * len(values), 40)
        past, future = _only(past, track, chosen, length), _only(future, track, chosen, None)
        middle = int(np.argmin(np.abs(np.asarray(levels) - 0.5)))
        return cls(
            times=track.times,
            median=values[..., middle],
            bands=_bands(values, levels),
            names=[track.names[k] for k in chosen],
            history_times=None if past is None else past.times,
            history=None if past is None else past.values,
            actual_times=None if future is None else future.times,
            actual=None if future is None else future.values,
        )

    def plot(self, ax: Any = None, *, color: str = BLUE, line_params: Any = None) -> Any:
        """Draw the display.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw: one axes for each variable, or one that is divided. None makes a figure.
        color : str, default="#0072B2"
            Colour of forecast and bands.
        line_params : dict, default=None
            Passed on to ``Axes.plot`` for the line of the forecast.

        Returns
        -------
        ForecastDisplay
            Itself.
        """
        require_matplotlib("ForecastDisplay")
        self.figure_, self.axes_ = make_canvas(ax, len(self.names), height=2.3)
        self.ax_ = self.axes_[0]
        for k, panel in enumerate(self.axes_):
            self._plot_variable(panel, k, color, line_params or {})
            dress(panel, times=self.times)
            panel.set_ylabel(short(self.names[k]), color=INK, fontsize=10)
        hide_inner_labels(self.axes_)
        if not np.issubdtype(self.times.dtype, np.datetime64):
            self.axes_[-1].set_xlabel("time", color=INK, fontsize=10)
        legend_above(self.ax_)
        return self

    def _plot_variable(self, ax: Axes, k: int, color: str, line_params: dict[str, Any]) -> None:
        if self.history is not None and self.history_times is not None:
            _plot_observed(ax, self.history_times, self.history[:, k], INK, "history")
        for rank, coverage in enumerate(sorted(self.bands, reverse=True)):
            lower, upper = self.bands[coverage]
            alpha = 0.16 + 0.22 * rank / max(len(self.bands) - 1, 1)
            label = f"{coverage * 100:g} % interval"
            options: dict[str, Any] = {
                "color": color,
                "alpha": alpha,
                "linewidth": 0,
                "label": label,
            }
            if len(self.times) == 1:  # a band of no width cannot be seen
                options = {**options, "linewidth": 5 + 3 * rank}
                ax.vlines(self.times, lower[:, k], upper[:, k], **options)
            else:
                ax.fill_between(self.times, lower[:, k], upper[:, k], **options)
        style = {"color": color, "linewidth": 1.6, "label": "forecast"}
        style["marker"] = "o" if len(self.times) == 1 else ""
        ax.plot(self.times, self.median[:, k], **{**style, **line_params})
        if self.actual is not None and self.actual_times is not None:
            _plot_observed(ax, self.actual_times, self.actual[:, k], VERMILLION, "actual")


def _plot_observed(ax: Axes, times: Any, values: Any, color: str, label: str) -> None:
    """Draw a line, with dots where gaps would hide lonely points."""
    marker = "." if np.isnan(values).any() or len(values) < 3 else ""
    ax.plot(times, values, color=color, linewidth=1.2, marker=marker, markersize=3, label=label)


def _levels_of(coverages: Sequence[float]) -> list[float]:
    """Quantile levels of the bounds of `coverages`, and the median."""
    halves = [
        float(coverage) / 2 for coverage in np.atleast_1d(check_levels(coverages, "coverages"))
    ]
    levels = {round(0.5 + sign * float(half), 10) for half in halves for sign in (-1, 1)}
    return sorted(levels | {0.5})


def _bands(values: NDArray[np.float64], levels: list[float]) -> Bands:
    """Pair the levels q and 1 - q."""
    bands: Bands = {}
    for i, low in enumerate(levels):
        for j, high in enumerate(levels):
            if low < 0.5 and abs(low + high - 1) < 1e-9:
                bands[round(high - low, 10)] = (values[..., i], values[..., j])
    return bands


def _only(track: Track | None, like: Track, chosen: list[int], last: int | None) -> Track | None:
    """Reduce `track` to the chosen variables of `like`, and its last rows."""
    if track is None:
        return None
    if track.names != like.names and len(track.names) != len(like.names):
        raise ValueError(
            f"The forecast has the variables {like.names}, the other data {track.names}."
        )
    order = [track.names.index(n) if n in track.names else k for k, n in enumerate(like.names)]
    keep = slice(None) if last is None else slice(-last, None)
    values = track.values[keep][:, [order[k] for k in chosen]]
    return Track(track.times[keep], values, [like.names[k] for k in chosen])
