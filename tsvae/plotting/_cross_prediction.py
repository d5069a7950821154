"""One measurement beside its prediction from the other: made by a linker, drawn in a panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.plotting._linkers import read_side, take_records
from tsvae.plotting._signals import Signals
from tsvae.plotting._style import INK, VERMILLION, dress, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Float = NDArray[np.float64]
Index = NDArray[np.intp]

_MOST_DOTS = 25
_MOST_TEXTS = 12
_MOST_LETTERS = 40  # beside each other


class CrossPrediction(NamedTuple):
    """One measurement of some records, and what the other one says of it.

    Parameters
    ----------
    axis : ndarray of shape (n_steps,)
        Numbers or datetime64.
    truth : ndarray of shape (n_records, n_steps, n_variables)
        NaN where missing.
    predicted : ndarray of shape (n_records, n_steps, n_variables)
        NaN where there was nothing to predict from.
    lower, upper : ndarray of shape (n_records, n_steps, n_variables), default=None
        Band.
    variables : sequence of str, default=("",)
        Names of the variables.
    axis_name : str, default="step"
    axis_labels : sequence of str, default=None
        Labels of the steps, where the axis has none that are numbers.
    log_scale : bool, default=False
        Whether to draw on a logarithmic axis; one with a linear middle where there are negative
        values.
    """

    axis: NDArray[Any]
    truth: Float
    predicted: Float
    lower: Float | None = None
    upper: Float | None = None
    variables: Sequence[str] = ("",)
    axis_name: str = "step"
    axis_labels: Sequence[str] | None = None
    log_scale: bool = False

    @property
    def tick_texts(self) -> list[str] | None:
        """Labels of the axis that are no numbers, where they are few enough to be read."""
        if self.axis_labels is None or len(self.axis_labels) > _MOST_TEXTS:
            return None
        return [short(text, 12) for text in self.axis_labels]


class Band(NamedTuple):
    """Point prediction and band of the chosen records."""

    point: Signals | None  # None: nothing to predict from
    lower: Signals | None
    upper: Signals | None
    rows: Index  # (R,) of each chosen record in these; -1 where it is absent


def predict_band(
    linker: Any,
    methods: tuple[Callable[..., Any], Callable[..., Any]],
    given: Any,
    seen: NDArray[np.bool_],
    places: Index,
    coverage: float,
) -> Band:
    """Predict the chosen records: those alone, where the container has rows."""
    known = places[seen[places]]
    if not len(known):
        return Band(None, None, None, np.full(len(places), -1))
    taken = take_records(given, known, len(seen))
    rows = np.where(seen[places], places, -1)
    if taken is not None:
        rows = np.where(seen[places], np.cumsum(seen[places]) - 1, -1)
        given = taken
    predict, predict_interval = methods
    point, interval = predict(given), predict_interval(given, coverage=coverage)
    read = [
        read_side(part, linker, "the prediction")
        for part in (point, interval.lower, interval.upper)
    ]
    return Band(read[0], read[1], read[2], rows)


def lay_beside(
    band: Band,
    truth: Signals,
    places: Index,
    variables: list[int],
    name: str,
    log_scale: bool,
) -> CrossPrediction:
    """Prediction and truth of the chosen records and variables."""
    measured = truth.values[places][:, :, variables]

    def rows(part: Signals | None) -> Float:
        if part is None:
            return np.full(measured.shape, np.nan)
        if part.values.shape[1:] != truth.values.shape[1:]:
            raise ValueError(
                f"{name} must be as it was in fit, with records of shape "
                f"{part.values.shape[1:]} (steps, variables); got {truth.values.shape[1:]}."
            )
        values = part.values[band.rows][:, :, variables]
        return np.where((band.rows >= 0)[:, None, None], values, np.nan)

    # Labels that only one of truth and prediction has are those of the other too.
    axis = truth
    if band.point is not None and _is_plain(truth) and not _is_plain(band.point):
        axis = band.point
    return CrossPrediction(
        axis=axis.axis,
        truth=measured,
        predicted=rows(band.point),
        lower=rows(band.lower),
        upper=rows(band.upper),
        variables=[truth.names[k] for k in variables],
        axis_name=axis.axis_name,
        axis_labels=axis.axis_labels,
        log_scale=log_scale,
    )


def _is_plain(signals: Signals) -> bool:
    """Whether the axis only counts steps."""
    counted = np.array_equal(signals.axis, np.arange(len(signals.axis)))
    return counted and signals.axis_labels is None and signals.axis_name == "step"


def plot_panel(
    ax: Axes, side: CrossPrediction, record: int, k: int, band: str | None, color: str
) -> None:
    truth, predicted = side.truth[record, :, k], side.predicted[record, :, k]
    lower, upper = side.lower, side.upper
    marker = {"marker": "o", "markersize": 3.0} if len(side.axis) <= _MOST_DOTS else {}
    style: dict[str, Any] = {"linewidth": 1.2, **marker}
    values = np.concatenate([truth, predicted])
    values = values[np.isfinite(values)]
    scale = _value_scale(values) if side.log_scale else "linear"
    if band is not None and lower is not None and upper is not None:
        bounds = lower[record, :, k], upper[record, :, k]
        if scale == "log":  # a bound below zero would reach down for ever
            floor = values[values > 0].min() / 10
            bounds = np.maximum(bounds[0], floor), np.maximum(bounds[1], floor)
        _plot_band(ax, side.axis, *bounds, band, color)
    ax.plot(side.axis, truth, color=INK, label="measured", **style)
    ax.plot(side.axis, predicted, color=VERMILLION, label="predicted", **style)
    if scale == "log":
        ax.set_yscale("log", nonpositive="mask")
    elif scale == "symlog":
        small = np.quantile(np.abs(values[values != 0]), 0.1)
        # A power of ten: ticks between zero and the threshold would overlap.
        ax.set_yscale("symlog", linthresh=10.0 ** np.ceil(np.log10(small)))
    dress(ax, times=side.axis)
    _fit_axis(ax, side)


def _plot_band(
    ax: Axes, axis: NDArray[Any], lower: Float, upper: Float, label: str, color: str
) -> None:
    if len(axis) > 1:
        style: dict[str, Any] = {"color": color, "alpha": 0.25, "linewidth": 0}
        ax.fill_between(axis, lower, upper, **style, label=label)
    else:  # of no width
        ax.vlines(axis, lower, upper, color=color, alpha=0.4, linewidth=6, label=label)


def _value_scale(values: Float) -> str:
    """Scale of the y axis for values of several orders of magnitude."""
    if (values < 0).any():
        return "symlog"
    return "log" if (values > 0).any() else "linear"


def _fit_axis(ax: Axes, side: CrossPrediction) -> None:
    """Give all panels of a column the whole axis, and its labels where they are no numbers."""
    first, last = side.axis.min(), side.axis.max()
    texts = side.tick_texts
    if len(side.axis) > 1:
        margin = (last - first) * 0.01 if texts is None else 0.3
        ax.set_xlim(first - margin, last + margin)
    elif texts is None:
        ax.set_xticks([])  # a single number has no axis
    if texts is None:
        return
    ax.set_xticks(side.axis, texts)
    if sum(map(len, texts)) > _MOST_LETTERS:
        ax.tick_params(axis="x", rotation=35)
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
