"""Reading what the user gives: a history, or covariates and target on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from tsvae.panel import Panel, PanelIndex, match_variables, read_panel

__all__ = ["Problem", "Reader"]


class Problem(NamedTuple):
    """Data on one time grid.

    Attributes
    ----------
    target : Panel
        What is modelled.
    covariates : Panel or None
        Known beside it, with the same rows; None in the ``fit(df)`` form.
    """

    target: Panel
    covariates: Panel | None

    @property
    def n_rows(self) -> int:
        """Rows of the caller's containers."""
        return self.target.index.n_rows


@dataclass(frozen=True)
class Reader:
    """Reads containers by the estimator's own options.

    Attributes
    ----------
    time, series, freq
        See :func:`tsvae.panel.read_panel`.
    owner : str
        Name of the estimator, for messages.
    """

    time: Any
    series: Any
    freq: Any
    owner: str

    def fit_problem(self, X: Any, y: Any, mask: Any) -> Problem:
        """Read training data; ``mask`` belongs to the target."""
        options: dict[str, Any] = {"time": self.time, "series": self.series, "freq": self.freq}
        if y is None:
            return Problem(read_panel(X, mask=mask, **options), None)
        if not _labelled(X) and _labelled(y):
            target = read_panel(y, mask=mask, name="y", allow_1d=True, **options)
            return Problem(target, read_panel(X, rows=target.index, **_covariate()))
        covariates = read_panel(X, **_covariate(), **options)
        target = read_panel(y, mask=mask, rows=covariates.index, name="y", allow_1d=True)
        return Problem(target, covariates)

    def history(self, X: Any, mask: Any, like: PanelIndex) -> Panel:
        """Read new data of the fitted target's variables."""
        panel = read_panel(X, mask=mask, like=like, allow_1d=len(like.variables) == 1)
        match_variables(panel, like, self.owner)
        return panel

    def rows(self, X: Any, like: PanelIndex) -> Panel:
        """Read covariates, one row per wanted step."""
        panel = read_panel(X, like=like)
        match_variables(panel, like, self.owner)
        return panel

    def pair(
        self, X: Any, y: Any, mask: Any, covariates: PanelIndex, target: PanelIndex
    ) -> Problem:
        """Read covariates and target of another history."""
        known = self.rows(X, covariates)
        seen = read_panel(
            y, mask=mask, rows=known.index, name="y", allow_1d=True, allow_all_missing=True
        )
        match_variables(seen, target, self.owner, name="y")
        return Problem(seen, known)


def _covariate() -> dict[str, Any]:
    return {"name": "X"}


def _labelled(data: Any) -> bool:
    return hasattr(data, "iloc") or hasattr(data, "dims")
