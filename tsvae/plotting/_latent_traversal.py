"""What each entry of the code does to the record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tsvae.plotting._latents import informative_entries, kl_of, read_codes
from tsvae.plotting._signals import fitted_names, read_signals
from tsvae.plotting._style import (
    INK,
    dress,
    gradient,
    hide_inner_labels,
    make_canvas,
    require_matplotlib,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float = NDArray[np.float64]


class LatentTraversalDisplay:
    """Records decoded while one latent entry moves and the others stay, one row for each entry.

    Make it with :meth:`from_estimator`; all parameters are stored as attributes.

    Parameters
    ----------
    axis : ndarray of shape (n_steps,)
        Positions of the steps.
    records : ndarray of shape (n_entries, n_values, n_steps, n_variables)
        Decoded codes.
    entries : ndarray of shape (n_entries,)
        Which latent entry moves in each row.
    values : ndarray of shape (n_entries, n_values)
        What it is set to.
    kl : ndarray of shape (n_entries,), default=None
        Nats that the entry carries, for the labels.
    names : list of str, default=None
        Names of the variables.
    axis_name : str, default="step"
        Of the x axis.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : list of matplotlib Axes
        One for each entry and variable, entries in the outer order; ``ax_`` is the first.
    """

    figure_: Figure
    ax_: Axes
    axes_: list[Axes]

    def __init__(
        self,
        *,
        axis: NDArray[Any],
        records: Float,
        entries: NDArray[np.intp],
        values: Float,
        kl: Float | None = None,
        names: list[str] | None = None,
        axis_name: str = "step",
    ) -> None:
        if np.ndim(records) != 4 or np.shape(records)[:2] != np.shape(values):
            raise ValueError(
                "records must have shape (n_entries, n_values, n_steps, n_variables), values "
                f"(n_entries, n_values); got {np.shape(records)} and {np.shape(values)}."
            )
        self.axis = axis
        self.records = np.asarray(records, dtype=float)
        self.entries = np.asarray(entries)
        self.values = np.asarray(values, dtype=float)
        self.kl = kl
        self.names = [""] * self.records.shape[3] if names is None else names
        self.axis_name = axis_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        entries: Sequence[int] | None = None,
        n_entries: int = 5,
        limits: tuple[float, float] = (-3.0, 3.0),
        unit: Literal["auto", "prior", "codes"] = "auto",
        n_values: int = 7,
        variables: Sequence[str] | None = None,
        condition: Any = None,
        ax: Any = None,
        **plot_params: Any,
    ) -> LatentTraversalDisplay:
        """Move entries of the code of X and draw what a fitted denoiser decodes.

        Parameters
        ----------
        estimator : object
            A fitted estimator with `encode` and `decode`.
        X : container
            One record, whose code the entries that do not move keep; of several, the mean of their
            codes.
        entries : sequence of int, default=None
            Latent entries to move. None takes those with the most KL; where the model has none
            ("ae", "vq") those that vary most over X.
        n_entries : int, default=5
            At most, if `entries` is None.
        limits : (float, float), default=(-3.0, 3.0)
            First and last value of an entry, in standard deviations.
        unit : {"auto", "prior", "codes"}, default="auto"
            Of the limits: those of the prior around 0, or those of the codes of X, several records
            then, around their mean, which is where records are if they do not fill the prior.
            auto: the prior, or the codes where the model has none ("ae", "vq").
        n_values : int, default=7
            Values of each entry.
        variables : sequence of str, default=None
            Variables to draw; None takes all.
        condition : optional
            One row for each record, for a denoiser with conditions; decoded under the first.
        ax : Axes or sequence of Axes, default=None
            Where to draw: one axes for each entry and variable, or one that is divided. None makes
            a figure.
        **plot_params
            Passed on to :meth:`plot`.

        Returns
        -------
        LatentTraversalDisplay

        Raises
        ------
        ValueError
            If there is no such entry, or `limits` or `n_values` are of no use.
        KeyError
            If there is no such variable.
        """
        require_matplotlib("LatentTraversalDisplay")
        steps = _check_steps(limits, n_values)
        if unit not in ("auto", "prior", "codes"):
            raise ValueError(f"unit must be 'auto', 'prior' or 'codes'; got {unit!r}.")
        codes = read_codes(estimator, X, condition)
        chosen = informative_entries(estimator, codes, entries, n_entries)
        kl = kl_of(estimator)
        base = codes.mean(axis=0)
        centre, size = np.zeros_like(base), np.ones_like(base)
        if unit == "codes" or (unit == "auto" and kl is None):
            centre, size = base, _spread(codes, chosen)
        values = centre[chosen, None] + size[chosen, None] * steps
        moved = np.tile(base, (len(chosen), n_values, 1))
        moved[np.arange(len(chosen)), :, chosen] = values
        flat = moved.reshape(-1, len(base))
        given = {} if condition is None else {"condition": _first(condition, len(flat))}
        signals = read_signals(estimator.decode(flat, **given), None)
        names = fitted_names(estimator, signals.names)
        kept = _positions(names, variables)
        shape = (len(chosen), n_values, *signals.values.shape[1:])
        display = cls(
            axis=signals.axis,
            records=signals.values.reshape(shape)[..., kept],
            entries=chosen,
            values=values,
            kl=None if kl is None else kl[chosen],
            names=[names[k] for k in kept],
            axis_name=signals.axis_name,
        )
        return display.plot(ax=ax, **plot_params)

    def plot(self, ax: Any = None) -> Any:
        """Draw the display.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw: one axes for each entry and variable, or one that is divided. None makes
            a figure.

        Returns
        -------
        LatentTraversalDisplay
            Itself.
        """
        require_matplotlib("LatentTraversalDisplay")
        n_entries, n_values = self.values.shape
        rows = [(row, k) for row in range(n_entries) for k in range(len(self.names))]
        self.figure_, self.axes_ = make_canvas(ax, len(rows), height=1.5)
        self.ax_ = self.axes_[0]
        places = np.linspace(0, 1, n_values) if n_values > 1 else np.zeros(1)
        colors = gradient(places)
        for panel, (row, k) in zip(self.axes_, rows, strict=True):
            for record, color in zip(self.records[row, :, :, k], colors, strict=True):
                panel.plot(self.axis, record, color=color, linewidth=1.2)
            label = f"z{self.entries[row]}"
            if self.kl is not None:
                label += f"\n{self.kl[row]:.2f} nats"
            if self.names[k]:
                label += f"\n{self.names[k]}"
            panel.set_ylabel(label, color=INK, fontsize=9)
            dress(panel)
            panel.margins(x=0.01)
        hide_inner_labels(self.axes_)
        self.axes_[-1].set_xlabel(self.axis_name, color=INK, fontsize=10)
        self._plot_key(colors)
        return self

    def _plot_key(self, colors: list[Any]) -> None:
        """Say which colour is which value, once if all rows share the values."""
        from matplotlib.lines import Line2D

        shared = bool(np.allclose(self.values, self.values[0]))
        names = [f"{value:.2g}" for value in self.values[0]]
        if not shared:
            names = ["lowest value", *[""] * (len(colors) - 2), "highest value"]
        handles = [Line2D([], [], color=color, linewidth=2.0) for color in colors]
        self.ax_.legend(
            handles,
            names,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.01),
            ncols=len(names),
            frameon=False,
            fontsize=9,
            borderaxespad=0.0,
            handlelength=1.2,
            columnspacing=1.2,
        )


def _check_steps(limits: tuple[float, float], n_values: int) -> Float:
    ends = np.asarray(limits, dtype=float)
    if ends.shape != (2,) or not np.isfinite(ends).all() or not ends[0] < ends[1]:
        raise ValueError(f"limits must be two finite numbers (low, high); got {limits!r}.")
    if n_values < 2:
        raise ValueError(f"n_values must be at least 2; got {n_values}.")
    return np.linspace(ends[0], ends[1], n_values)


def _spread(codes: Float, chosen: NDArray[np.intp]) -> Float:
    spread: Float = codes.std(axis=0)
    if not (spread[chosen] > 0).all():
        raise ValueError(
            "Entries move by the standard deviation of the codes of X, which is 0: give several "
            "different records (or unit='prior')."
        )
    return spread


def _first(condition: Any, n: int) -> Any:
    """First row of the conditions, n times."""
    if hasattr(condition, "iloc"):
        return condition.iloc[[0] * n]
    return np.repeat(np.asarray(condition)[:1], n, axis=0)


def _positions(names: Sequence[str], variables: Sequence[str] | None) -> list[int]:
    if variables is None:
        return list(range(len(names)))
    unknown = [name for name in variables if name not in names]
    if unknown:
        raise KeyError(f"variables={unknown[0]!r} is not one of {list(names)}.")
    return [list(names).index(name) for name in variables]
