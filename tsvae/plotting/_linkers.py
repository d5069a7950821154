"""What the displays of a linker share: both sides of the data, and checks of the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._containers import is_frame, is_table, is_xarray
from tsvae.plotting._signals import Signals, read_signals

Bool = NDArray[np.bool_]


class Sides(NamedTuple):
    """Records of X and of y, in the same order."""

    x: Signals
    y: Signals
    x_seen: Bool  # (N,) whether anything of the record was observed
    y_seen: Bool  # (N,)

    @property
    def paired(self) -> Bool:
        """Which records were observed on both sides (N,)."""
        return self.x_seen & self.y_seen


def require_linker(linker: Any, methods: Sequence[str], display: str) -> None:
    """Raise an error if `linker` lacks what a display needs.

    Parameters
    ----------
    linker : object
    methods : sequence of str
    display : str
        Name of the display, for the message.

    Raises
    ------
    TypeError
        If it is a class, or lacks a method.
    """
    if isinstance(linker, type):
        raise TypeError(
            f"linker must be a fitted estimator; got the class {linker.__name__}. Make one and "
            f"fit it: {linker.__name__}().fit(X, y)."
        )
    for method in methods:
        if not callable(getattr(linker, method, None)):
            raise TypeError(
                f"{display} needs a fitted linker with a method {method}, such as "
                f"tsvae.PairVAELinker; {type(linker).__name__} has none."
            )


def check_names(names: Any) -> tuple[str, str]:
    """Return what the two sides are called."""
    wrong = isinstance(names, str) or not isinstance(names, Sequence) or len(names) != 2
    if wrong or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"names must be two strings, what X and what y is called, such as "
            f"('SAXS', 'UV-Vis'); got {names!r}."
        )
    return names[0], names[1]


def read_side(container: Any, linker: Any, name: str) -> Signals:
    """Read records as :func:`read_signals`, and a 1-D y as records of one step."""
    options = linker if hasattr(linker, "get_params") else None
    if is_table(container) and not is_frame(container):
        label = "y" if container.name is None else container.name
        container = container.to_frame(label)
    elif not is_table(container) and not is_xarray(container) and np.ndim(container) == 1:
        container = np.asarray(container)[:, None]
    return read_signals(container, options, name=name)


def read_sides(linker: Any, X: Any, y: Any) -> Sides:
    """Read X and y, whose records belong together in their order.

    Parameters
    ----------
    linker : object
        Its parameters ``time``, ``series`` and ``freq``, if any, say how containers are read.
    X, y : container

    Returns
    -------
    Sides

    Raises
    ------
    ValueError
        If they have other numbers of records, or the same labels in another order.
    """
    x, other = read_side(X, linker, "X"), read_side(y, linker, "y")
    if len(x.keys) != len(other.keys):
        raise ValueError(
            f"X and y must hold the same records; X has {len(x.keys)} and y {len(other.keys)}. "
            "Give a row of NaN on the side on which a record was not measured."
        )
    labelled = all(is_table(side) or is_xarray(side) for side in (X, y))
    if labelled and x.keys != other.keys and set(x.keys) == set(other.keys):
        row = next(k for k, key in enumerate(x.keys) if key != other.keys[k])
        raise ValueError(
            f"X and y have the same row labels in another order: row {row} is {x.keys[row]!r} in "
            f"X and {other.keys[row]!r} in y. Records are paired by position; sort one like the "
            "other, y.loc[X.index] for frames."
        )
    return Sides(x, other, _seen(x), _seen(other))


def take_records(container: Any, places: NDArray[np.intp], n_records: int) -> Any:
    """Rows of a table or an array; None for containers that have no rows of records."""
    if is_xarray(container) or np.shape(container)[:1] != (n_records,):
        return None
    return container.iloc[places] if is_table(container) else _as_array(container)[places]


def _as_array(container: Any) -> Any:
    return container if isinstance(container, np.ndarray) else np.asarray(container)


def _seen(signals: Signals) -> Bool:
    return np.asarray(np.isfinite(signals.values).any(axis=(1, 2)))
