"""The record of a training run, one row per epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TrainingLog"]

#: Columns that every log has, in this order; diagnostics follow.
BASE_COLUMNS = ("epoch", "step", "objective", "validation", "learning_rate", "seconds")

Value = float | int | None


class TrainingLog(Mapping[str, list[Value]]):
    """Per-epoch record of a run: a mapping from column name to list, as long as the epochs.

    Columns are ``epoch``, ``step``, ``objective`` (mean training loss), ``validation``,
    ``learning_rate``, ``seconds`` (since the start) and the mean of every diagnostic that the
    model reports. What was not measured in an epoch is None.

    Parameters
    ----------
    rows : sequence of dict, optional
        Rows to start from.
    stop_reason : str or None
        Why training ended: ``"max_epochs"``, ``"max_steps"``, ``"max_time"``, ``"patience"``,
        ``"callback"`` or ``"interrupted"``.
    best_epoch : int or None
        Epoch whose state the model was given back, if it was not the last.

    Examples
    --------
    >>> log = TrainingLog()
    >>> log.append({"epoch": 0, "step": 10, "objective": 2.5, "beta": 0.1})
    >>> log["objective"]
    [2.5]
    >>> log["validation"]
    [None]
    >>> len(log.rows), "beta" in log
    (1, True)
    """

    def __init__(
        self,
        rows: list[dict[str, Value]] | None = None,
        stop_reason: str | None = None,
        best_epoch: int | None = None,
    ) -> None:
        self.rows: list[dict[str, Value]] = []
        self.stop_reason = stop_reason
        self.best_epoch = best_epoch
        for row in rows or []:
            self.append(row)

    def append(self, row: Mapping[str, Value]) -> None:
        """Add the row of one epoch."""
        self.rows.append(dict(row))

    def extended(self, later: TrainingLog) -> TrainingLog:
        """Return this log with the rows of a later run behind it, counts going on.

        Parameters
        ----------
        later : TrainingLog

        Returns
        -------
        TrainingLog
            Its stop reason and best epoch are those of the later run.
        """
        offset = {
            name: (self.rows[-1].get(name) or 0) + first if self.rows else 0
            for name, first in (("epoch", 1), ("step", 0), ("seconds", 0))
        }
        shifted = [
            {k: v + offset[k] if k in offset and v is not None else v for k, v in row.items()}
            for row in later.rows
        ]
        best = later.best_epoch
        return TrainingLog(
            [*self.rows, *shifted],
            later.stop_reason,
            None if best is None else best + int(offset["epoch"]),
        )

    @property
    def columns(self) -> list[str]:
        """Names of all columns, in order of first appearance after the base ones."""
        names = dict.fromkeys(BASE_COLUMNS)
        for row in self.rows:
            names.update(dict.fromkeys(row))
        return list(names)

    def __getitem__(self, name: str) -> list[Value]:
        if name not in self.columns:
            raise KeyError(
                f"The training log has no column {name!r}; "
                f"its columns are {', '.join(self.columns)}."
            )
        return [row.get(name) for row in self.rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TrainingLog):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        last = self.rows[-1] if self.rows else {}
        text = ", ".join(f"{k}={v:.6g}" for k, v in last.items() if v is not None)
        return f"TrainingLog({len(self.rows)} epochs; last: {text})"

    def to_dict(self) -> dict[str, Any]:
        """Return the log as plain JSON values (numbers that are not finite become None).

        Returns
        -------
        dict
            Keys ``rows``, ``stop_reason``, ``best_epoch``; see :meth:`from_dict`.
        """
        rows = [{name: _json_value(value) for name, value in row.items()} for row in self.rows]
        return {"rows": rows, "stop_reason": self.stop_reason, "best_epoch": self.best_epoch}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingLog:
        """Rebuild a log from :meth:`to_dict`."""
        return cls(list(values["rows"]), values["stop_reason"], values["best_epoch"])

    def to_frame(self) -> pd.DataFrame:
        """Return the log as a table, one row per epoch, indexed by epoch.

        Returns
        -------
        pandas.DataFrame
        """
        import pandas as pd

        frame = pd.DataFrame({name: self[name] for name in self.columns})
        return frame.astype({"epoch": int, "step": int}).set_index("epoch")


def _json_value(value: Value) -> Value:
    return None if value is None or not math.isfinite(value) else value
