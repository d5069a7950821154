"""What a linker makes of one measurement from the other, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._validation import check_levels
from tsvae.plotting._cross_prediction import (
    CrossPrediction,
    lay_beside,
    plot_panel,
    predict_band,
)
from tsvae.plotting._linkers import Sides, check_names, read_sides, require_linker
from tsvae.plotting._signals import choose_records
from tsvae.plotting._style import (
    BLUE,
    INK,
    legend_above,
    make_grid,
    require_matplotlib,
    short,
)
from tsvae.plotting._tracks import select_variables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float = NDArray[np.float64]

_METHODS = ("predict", "predict_inverse", "predict_interval", "predict_interval_inverse")


class CrossReconstructionDisplay:
    """Each measurement of some records beside its prediction from the other one.

    One row for each record (and variable): on the left y and what X says of it, on the right X and
    what y says of it.

    Make it with :meth:`from_estimator`; all parameters are stored as attributes.

    Parameters
    ----------
    to_y, to_x : CrossPrediction
        Prediction of y from X, and of X from y: arrays (n_records, n_steps, n_variables).
    records : sequence of str
        Names of the records.
    coverage : float, default=None
        Probability of the bands.
    names : (str, str), default=("X", "y")
        What X and y are called.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : list of matplotlib Axes
        Two for each row, left and right; ``ax_`` is the first. Where one side has fewer variables
        than the other, its spare axes are empty.

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.plotting import CrossPrediction, CrossReconstructionDisplay
    >>> truth, predicted = np.zeros((2, 5, 1)), np.ones((2, 5, 1))
    >>> side = CrossPrediction(np.arange(5), truth, predicted)
    >>> CrossReconstructionDisplay(to_y=side, to_x=side, records=["a", "b"]).n_rows
    2
    """

    figure_: Figure
    ax_: Axes
    axes_: list[Axes]

    def __init__(
        self,
        *,
        to_y: CrossPrediction,
        to_x: CrossPrediction,
        records: Sequence[str],
        coverage: float | None = None,
        names: tuple[str, str] = ("X", "y"),
    ) -> None:
        for side, name in ((to_y, "to_y"), (to_x, "to_x")):
            _check_side(side, len(records), name)
        self.to_y = to_y
        self.to_x = to_x
        self.records = list(records)
        self.coverage = coverage
        self.names = check_names(names)

    @property
    def n_rows(self) -> int:
        """Rows of axes: records times variables of the side that has more of them."""
        return len(self.records) * self._rows_per_record

    @property
    def _rows_per_record(self) -> int:
        return max(len(self.to_y.variables), len(self.to_x.variables))

    @classmethod
    def from_estimator(
        cls,
        linker: Any,
        X: Any,
        y: Any,
        *,
        records: Any = None,
        max_records: int = 3,
        coverage: float = 0.9,
        variables: Sequence[Any] | None = None,
        y_variables: Sequence[Any] | None = None,
        max_variables: int = 2,
        names: tuple[str, str] = ("X", "y"),
        ax: Any = None,
        **plot_params: Any,
    ) -> CrossReconstructionDisplay:
        """Predict each side from the other with a fitted linker and draw the result.

        Parameters
        ----------
        linker : PairVAELinker
            Fitted; any object with `predict`, `predict_inverse`, `predict_interval` and
            `predict_interval_inverse`. Its parameter ``log_scale`` decides on logarithmic axes.
        X, y : container
            Records, paired by position. A row of NaN was not measured: nothing is predicted from
            it, and its prediction has no truth beside it.
        records : label or list of labels, default=None
            Which records; positions where X has no labels. None takes the first `max_records`
            that are measured on both sides.
        max_records : int, default=3
            Records at most, if `records` is None.
        coverage : float, default=0.9
            Probability of the bands.
        variables, y_variables : sequence of labels, default=None
            Variables of X and of y to draw; None takes the first `max_variables`.
        max_variables : int, default=2
            Variables at most of each side, where they are not chosen.
        names : (str, str), default=("X", "y")
            What X and y are called.
        ax : Axes or sequence of Axes, default=None
            Where to draw: two axes for each row, row by row, or one that is divided. None makes a
            figure.
        **plot_params
            Passed on to :meth:`plot`.

        Returns
        -------
        CrossReconstructionDisplay

        Raises
        ------
        TypeError
            If the estimator is no linker.
        ValueError
            If X and y are not the same records, or `coverage` is not strictly between 0 and 1.
        KeyError
            If there is no such record or variable.
        """
        require_matplotlib("CrossReconstructionDisplay")
        require_linker(linker, _METHODS, "CrossReconstructionDisplay")
        level = float(check_levels(coverage, "coverage"))
        check_names(names)
        sides = read_sides(linker, X, y)
        places = _choose(sides, records, max_records)
        wanted_y = select_variables(sides.y.names, y_variables, max_variables)
        wanted_x = select_variables(sides.x.names, variables, max_variables)
        log_x, log_y = _log_scales(linker)
        there = (linker.predict, linker.predict_interval)
        back = (linker.predict_inverse, linker.predict_interval_inverse)
        ahead = predict_band(linker, there, X, sides.x_seen, places, level)
        behind = predict_band(linker, back, y, sides.y_seen, places, level)
        display = cls(
            to_y=lay_beside(ahead, sides.y, places, wanted_y, "y", log_y),
            to_x=lay_beside(behind, sides.x, places, wanted_x, "X", log_x),
            records=[_title(sides.x.keys[place]) for place in places],
            coverage=level,
            names=names,
        )
        return display.plot(ax=ax, **plot_params)

    def plot(self, ax: Any = None, *, color: str = BLUE) -> Any:
        """Draw the display.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw: two axes for each row, row by row, or one that is divided. None makes a
            figure.
        color : str, default="#0072B2"
            Colour of the bands.

        Returns
        -------
        CrossReconstructionDisplay
            Itself.
        """
        require_matplotlib("CrossReconstructionDisplay")
        self.figure_, self.axes_ = make_grid(
            ax, 2 * self.n_rows, 2, panel=(4.6, 2.0 if self.n_rows > 1 else 2.6)
        )
        self.ax_ = self.axes_[0]
        for column, side in enumerate((self.to_y, self.to_x)):
            self._plot_column(column, side, color)
        self.figure_.align_ylabels(self.axes_[0::2])
        self.figure_.align_ylabels(self.axes_[1::2])
        legend_above(self.ax_)
        for panel, (of, given) in zip(self.axes_, (self.names[::-1], self.names), strict=False):
            # Both titles stand clear of the legend, which the left panel alone has.
            panel.set_title(f"{of} from {given}", loc="left", fontsize=11, color=INK, pad=24)
        return self

    def _plot_column(self, column: int, side: CrossPrediction, color: str) -> None:
        n_variables = len(side.variables)
        lowest = None
        for row in range(self.n_rows):
            record, k = divmod(row, self._rows_per_record)
            panel = self.axes_[2 * row + column]
            if k >= n_variables:
                panel.set_axis_off()
                continue
            plot_panel(panel, side, record, k, self._band_label(side), color)
            self._explain_absence(panel, side, column, record, k)
            label = short(side.variables[k])
            if column == 0 and k == 0:
                label = "\n".join(part for part in (short(self.records[record]), label) if part)
            panel.set_ylabel(label, color=INK, fontsize=10)
            panel.tick_params(labelbottom=False)
            lowest = panel
        if lowest is not None:
            lowest.tick_params(labelbottom=True)
            counted = side.tick_texts is None and len(side.axis) > 1
            if counted and not np.issubdtype(side.axis.dtype, np.datetime64):
                lowest.set_xlabel(side.axis_name, color=INK, fontsize=10)

    def _band_label(self, side: CrossPrediction) -> str | None:
        if side.lower is None or side.upper is None:
            return None
        return "band" if self.coverage is None else f"{self.coverage * 100:g} % band"

    def _explain_absence(
        self, panel: Axes, side: CrossPrediction, column: int, record: int, k: int
    ) -> None:
        given = self.names[column]
        texts = []
        if np.isnan(side.truth[record, :, k]).all():
            texts.append("not measured")
        if np.isnan(side.predicted[record, :, k]).all():
            texts.append(f"no {given} to predict from")
        style: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": 8, "color": "#777777"}
        panel.text(0.99, 0.98, ", ".join(texts), transform=panel.transAxes, **style)


def _choose(sides: Sides, records: Any, max_records: int) -> NDArray[np.intp]:
    """Positions of the records to draw, paired ones first."""
    if records is None:
        choose_records(sides.x.keys, None, max_records, "records")
        order = np.argsort(~sides.paired, kind="stable")
        return np.sort(order[:max_records])
    if not isinstance(records, list | tuple | str) and np.ndim(records) == 1:
        records = np.asarray(records).tolist()
    if isinstance(records, list) and not records:
        raise ValueError(
            "records must name one record or more; got an empty list. None takes the first ones."
        )
    return np.array(choose_records(sides.x.keys, records, max_records, "records"), dtype=np.intp)


def _log_scales(linker: Any) -> tuple[bool, bool]:
    """Whether X and y are modelled on a logarithmic scale, as the linker's parameter says."""
    found = getattr(linker, "log_scale", False)
    pair = tuple(found) if isinstance(found, list | tuple) and len(found) == 2 else (found, found)
    return pair[0] is True, pair[1] is True


def _title(key: Any) -> str:
    if isinstance(key, int):
        return f"record {key}"
    return ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _check_side(side: CrossPrediction, n_records: int, name: str) -> None:
    shape = (n_records, len(side.axis), len(side.variables))
    for field in ("truth", "predicted", "lower", "upper"):
        values = getattr(side, field)
        if values is not None and np.shape(values) != shape:
            raise ValueError(
                f"{name}.{field} must have shape {shape} (records, steps, variables); got "
                f"{np.shape(values)}."
            )
