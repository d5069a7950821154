"""Records or long signals of any container as plain arrays to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._containers import is_frame, is_xarray
from tsvae.panel import read_panel, read_records
from tsvae.plotting._tracks import plain_times

Float = NDArray[np.float64]


class Signals(NamedTuple):
    """Signals on one axis: N records (or long series), T steps, F variables."""

    axis: NDArray[Any]  # (T,) numbers or datetime64
    axis_name: str
    values: Float  # (N, T, F), NaN where missing
    keys: list[Any]  # (N,) labels of the records as the caller writes them, or positions
    names: list[str]  # (F,) of the variables; [""] for one without a name
    axis_labels: list[str] | None = None  # (T,) where the axis has labels that are no numbers

    def title(self, record: int, variable: int) -> str:
        """Name of one record's variable."""
        key = self.keys[record]
        label = ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)
        if isinstance(key, int):
            label = f"record {label}"
        if not self.names[variable]:
            return label
        return f"{label}, {self.names[variable]}" if len(self.keys) > 1 else self.names[variable]

    def columns(
        self, records: Sequence[int], variables: Sequence[int], like: Signals, name: str
    ) -> Float:
        """Chosen variables of chosen records side by side, (T, n_records * n_variables)."""
        if self.values.shape != like.values.shape:
            raise ValueError(
                f"{name} must have the shape of X, {like.values.shape} (records, steps, "
                f"variables); got {self.values.shape}."
            )
        n_steps = len(self.axis)
        chosen = self.values[np.ix_(records, range(n_steps), variables)]
        return np.moveaxis(chosen, 1, 0).reshape(n_steps, -1)


def read_signals(X: Any, estimator: Any = None, *, name: str = "X") -> Signals:
    """Read what a denoiser reads, or what it returns.

    Parameters
    ----------
    X : container
        Records, or long series for an estimator with ``window=``.
    estimator : object, default=None
        Its parameters ``window``, ``time``, ``series`` and ``freq`` say how X is read; None:
        records, as an estimator without these.
    name : str, default="X"
        How messages call the data.

    Returns
    -------
    Signals
    """
    found = estimator.get_params(deep=False) if estimator is not None else {}
    options = {key: found.get(key) for key in ("time", "series", "freq")}
    if found.get("window") is not None:
        return _series(X, options, name)
    labelled = is_frame(X) or is_xarray(X)
    records = read_records(X, **(options if labelled else {}), name=name, allow_all_missing=True)
    index = records.index
    axis, axis_name = index.axis_values, "step"
    if index.axis is not None and index.axis.name is not None:
        axis_name = str(index.axis.name)
    texts = None
    if axis is None and index.axis is not None:
        texts = [_text(label) for label in index.axis]
    labels = index.record_labels
    names = [""] if index.n_features == 1 else variable_names(index.variable_labels, index)
    return Signals(
        np.arange(records.n_steps) if axis is None else axis,
        axis_name,
        np.where(records.mask, records.values, np.nan),
        list(range(records.n_records)) if labels is None else labels.tolist(),
        names,
        texts,
    )


def _series(X: Any, options: dict[str, Any], name: str) -> Signals:
    """Long series; the axis is that of the first one."""
    panel = read_panel(X, **options, name=name, allow_all_missing=True, allow_1d=True)
    index = panel.index
    steps = np.arange(panel.n_steps)
    axis: NDArray[Any] = steps
    if index.has_stamps:
        axis = plain_times(index.clock.stamps(index.starts[0] + steps))
    keys = list(range(panel.n_series)) if index.series is None else list(index.series)
    values = np.where(panel.mask, panel.values, np.nan)
    labels = list(index.variables) if index.layout.labelled else None
    return Signals(axis, "time", values, keys, variable_names(labels, index))


def variable_names(labels: Sequence[Any] | None, index: Any) -> list[str]:
    """Names of variables, numbered where they have no labels."""
    if labels is None:
        return [f"variable {k}" for k in range(len(index.variables))]
    return [_text(label) for label in labels]


def fitted_names(estimator: Any, names: list[str]) -> list[str]:
    """Names of the variables of decoded windows, which are arrays: those of the fit."""
    if getattr(estimator, "window", None) is None or not hasattr(
        estimator, "get_feature_names_out"
    ):
        return names
    found = [_text(label) for label in estimator.get_feature_names_out()]
    return found if len(found) == len(names) else names


def choose_records(
    keys: Sequence[Any], wanted: Any, at_most: int, name: str = "series"
) -> list[int]:
    """Positions of the records to draw.

    Parameters
    ----------
    keys : sequence
        Labels of the records.
    wanted : label, list of labels, or None
        None takes the first `at_most`.
    at_most : int
    name : str, default="series"
        How messages call `wanted`.

    Returns
    -------
    list of int

    Raises
    ------
    KeyError
        If there is no such record.
    """
    if at_most < 1:
        raise ValueError(f"max_{name} must be at least 1; got {at_most}.")
    if wanted is None:
        return list(range(min(len(keys), at_most)))
    found = []
    for label in wanted if isinstance(wanted, list) else [wanted]:
        places = [place for place, key in enumerate(keys) if key == label]
        if not places:
            shown = ", ".join(repr(key) for key in keys[:8]) + (", ..." if len(keys) > 8 else "")
            raise KeyError(f"{name}={label!r} is not one of the {len(keys)} records: {shown}.")
        found.append(places[0])
    return found


def split_draws(draws: Any, n_draws: int) -> list[Any]:
    """Containers of the single draws that ``augment(X, n_draws)`` has returned in one."""
    if n_draws == 1:
        return [draws]
    if is_frame(draws):
        labels = draws.index.unique(level=0)
        return [draws.xs(label, level=0) for label in labels]
    if is_xarray(draws):
        first = next(iter(draws.data_vars.values())) if hasattr(draws, "data_vars") else draws
        return [draws.isel({first.dims[0]: place}) for place in range(n_draws)]
    return list(draws)


def _text(label: Any) -> str:
    return ", ".join(map(str, label)) if isinstance(label, tuple) else str(label)
