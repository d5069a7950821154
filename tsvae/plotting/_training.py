"""How training went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsvae.plotting._style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    dress,
    hide_inner_labels,
    legend_above,
    make_canvas,
    require_matplotlib,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Drawn below the objective where the log has them: column, label, colour, whether from 0.
_PANELS = (
    ("distortion", "distortion, nats", ORANGE, False),
    ("rate", "rate, nats", SKY, True),
    ("active_units", "active units", INK, True),
    ("perplexity", "perplexity", SKY, True),
    ("learning_rate", "learning rate", GREEN, True),
    ("beta", "beta", PURPLE, True),
)
_MANY_PANELS = 4  # more are drawn lower


class TrainingDisplay:
    """Objective, validation criterion, schedules and health over epochs.

    Below the objective there is a panel for each of these that the log has: distortion and rate
    (reconstruction error and information in the codes of an autoencoder, in nats per record),
    active units, perplexity of discrete codes, learning rate, beta.

    Make it with :meth:`from_estimator`.

    Parameters
    ----------
    log : mapping of str to array-like
        Columns of a training log, with ``objective`` and where known ``epoch``, ``validation``,
        ``distortion``, ``rate``, ``active_units``, ``perplexity``, ``learning_rate`` and ``beta``.
        What was not measured is None or NaN.
    best_epoch : int, default=None
        Epoch whose state was kept; marked.

    Attributes
    ----------
    log : dict of str to ndarray
        The columns as numbers.
    figure_ : matplotlib Figure
    axes_ : list of matplotlib Axes
        Of the objective (``ax_``), then of the further columns there are.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from tsvae.plotting import TrainingDisplay
    >>> display = TrainingDisplay({"objective": [3.0, 2.0, 1.5]}).plot()
    >>> len(display.axes_)
    1
    """

    figure_: Figure
    ax_: Axes
    axes_: list[Axes]

    def __init__(self, log: Mapping[str, Any], best_epoch: int | None = None) -> None:
        if "objective" not in log:
            raise ValueError(f"The log needs a column 'objective'; it has {list(log)}.")
        self.log = {str(name): _numbers(log[name]) for name in log}
        self.best_epoch = best_epoch

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> TrainingDisplay:
        """Draw the training log of a fitted estimator.

        Parameters
        ----------
        estimator : object
            A fitted estimator, with `training_log_`.
        ax : Axes or sequence of Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        TrainingDisplay

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator has not been fitted.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(estimator, "training_log_")
        log = estimator.training_log_
        if not isinstance(log, Mapping):
            log = {name: log.to_frame()[name] for name in log.to_frame().columns}
        best = getattr(estimator.training_log_, "best_epoch", None)
        return cls(log, best_epoch=best).plot(ax=ax)

    def plot(self, ax: Any = None) -> Any:
        """Draw the display.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw: one axes for the objective and one for each further panel, or one that
            is divided. None makes a figure.

        Returns
        -------
        TrainingDisplay
            Itself.
        """
        require_matplotlib("TrainingDisplay")
        from matplotlib.ticker import MaxNLocator

        panels = [entry for entry in _PANELS if self._has(entry[0])]
        height = 1.9 if len(panels) < _MANY_PANELS else 1.45
        self.figure_, self.axes_ = make_canvas(ax, 1 + len(panels), height=height)
        self.ax_ = self.axes_[0]
        epochs = self.log["epoch"] if self._has("epoch") else np.arange(len(self.log["objective"]))
        self._plot_objective(epochs)
        for panel, (column, label, color, from_zero) in zip(self.axes_[1:], panels, strict=True):
            panel.plot(epochs, self.log[column], color=color, linewidth=1.5)
            panel.set_ylabel(label, color=INK, fontsize=10)
            if from_zero:
                panel.set_ylim(bottom=0)
        for panel in self.axes_:
            dress(panel)
            panel.margins(x=0.02)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        hide_inner_labels(self.axes_)
        self.axes_[-1].set_xlabel("epoch", color=INK, fontsize=10)
        legend_above(self.ax_)
        return self

    def _plot_objective(self, epochs: NDArray[Any]) -> None:
        ax = self.ax_
        for column, color in (("objective", BLUE), ("validation", VERMILLION)):
            if not self._has(column):
                continue
            seen = ~np.isnan(self.log[column])  # validation may skip epochs: join what there is
            ax.plot(
                epochs[seen],
                self.log[column][seen],
                color=color,
                linewidth=1.5,
                marker="." if seen.sum() < 40 else "",
                label=column,
            )
        if self.best_epoch is not None:
            style: dict[str, Any] = {"color": INK, "linewidth": 1.0, "linestyle": ":"}
            ax.axvline(self.best_epoch, label=f"best epoch ({self.best_epoch})", **style)
        ax.set_ylabel("objective", color=INK, fontsize=10)

    def _has(self, column: str) -> bool:
        return column in self.log and bool(np.isfinite(self.log[column]).any())


def _numbers(values: Any) -> NDArray[np.float64]:
    """Column of a log as floats; None becomes NaN."""
    return np.array([np.nan if value is None else float(value) for value in values])
