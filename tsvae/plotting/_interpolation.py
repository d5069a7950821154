"""Records on the way from one to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsvae.plotting._signals import fitted_names, read_signals
from tsvae.plotting._style import (
    INK,
    dress,
    gradient,
    hide_inner_labels,
    make_canvas,
    require_matplotlib,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float = NDArray[np.float64]


class InterpolationDisplay:
    """Records along a path between two, below each other, one panel for each variable.

    Make it with :meth:`from_estimator`; all parameters are stored as attributes.

    Parameters
    ----------
    axis : ndarray of shape (n_steps,)
        Positions of the steps.
    records : ndarray of shape (n_records, n_steps, n_variables)
        Decoded codes, evenly spaced on the path.
    names : list of str
        Names of the variables.
    axis_name : str, default="step"
        Of the x axis.

    Attributes
    ----------
    weights : ndarray of shape (n_records,)
        Place of each record on the path, from 0 to 1.
    figure_ : matplotlib Figure
    axes_ : list of matplotlib Axes
        One for each variable; ``ax_`` is the first.

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.plotting import InterpolationDisplay
    >>> way = np.linspace(0, 1, 5)[:, None, None] * np.ones((1, 20, 1))
    >>> InterpolationDisplay(axis=np.arange(20), records=way, names=["x"]).weights
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """

    figure_: Figure
    ax_: Axes
    axes_: list[Axes]

    def __init__(
        self,
        *,
        axis: NDArray[Any],
        records: Float,
        names: list[str],
        axis_name: str = "step",
    ) -> None:
        if np.ndim(records) != 3:
            raise ValueError(
                "records must have shape (n_records, n_steps, n_variables); got "
                f"{np.shape(records)}."
            )
        self.axis = axis
        self.records = np.asarray(records, dtype=float)
        self.names = names
        self.axis_name = axis_name
        self.weights = np.linspace(0.0, 1.0, len(self.records))

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        a: Any,
        b: Any,
        *,
        n_records: int = 8,
        spherical: bool = False,
        condition: Any = None,
        ax: Any = None,
        **plot_params: Any,
    ) -> InterpolationDisplay:
        """Draw the way from record `a` to record `b` through the codes of a fitted denoiser.

        Parameters
        ----------
        estimator : object
            A fitted estimator with `interpolate`.
        a, b : one record each
            As `interpolate` takes them: a table of one row, a row, or an array.
        n_records : int, default=8
            The first is the reconstruction of `a`, the last that of `b`.
        spherical : bool, default=False
            Along a great circle instead of a line.
        condition : optional
            One row, for a denoiser with conditions.
        ax : Axes or sequence of Axes, default=None
            Where to draw: one axes for each variable, or one that is divided. None makes a figure.
        **plot_params
            Passed on to :meth:`plot`.

        Returns
        -------
        InterpolationDisplay
        """
        require_matplotlib("InterpolationDisplay")
        given = {} if condition is None else {"condition": condition}
        found = estimator.interpolate(a, b, n_records, spherical=spherical, **given)
        signals = read_signals(found, None)
        display = cls(
            axis=signals.axis,
            records=signals.values,
            names=fitted_names(estimator, signals.names),
            axis_name=signals.axis_name,
        )
        return display.plot(ax=ax, **plot_params)

    def plot(self, ax: Any = None, *, offset: float | None = None) -> Any:
        """Draw the display.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw: one axes for each variable, or one that is divided. None makes a figure.
        offset : float, default=None
            Distance between records; 0 draws them on top of each other, None chooses by their
            amplitude.

        Returns
        -------
        InterpolationDisplay
            Itself.
        """
        require_matplotlib("InterpolationDisplay")
        n_records = len(self.records)
        height = min(1.2 + 0.4 * n_records, 5.0)
        self.figure_, self.axes_ = make_canvas(ax, len(self.names), height=height)
        self.ax_ = self.axes_[0]
        for k, panel in enumerate(self.axes_):
            self._plot_variable(panel, k, offset)
        hide_inner_labels(self.axes_)
        self.axes_[-1].set_xlabel(self.axis_name, color=INK, fontsize=10)
        self.ax_.set_title("From the first record to the last", loc="left", fontsize=10, color=INK)
        return self

    def _plot_variable(self, ax: Axes, k: int, offset: float | None) -> None:
        values = self.records[:, :, k]
        if offset is None:
            centred = values - np.nanmean(values, axis=1, keepdims=True)
            reach = np.nanmax(np.abs(centred), initial=0.0)
            offset = 0.9 * float(reach) or 1.0
        shifts = -offset * np.arange(len(values))
        colors = gradient(self.weights)
        for record, shift, color in zip(values, shifts, colors, strict=True):
            ax.plot(self.axis, record + shift, color=color, linewidth=1.4)
        dress(ax)
        ax.margins(x=0.01)
        name = short(self.names[k])
        if offset:
            levels = np.nanmean(values, axis=1) + shifts
            ax.set_yticks(levels, [f"{weight:.2g}" for weight in self.weights])
            label = "place on the path"
            ax.set_ylabel(f"{name}: {label}" if name else label, color=INK, fontsize=10)
            ax.grid(False, axis="y")
        else:
            ax.set_ylabel(name, color=INK, fontsize=10)
