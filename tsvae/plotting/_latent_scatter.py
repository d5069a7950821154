"""Codes in the plane, coloured by a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
from tsvae.plotting._latents import check_plane, principal_plane, read_codes
from tsvae.plotting._style import (
    BLUE,
    INK,
    category_colors,
    dress,
    legend_above,
    make_canvas,
    require_matplotlib,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float = NDArray[np.float64]


class LatentScatterDisplay:
    """Codes of records in the plane, two of their entries or two principal components.

    Make it with :meth:`from_estimator`; all parameters are stored as attributes.

    Parameters
    ----------
    coordinates : ndarray of shape (n_records, 2)
    axis_names : sequence of two str
    labels : array-like of shape (n_records,), default=None
        What the colours mean. Missing ones (NaN, None) are grey.
    label_name : str, default="label"
    kind : {"auto", "categorical", "continuous"}, default="auto"
        auto: numbers are continuous, except for at most ten different whole numbers.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    colorbar_ : matplotlib Colorbar or None
        Of continuous labels.

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.plotting import LatentScatterDisplay
    >>> names = ["z0", "z1"]
    >>> points = np.eye(2)
    >>> LatentScatterDisplay(coordinates=points, axis_names=names, labels=["a", "b"]).kind
    'categorical'
    """

    figure_: Figure
    ax_: Axes
    axes_: list[Axes]
    colorbar_: Any

    def __init__(
        self,
        *,
        coordinates: Float,
        axis_names: Sequence[str],
        labels: Any = None,
        label_name: str = "label",
        kind: LabelKind = "auto",
    ) -> None:
        if np.ndim(coordinates) != 2 or np.shape(coordinates)[1] != 2:
            raise ValueError(
                f"coordinates must have shape (n_records, 2); got {np.shape(coordinates)}."
            )
        self.coordinates = np.asarray(coordinates, dtype=float)
        self.axis_names = list(axis_names)
        self.labels = None if labels is None else read_labels(labels, len(self.coordinates))
        self.label_name = label_name
        self.kind = resolve_kind(kind, self.labels)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        labels: Any = None,
        entries: tuple[int, int] | None = None,
        kind: LabelKind = "auto",
        label_name: str | None = None,
        condition: Any = None,
        ax: Any = None,
        **plot_params: Any,
    ) -> LatentScatterDisplay:
        """Draw the codes that a fitted denoiser gives to X.

        Parameters
        ----------
        estimator : object
            A fitted estimator with `encode`.
        X : container
            Records.
        labels : array-like of shape (n_records,), default=None
            What the colours mean; with ``window=`` one for each row that `encode` gives.
        entries : (int, int), default=None
            Latent entries to draw. None takes the two there are, or the first two principal
            components of the codes of X if there are more.
        kind : {"auto", "categorical", "continuous"}, default="auto"
            Of the labels.
        label_name : str, default=None
            None takes the name of a Series.
        condition : optional
            One row for each record, for a denoiser with conditions.
        ax : Axes, default=None
            Where to draw; None makes a figure.
        **plot_params
            Passed on to :meth:`plot`.

        Returns
        -------
        LatentScatterDisplay

        Raises
        ------
        ValueError
            If codes have one entry only, or `entries` or the number of labels do not fit.
        """
        require_matplotlib("LatentScatterDisplay")
        codes = read_codes(estimator, X, condition)
        coordinates, names = _project(codes, entries)
        name = getattr(labels, "name", None) if label_name is None else label_name
        display = cls(
            coordinates=coordinates,
            axis_names=names,
            labels=labels,
            label_name="label" if name is None else str(name),
            kind=kind,
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
        LatentScatterDisplay
            Itself.
        """
        require_matplotlib("LatentScatterDisplay")
        if ax is None:
            import matplotlib.pyplot as plt

            self.figure_, ax = plt.subplots(figsize=(6.4, 5.4), layout="constrained")
        self.figure_, self.axes_ = make_canvas(ax, 1, height=5.0)
        self.ax_ = self.axes_[0]
        self.colorbar_ = None
        if size is None:
            size = float(np.clip(12000 / max(len(self.coordinates), 1), 6, 36))
        style: dict[str, Any] = {"s": size, "linewidth": 0.3, "edgecolor": "white"}
        if self.labels is None:
            self.ax_.scatter(*self.coordinates.T, color=BLUE, **style)
        elif self.kind == "categorical":
            self._plot_categories(self.labels, style)
        else:
            self._plot_numbers(self.labels, cmap, style)
        dress(self.ax_)
        self.ax_.set_xlabel(self.axis_names[0], color=INK, fontsize=10)
        self.ax_.set_ylabel(self.axis_names[1], color=INK, fontsize=10)
        return self

    def _plot_categories(self, labels: NDArray[Any], style: dict[str, Any]) -> None:
        missing, known = missing_labels(labels), known_labels(labels)
        grey = "#BBBBBB"
        for label, color in zip(known, category_colors(len(known)), strict=True):
            own = self.coordinates[has_label(labels, label)]
            self.ax_.scatter(*own.T, color=color, label=write_label(label), **style)
        if missing.any():
            self.ax_.scatter(*self.coordinates[missing].T, color=grey, label="none", **style)
        legend_above(self.ax_, n_columns=6)
        legend: Any = self.ax_.get_legend()
        legend.set_title(self.label_name, prop={"size": 9})
        legend.set_alignment("left")

    def _plot_numbers(self, labels: NDArray[Any], cmap: str, style: dict[str, Any]) -> None:
        missing = missing_labels(labels)
        if missing.any():
            self.ax_.scatter(*self.coordinates[missing].T, color="#BBBBBB", **style)
        values = labels[~missing].astype(float)
        x, y = self.coordinates[~missing].T
        points = self.ax_.scatter(x, y, c=values, cmap=cmap, **style)
        self.colorbar_ = self.figure_.colorbar(points, ax=self.ax_, pad=0.02)
        self.colorbar_.set_label(self.label_name, color=INK, fontsize=10)
        self.colorbar_.outline.set_visible(False)
        self.colorbar_.ax.tick_params(colors=INK, labelsize=9)


def _project(codes: Float, entries: tuple[int, int] | None) -> tuple[Float, list[str]]:
    """Coordinates (N, 2) and the names of their axes."""
    chosen = check_plane(codes.shape[1], entries, "entries")
    if chosen is not None:
        return codes[:, chosen], [f"z{place}" for place in chosen]
    if len(codes) < 2:
        raise ValueError(
            "Principal components need two records or more; give more, or choose entries=(0, 1)."
        )
    plane = principal_plane(codes)
    return (codes - plane.centre) @ plane.directions.T, plane.names
