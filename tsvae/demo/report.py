"""Scores of probabilistic forecasts, and small aligned tables of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics import crps_from_quantiles, interval_coverage, mean_absolute_error

__all__ = ["QUANTILE_LEVELS", "ForecastScores", "ScoreSum", "format_table"]

# The CRPS is twice the mean pinball loss over these; the outermost two bound the 90 % interval.
QUANTILE_LEVELS = tuple(round(0.05 * k, 2) for k in range(1, 20))


@dataclass(frozen=True)
class ForecastScores:
    """How one method did over all origins, steps and variables that were observed.

    Attributes
    ----------
    method : str
        Its name.
    mse, mae, crps : float
        Squared and absolute error of the mean, and continuous ranked probability score, in
        (squared) units of the data.
    coverage : float
        Share of the values inside the 90 % interval.
    seconds : float
        Wall time of fitting and forecasting.
    n_parameters : int or None
        Fitted numbers, where that is a meaningful count.
    """

    method: str
    mse: float
    mae: float
    crps: float
    coverage: float
    seconds: float
    n_parameters: int | None = None


class ScoreSum:
    """Running averages of the scores, for forecasts that come in chunks.

    Examples
    --------
    >>> import numpy as np
    >>> total = ScoreSum()
    >>> quantiles = np.repeat([[1.0], [2.0], [2.0]], len(QUANTILE_LEVELS), axis=1)
    >>> total.add(np.array([1.0, np.nan, 3.0]), quantiles[:, 0], quantiles)
    >>> score = total.result("constant", seconds=0.0)
    >>> score.mae, round(score.crps, 3), score.coverage
    (0.5, 0.5, 0.5)
    """

    def __init__(self) -> None:
        self._sums = np.zeros(4)
        self._count = 0

    def add(
        self,
        actual: NDArray[np.float64],
        mean: NDArray[np.float64],
        quantiles: NDArray[np.float64],
    ) -> None:
        """Count forecasts of `actual` in, where it is known.

        Parameters
        ----------
        actual, mean : ndarray of shape (...)
            Values, NaN where unobserved, and their forecasts.
        quantiles : ndarray of shape (..., Q)
            Forecast quantiles at `QUANTILE_LEVELS`.
        """
        observed = np.isfinite(actual)
        if not observed.any():
            return
        y, point, levels = actual[observed], mean[observed], quantiles[observed]
        averages = [
            np.mean((y - point) ** 2),
            mean_absolute_error(y, point),
            crps_from_quantiles(y, levels, quantiles=QUANTILE_LEVELS),
            interval_coverage(y, (levels[:, 0], levels[:, -1])),
        ]
        self._sums += len(y) * np.array(averages)
        self._count += len(y)

    def result(
        self, method: str, *, seconds: float, n_parameters: int | None = None
    ) -> ForecastScores:
        """Averages over everything added so far.

        Parameters
        ----------
        method : str
            Name for the table.
        seconds : float
            Wall time to report.
        n_parameters : int or None, default=None
            Number of fitted parameters to report.

        Returns
        -------
        ForecastScores
            NaN where nothing was added.
        """
        mse, mae, crps, coverage = (
            (self._sums / self._count).tolist() if self._count else [float("nan")] * 4
        )
        return ForecastScores(method, mse, mae, crps, coverage, seconds, n_parameters)


def format_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False
) -> str:
    """Lay out rows of text in columns: the first flush left, the others flush right.

    Parameters
    ----------
    header : sequence of str
        Column titles.
    rows : sequence of sequence of str
        Cells; as many per row as there are titles.
    markdown : bool, default=False
        Write a Markdown table instead of one for the terminal.

    Returns
    -------
    str
        The lines, joined.

    Examples
    --------
    >>> print(format_table(["method", "MAE"], [["naive", "1.25"], ["ours", "0.5"]]))
    method    MAE
    -------------
    naive    1.25
    ours      0.5
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]

    def line(cells: Sequence[str]) -> list[str]:
        first = cells[0].ljust(widths[0])
        return [first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]

    if markdown:
        rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
        body = [line(header), rule, *map(line, rows)]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in body)
    lines = ["   ".join(line(cells)).rstrip() for cells in [header, *rows]]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
