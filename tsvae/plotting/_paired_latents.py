"""Codes of both sides of a linker in one plane, pairs joined by lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.plotting._labels import (
    LabelKind,
    has_label,
    known_labels,
    missing_labels,
    read_labels,
    resolve_kind,
    write_label,
)
from tsvae.plotting._latents import check_plane, principal_plane
from tsvae.plotting._linkers import Sides, check_names, read_sides, require_linker
from tsvae.plotting._style import (
    BLUE,
    INK,
    VERMILLION,
    category_colors,
    dress,
    legend_above,
    make_canvas,
    require_matplotlib,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float = NDArray[np.float64]

_MARKERS = ("o", "^")
_GREY = "#BBBBBB"
_LINE = "#8A8A8A"
_MOST_OBLONG = 3.0


class Clouds(NamedTuple):
    """Places of the codes of both sides in one plane."""

    x: Float  # (N, 2), NaN where X was not measured
    y: Float  # (N, 2)
    axis_names: list[str]


class PairedLatentDisplay:
    """Codes of X and codes of y in one plane, those of a record joined by a line.

    Short lines: both sides give a record the same code, so each can be predicted from the other.

    Make it with :meth:`from_estimator`; all parameters are stored as attributes.

    Parameters
    ----------
    x_coordinates, y_coordinates : ndarray of shape (n_records, 2)
        Codes of both sides; NaN where a record was not measured.
    axis_names : sequence of two str
    labels : array-like of shape (n_records,), default=None
        What the colours mean. Missing ones (NaN, None) are grey. Without labels the colours tell
        the two sides apart.
    label_name : str, default="label"
    kind : {"auto", "categorical", "continuous"}, default="auto"
        auto: numbers are continuous, except for at most ten different whole numbers.
    max_pairs : int, default=200
        Lines at most, spread evenly over the pairs; all points are drawn.
    names : (str, str), default=("X", "y")
        What X and y are called.

    Attributes
    ----------
    pairs : ndarray of int
        Positions of the records that are joined by a line.
    n_pairs : int
        Number of records that have codes on both sides.
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    colorbar_ : matplotlib Colorbar or None
        Of continuous labels.

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.plotting import PairedLatentDisplay
    >>> codes = np.eye(4)[:, :2]
    >>> display = PairedLatentDisplay(
    ...     x_coordinates=codes, y_coordinates=codes + 0.1, axis_names=["z0", "z1"], max_pairs=2
    ... )
    >>> display.pairs, display.n_pairs
    (array([0, 3]), 4)
    """

    figure_: Figure
    ax_: Axes
    axes_: list[Axes]
    colorbar_: Any

    def __init__(
        self,
        *,
        x_coordinates: Float,
        y_coordinates: Float,
        axis_names: Sequence[str],
        labels: Any = None,
        label_name: str = "label",
        kind: LabelKind = "auto",
        max_pairs: int = 200,
        names: tuple[str, str] = ("X", "y"),
    ) -> None:
        x, y = np.asarray(x_coordinates, dtype=float), np.asarray(y_coordinates, dtype=float)
        if x.ndim != 2 or x.shape[1] != 2 or x.shape != y.shape:
            raise ValueError(
                "x_coordinates and y_coordinates must both have shape (n_records, 2); got "
                f"{x.shape} and {y.shape}."
            )
        self.x_coordinates = x
        self.y_coordinates = y
        self.axis_names = list(axis_names)
        self.labels = None if labels is None else read_labels(labels, len(x))
        self.label_name = label_name
        self.kind = resolve_kind(kind, self.labels)
        self.max_pairs = _check_count(max_pairs)
        self.names = check_names(names)
        joined = np.flatnonzero(np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1))
        self.n_pairs = len(joined)
        n_lines = min(self.max_pairs, len(joined))
        spread = np.linspace(0, len(joined) - 1, n_lines) if n_lines else np.empty(0)
        self.pairs = joined[spread.round().astype(int)]

    @classmethod
    def from_estimator(
        cls,
        linker: Any,
        X: Any,
        y: Any,
        *,
        dims: tuple[int, int] | None = None,
        labels: Any = None,
        max_pairs: int = 200,
        kind: LabelKind = "auto",
        label_name: str | None = None,
        names: tuple[str, str] = ("X", "y"),
        ax: Any = None,
        **plot_params: Any,
    ) -> PairedLatentDisplay:
        """Draw the codes that a fitted linker gives to X and to y.

        Parameters
        ----------
        linker : PairVAELinker
            Fitted; any object with `transform(X, y)`.
        X, y : container
            Records, paired by position. A row of NaN (an unpaired record) has no code on its side.
        dims : (int, int), default=None
            Latent entries to draw. None takes the two there are, or the first two principal
            components of both clouds together if there are more.
        labels : array-like of shape (n_records,), default=None
            What the colours mean. None: the sides have colours.
        max_pairs : int, default=200
            Lines at most, spread evenly over the pairs; all points are drawn.
        kind : {"auto", "categorical", "continuous"}, default="auto"
            Of the labels.
        label_name : str, default=None
            None takes the name of a Series.
        names : (str, str), default=("X", "y")
            What X and y are called.
        ax : Axes, default=None
            Where to draw; None makes a figure.
        **plot_params
            Passed on to :meth:`plot`.

        Returns
        -------
        PairedLatentDisplay

        Raises
        ------
        TypeError
            If the estimator is no linker.
        ValueError
            If X and y are not the same records, codes have one entry only, or `dims`, `labels` or
            `max_pairs` do not fit.
        """
        require_matplotlib("PairedLatentDisplay")
        require_linker(linker, ["transform"], "PairedLatentDisplay")
        _check_count(max_pairs)
        clouds = _clouds(linker, X, y, dims)
        name = getattr(labels, "name", None) if label_name is None else label_name
        display = cls(
            x_coordinates=clouds.x,
            y_coordinates=clouds.y,
            axis_names=clouds.axis_names,
            labels=labels,
            label_name="label" if name is None else str(name),
            kind=kind,
            max_pairs=max_pairs,
            names=names,
        )
        return display.plot(ax=ax, **plot_params)

    def plot(self, ax: Any = None, *, size: float | None = None, cmap: str = "viridis") -> Any:
        """Draw the display.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; None makes a figure.
        size : float, default=None
            Area of a point in square points; None chooses by their number.
        cmap : str, default="viridis"
            Colours of continuous labels.

        Returns
        -------
        PairedLatentDisplay
            Itself.
        """
        require_matplotlib("PairedLatentDisplay")
        if ax is None:
            import matplotlib.pyplot as plt

            self.figure_, ax = plt.subplots(figsize=(6.8, 5.6), layout="constrained")
        self.figure_, self.axes_ = make_canvas(ax, 1, height=5.0)
        self.ax_ = self.axes_[0]
        self.colorbar_ = None
        if size is None:
            size = float(np.clip(12000 / max(len(self.x_coordinates), 1), 8, 36))
        self._plot_lines()
        style: dict[str, Any] = {"s": size, "linewidth": 0.3, "edgecolor": "white", "zorder": 2}
        if self.labels is None:
            for cloud, color, marker in zip(self._sides, (BLUE, VERMILLION), _MARKERS, strict=True):
                self.ax_.scatter(*cloud.T, color=color, marker=marker, **style)
        elif self.kind == "categorical":
            self._plot_categories(self.labels, style)
        else:
            self._plot_numbers(self.labels, cmap, style)
        dress(self.ax_)
        self._set_scale()
        self.ax_.set_xlabel(self.axis_names[0], color=INK, fontsize=10)
        self.ax_.set_ylabel(self.axis_names[1], color=INK, fontsize=10)
        self._explain()
        return self

    @property
    def _sides(self) -> tuple[Float, Float]:
        return self.x_coordinates, self.y_coordinates

    def _set_scale(self) -> None:
        """Give both axes one scale, so that lines compare, unless that flattens the clouds."""
        both = np.concatenate(self._sides)
        both = both[np.isfinite(both).all(axis=1)]
        reach = np.ptp(both, axis=0) if len(both) else np.ones(2)
        if reach.max() <= _MOST_OBLONG * reach.min():
            self.ax_.set_aspect("equal", adjustable="datalim")

    def _plot_lines(self) -> None:
        from matplotlib.collections import LineCollection

        ends = np.stack([side[self.pairs] for side in self._sides], axis=1)
        lines = LineCollection(list(ends), colors=_LINE, linewidths=0.6, alpha=0.7, zorder=1)
        self.ax_.add_collection(lines)

    def _plot_categories(self, labels: NDArray[Any], style: dict[str, Any]) -> None:
        missing, known = missing_labels(labels), known_labels(labels)
        groups = [
            (has_label(labels, label), color, write_label(label))
            for label, color in zip(known, category_colors(len(known)), strict=True)
        ]
        if missing.any():
            groups.insert(0, (missing, _GREY, "none"))
        for own, color, _ in groups:
            for cloud, marker in zip(self._sides, _MARKERS, strict=True):
                self.ax_.scatter(*cloud[own].T, color=color, marker=marker, **style)
        self._explain_categories([(color, text) for _, color, text in groups])

    def _plot_numbers(self, labels: NDArray[Any], cmap: str, style: dict[str, Any]) -> None:
        missing = missing_labels(labels)
        values = labels[~missing].astype(float)
        limits = {"vmin": values.min(), "vmax": values.max()} if len(values) else {}
        for cloud, marker in zip(self._sides, _MARKERS, strict=True):
            self.ax_.scatter(*cloud[missing].T, color=_GREY, marker=marker, **style)
            x, y = cloud[~missing].T
            points = self.ax_.scatter(x, y, c=values, cmap=cmap, marker=marker, **limits, **style)
        self.colorbar_ = self.figure_.colorbar(points, ax=self.ax_, pad=0.02)
        self.colorbar_.set_label(self.label_name, color=INK, fontsize=10)
        self.colorbar_.outline.set_visible(False)
        self.colorbar_.ax.tick_params(colors=INK, labelsize=9)

    def _explain_categories(self, entries: list[tuple[Any, str]]) -> None:
        """Put what the colours mean on the right, apart from what the markers mean."""
        from matplotlib.lines import Line2D

        style: dict[str, Any] = {"linestyle": "", "marker": "s", "markersize": 6}
        legend = self.ax_.legend(
            [Line2D([], [], color=color, **style) for color, _ in entries],
            [short(text) for _, text in entries],
            title=self.label_name,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            ncols=-(-len(entries) // 18),
            frameon=False,
            fontsize=9,
            title_fontsize=9,
            alignment="left",
            borderaxespad=0.0,
            handlelength=1.0,
        )
        self.ax_.add_artist(legend)  # keeps it beside the legend that follows
        legend.set_clip_on(False)

    def _explain(self) -> None:
        """Put what markers and lines mean above the axes."""
        colors = (BLUE, VERMILLION) if self.labels is None else (INK, INK)
        for color, marker, name in zip(colors, _MARKERS, self.names, strict=True):
            style: dict[str, Any] = {"linestyle": "", "marker": marker, "markersize": 6}
            self.ax_.plot([], [], color=color, label=f"code of {name}", **style)
        shown, all_pairs = len(self.pairs), self.n_pairs
        text = f"pair ({shown} of {all_pairs})" if shown < all_pairs else f"pair ({all_pairs})"
        self.ax_.plot([], [], color=_LINE, linewidth=0.9, label=text)
        legend_above(self.ax_)


def _clouds(linker: Any, X: Any, y: Any, dims: tuple[int, int] | None) -> Clouds:
    """Codes of both sides, in two entries or two principal components of all of them."""
    sides = read_sides(linker, X, y)
    x, other = _read_codes(linker, X, y, sides)
    chosen = check_plane(x.shape[1], dims, "dims")
    if chosen is not None:
        if chosen[0] == chosen[1]:
            raise ValueError(f"dims must be two different positions; got {dims!r}.")
        return Clouds(x[:, chosen], other[:, chosen], [f"z{place}" for place in chosen])
    seen = np.concatenate([x[sides.x_seen], other[sides.y_seen]])
    if len(seen) < 2:
        raise ValueError(
            "Principal components need two codes or more; give more records, or choose dims=(0, 1)."
        )
    plane = principal_plane(seen)
    places = [(code - plane.centre) @ plane.directions.T for code in (x, other)]
    return Clouds(places[0], places[1], plane.names)


def _read_codes(linker: Any, X: Any, y: Any, sides: Sides) -> tuple[Float, Float]:
    """Codes (N, D) of X and of y, NaN where nothing was observed."""
    found = linker.transform(X, y)
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(
            "PairedLatentDisplay needs a linker whose transform(X, y) gives two sets of codes, "
            f"such as tsvae.PairVAELinker; that of {type(linker).__name__} gives "
            f"{type(found).__name__}."
        )
    codes = []
    for side, seen in zip(found, (sides.x_seen, sides.y_seen), strict=True):
        values = np.asarray(side, dtype=float)
        if values.ndim != 2 or len(values) != len(seen):
            raise ValueError(
                f"transform(X, y) must give {len(seen)} codes of each side, one row each; got "
                f"shape {values.shape}."
            )
        codes.append(np.where(seen[:, None], values, np.nan))
    return codes[0], codes[1]


def _check_count(max_pairs: Any) -> int:
    if isinstance(max_pairs, bool) or not isinstance(max_pairs, int | np.integer):
        raise TypeError(f"max_pairs must be an int; got {max_pairs!r}.")
    if max_pairs < 0:
        raise ValueError(f"max_pairs must be 0 (no lines) or more; got {max_pairs}.")
    return int(max_pairs)
