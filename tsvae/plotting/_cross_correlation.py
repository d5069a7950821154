"""How much the codes of both sides of a linker agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsvae.plotting._linkers import check_names, read_sides, require_linker
from tsvae.plotting._style import INK, make_canvas, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float = NDArray[np.float64]

_MOST_NUMBERS = 10
_MOST_TICKS = 16


class CrossCorrelationDisplay:
    """Cross-correlation of the posterior means of both sides, over paired records.

    Codes that both sides share have a diagonal of 1; codes that each say something of their own
    have zeros beside it. Active units are framed on the diagonal.

    Make it with :meth:`from_estimator`; all parameters are stored as attributes.

    Parameters
    ----------
    correlation : ndarray of shape (n_latent, n_latent)
        Row i, column j: correlation of X's code i with y's code j. NaN where a code is constant.
    active : ndarray of bool of shape (n_latent,), default=None
        Which units are in use; None takes all.
    names : (str, str), default=("X", "y")
        What X and y are called.

    Attributes
    ----------
    diagonal_mean : float
        Mean of the diagonal over active units; NaN if there are none.
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    colorbar_ : matplotlib Colorbar

    Examples
    --------
    >>> from tsvae.plotting import CrossCorrelationDisplay
    >>> matrix = [[0.9, 0.1], [0.0, 0.2]]
    >>> CrossCorrelationDisplay(correlation=matrix, active=[True, False]).diagonal_mean
    0.9
    """

    figure_: Figure
    ax_: Axes
    axes_: list[Axes]
    colorbar_: Any

    def __init__(
        self, *, correlation: Any, active: Any = None, names: tuple[str, str] = ("X", "y")
    ) -> None:
        found = np.asarray(correlation, dtype=float)
        if found.ndim != 2 or found.shape[0] != found.shape[1] or not found.size:
            raise ValueError(
                f"correlation must have shape (n_latent, n_latent); got {found.shape}."
            )
        units = np.ones(len(found), dtype=bool) if active is None else np.asarray(active)
        if units.shape != (len(found),) or units.dtype != bool:
            raise ValueError(
                f"active must hold one bool for each of the {len(found)} units; got shape "
                f"{units.shape} of {units.dtype}."
            )
        self.correlation = found
        self.active = units
        self.names = check_names(names)
        diagonal = np.diagonal(found)[units]
        known = diagonal[np.isfinite(diagonal)]
        self.diagonal_mean = float(known.mean()) if len(known) else float("nan")

    @classmethod
    def from_estimator(
        cls,
        linker: Any,
        X: Any,
        y: Any,
        *,
        names: tuple[str, str] = ("X", "y"),
        ax: Any = None,
        **plot_params: Any,
    ) -> CrossCorrelationDisplay:
        """Draw the cross-correlation of the codes that a fitted linker gives to X and y.

        Parameters
        ----------
        linker : PairVAELinker
            Fitted; any object with `cross_correlation` and `active_units_`.
        X, y : container
            Records measured on both sides, two or more; held-out ones say more than those of the
            fit. Rows of NaN (unpaired records) are left out.
        names : (str, str), default=("X", "y")
            What X and y are called.
        ax : Axes, default=None
            Where to draw; None makes a figure.
        **plot_params
            Passed on to :meth:`plot`.

        Returns
        -------
        CrossCorrelationDisplay

        Raises
        ------
        TypeError
            If the estimator is no linker.
        ValueError
            If X and y are not the same records, or fewer than two are paired.
        """
        require_matplotlib("CrossCorrelationDisplay")
        require_linker(linker, ["cross_correlation"], "CrossCorrelationDisplay")
        check_names(names)
        n_pairs = int(read_sides(linker, X, y).paired.sum())
        if n_pairs < 2:
            raise ValueError(
                f"A correlation needs two records or more that were measured in X and in y; got "
                f"{n_pairs}. Give more, rows that are not NaN on both sides."
            )
        matrix = linker.cross_correlation(X, y)
        active = np.asarray(linker.active_units_, dtype=bool)
        display = cls(correlation=matrix, active=active, names=names)
        return display.plot(ax=ax, **plot_params)

    def plot(self, ax: Any = None, *, cmap: str = "RdBu_r") -> Any:
        """Draw the display.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; None makes a figure.
        cmap : str, default="RdBu_r"
            Colours from -1 to 1.

        Returns
        -------
        CrossCorrelationDisplay
            Itself.
        """
        require_matplotlib("CrossCorrelationDisplay")
        if ax is None:
            import matplotlib.pyplot as plt

            self.figure_, ax = plt.subplots(figsize=(6.6, 5.6), layout="constrained")
        self.figure_, self.axes_ = make_canvas(ax, 1, height=5.0)
        self.ax_ = self.axes_[0]
        limits: dict[str, Any] = {"vmin": -1.0, "vmax": 1.0}
        image = self.ax_.imshow(self.correlation, cmap=cmap, aspect="auto", **limits)
        self.ax_.set_facecolor("#E6E6E6")  # shows through where a code is constant
        self.colorbar_ = self.figure_.colorbar(image, ax=self.ax_, pad=0.02)
        self.colorbar_.set_label("correlation", color=INK, fontsize=10)
        self.colorbar_.outline.set_visible(False)
        self.colorbar_.ax.tick_params(colors=INK, labelsize=9)
        self._frame_active_units()
        if len(self.correlation) <= _MOST_NUMBERS:
            self._write_numbers()
        self._label_axes()
        return self

    def _frame_active_units(self) -> None:
        from matplotlib.patches import Rectangle

        for k in np.flatnonzero(self.active):
            corner = (k - 0.5, k - 0.5)
            frame = Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=1.6, zorder=3)
            self.ax_.add_patch(frame)

    def _write_numbers(self) -> None:
        for (i, j), value in np.ndenumerate(self.correlation):
            number = f"{round(float(value), 2) + 0.0:.2f}".replace("-", "−")  # no −0.00
            text = "–" if np.isnan(value) else number
            color = "white" if abs(value) > 0.65 else INK
            self.ax_.text(j, i, text, ha="center", va="center", fontsize=8, color=color)

    def _label_axes(self) -> None:
        n_latent = len(self.correlation)
        ticks = np.arange(0, n_latent, -(-n_latent // _MOST_TICKS))
        for axis in (self.ax_.xaxis, self.ax_.yaxis):
            axis.set_ticks(ticks, [f"z{k}" for k in ticks])
            for k, label in zip(ticks, axis.get_ticklabels(), strict=True):
                label.set_fontweight("bold" if self.active[k] else "normal")
                label.set_color(INK if self.active[k] else "#999999")
        self.ax_.tick_params(length=0, labelsize=9)
        self.ax_.spines[:].set_visible(False)
        self.ax_.set_ylabel(f"code of {self.names[0]}", color=INK, fontsize=10)
        self.ax_.set_xlabel(f"code of {self.names[1]}", color=INK, fontsize=10)
        n_active = int(self.active.sum())
        units = f"{n_active} active unit{'s' if n_active != 1 else ''} (framed)"
        title = f"mean of the diagonal over {units}: {self.diagonal_mean:.2f}"
        title = title if n_active else "no active unit"
        self.ax_.set_title(title, loc="left", fontsize=10, color=INK)
