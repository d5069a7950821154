"""The look that all displays share: colours, grid, date axes, legends outside of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with every kind of colour vision.
INK = "#333333"
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
YELLOW = "#F0E442"
GRID = "#DDDDDD"
SHADE = "#EFE3C8"


_CATEGORIES = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, INK)


class Canvas(NamedTuple):
    """Where a display draws."""

    figure: Figure
    axes: list[Axes]


def require_matplotlib(name: str) -> None:
    """Raise an error that says how to install matplotlib, if it is absent."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'{name} needs matplotlib; install it with: pip install "tsvae[plot]"'
        ) from error


def make_canvas(ax: Any, n_panels: int, *, height: float, share_x: bool = True) -> Canvas:
    """Make `n_panels` axes below each other: new ones, those given, or inside the one given.

    Parameters
    ----------
    ax : Axes, sequence of Axes, or None
        None makes a figure; one axes is used, or its place divided if several are needed.
    n_panels : int
        Number of axes.
    height : float
        Inches of a panel in a new figure.
    share_x : bool, default=True
        Whether the panels share their x axis.

    Returns
    -------
    Canvas

    Raises
    ------
    ValueError
        If the number of axes given is not the number needed.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        figure, grid = plt.subplots(
            n_panels,
            1,
            sharex=share_x,
            squeeze=False,
            figsize=(9.0, 0.9 + height * n_panels),
            layout="constrained",
        )
        return Canvas(figure, list(grid[:, 0]))
    given = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(given) == n_panels:
        return Canvas(given[0].figure, given)
    if len(given) > 1:
        raise ValueError(f"ax must hold {n_panels} axes, one for each panel; got {len(given)}.")
    cells = divide(given[0], n_panels, 1)
    figure = given[0].figure
    axes = [figure.add_subplot(cells[0])]
    for k in range(1, n_panels):
        axes.append(figure.add_subplot(cells[k], sharex=axes[0] if share_x else None))
    return Canvas(figure, axes)


def make_grid(
    ax: Any, n_panels: int, n_columns: int, panel: tuple[float, float] = (3.1, 2.4)
) -> Canvas:
    """Make `n_panels` axes in rows of `n_columns`, as :func:`make_canvas` does below each other.

    `panel` is the width and height of one in a new figure, in inches.
    """
    import matplotlib.pyplot as plt

    n_rows = -(-n_panels // n_columns)
    if ax is None:
        size = (panel[0] * n_columns + 0.4, panel[1] * n_rows + 0.3)
        figure, grid = plt.subplots(
            n_rows, n_columns, squeeze=False, figsize=size, layout="constrained"
        )
        for spare in grid.ravel()[n_panels:]:
            spare.remove()
        return Canvas(figure, list(grid.ravel()[:n_panels]))
    given = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(given) > 1 or n_panels == 1:
        return make_canvas(ax, n_panels, height=1.0)
    cells = divide(given[0], n_rows, n_columns)
    figure = given[0].figure
    axes = [figure.add_subplot(cells[k // n_columns, k % n_columns]) for k in range(n_panels)]
    return Canvas(figure, axes)


def divide(ax: Axes, n_rows: int, n_columns: int, **options: Any) -> Any:
    """Hide `ax` and return a grid of cells in its place."""
    from matplotlib.gridspec import GridSpecFromSubplotSpec

    place = ax.get_subplotspec()
    if place is None:
        raise ValueError(
            "This display needs several panels, and the axes given cannot be divided since it is "
            "no subplot. Make it by plt.subplots(), or leave ax=None."
        )
    ax.set_axis_off()
    return GridSpecFromSubplotSpec(n_rows, n_columns, subplot_spec=place, **options)


def dress(ax: Axes, *, times: NDArray[Any] | None = None) -> None:
    """Give an axes the light look; with `times`, an x axis that fits them."""
    ax.grid(True, color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#888888")
    ax.tick_params(colors=INK, labelsize=9)
    if times is not None and np.issubdtype(np.asarray(times).dtype, np.datetime64):
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=4, maxticks=9)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def gradient(places: NDArray[Any]) -> list[Any]:
    """Colours from dark blue to orange for places from 0 to 1, readable on white."""
    from matplotlib import colormaps

    return [colormaps["plasma"](0.8 * float(place)) for place in places]


def category_colors(n: int) -> list[Any]:
    """Colours that tell `n` categories apart."""
    if n <= len(_CATEGORIES):
        return list(_CATEGORIES[:n])
    from matplotlib import colormaps

    return [colormaps["turbo"]((k + 0.5) / n) for k in range(n)]


def shade_steps(ax: Axes, times: NDArray[Any], flags: NDArray[np.bool_], label: str) -> None:
    """Shade the steps that are flagged, half a step to either side."""
    if not flags.any() or len(times) < 2:
        return
    if np.issubdtype(times.dtype, np.datetime64):
        from matplotlib.dates import date2num

        times = date2num(times)
    middle = (times[1:] + times[:-1]) / 2
    edges = np.concatenate([[2 * times[0] - middle[0]], middle, [2 * times[-1] - middle[-1]]])
    change = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    runs = [(edges[a], edges[b] - edges[a]) for a, b in change.reshape(-1, 2)]
    style: dict[str, Any] = {"facecolor": SHADE, "linewidth": 0, "zorder": 0.4}
    ax.broken_barh(runs, (0, 1), transform=ax.get_xaxis_transform(), label=label, **style)


def hide_inner_labels(axes: Sequence[Axes]) -> None:
    """Leave tick labels of a shared x axis to the lowest panel, and line up the y labels."""
    if len(axes) > 1:
        axes[0].figure.align_ylabels(list(axes))
    for ax in axes[:-1]:
        ax.tick_params(labelbottom=False)
        ax.xaxis.get_offset_text().set_visible(False)


def legend_above(ax: Axes, n_columns: int = 5) -> None:
    """Put the legend above the axes, where it hides no data."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        ax.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.01),
            ncols=n_columns,
            frameon=False,
            fontsize=9,
            borderaxespad=0.0,
            handlelength=1.6,
            columnspacing=1.4,
        )


def short(name: str, length: int = 24) -> str:
    """Shorten a name to fit along an axis."""
    return name if len(name) <= length else name[: length - 1] + "…"
