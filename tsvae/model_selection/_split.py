"""Rolling-origin splits with scikit-learn's `split` interface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import BaseCrossValidator

from tsvae.metrics._steps import Steps, read_steps

Int = NDArray[np.int64]


class Window(NamedTuple):
    """One split in grid steps, ends exclusive."""

    train_start: int
    train_stop: int
    test_start: int
    test_stop: int


class RollingOriginSplit(BaseCrossValidator):
    """Train on the past, test on the next `horizon` steps, at several origins.

    The last test window ends with the data, each one before it `step` steps earlier. Works
    wherever scikit-learn takes ``cv=``, for containers whose first axis is time: 2-D arrays,
    frames, Series, DataArrays with time first, and frames of many series with row levels
    (series, time), which are all cut at the same stamp, whatever the order of their rows.

    Parameters
    ----------
    n_splits : int, default=5
        Number of origins.
    horizon : int
        Steps of each test window.
    step : int, default=None
        Steps between origins; None takes `horizon`, so that test windows do not overlap.
    gap : int, default=0
        Steps left out between training and test rows.
    max_train_size : int, default=None
        Steps of the training window at most; None lets it grow from the first row.
    min_train_size : int, default=None
        Steps of the first training window at least; None asks for one.

    Notes
    -----
    Steps are counted by stamps: a missing row is a step, so windows may have fewer rows than
    steps. Stamps without a common step, and arrays, are counted by rows. Test rows of a series
    that has no training row are left out: nothing could be forecast from.

    3-D arrays hold series on the first axis; split them over series by
    :class:`sklearn.model_selection.KFold`.

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.model_selection import RollingOriginSplit
    >>> cv = RollingOriginSplit(2, horizon=2)
    >>> for train, test in cv.split(np.zeros((7, 1))):
    ...     print(train, test)
    [0 1 2] [3 4]
    [0 1 2 3 4] [5 6]
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        horizon: int,
        step: int | None = None,
        gap: int = 0,
        max_train_size: int | None = None,
        min_train_size: int | None = None,
    ) -> None:
        self.n_splits = check_count(n_splits, "n_splits")
        self.horizon = check_count(horizon, "horizon")
        self.step = None if step is None else check_count(step, "step")
        self.gap = check_count(gap, "gap", least=0)
        self.max_train_size = max_train_size
        if max_train_size is not None:
            self.max_train_size = check_count(max_train_size, "max_train_size")
        self.min_train_size = min_train_size
        if min_train_size is not None:
            self.min_train_size = check_count(min_train_size, "min_train_size")
        if min_train_size and max_train_size and min_train_size > max_train_size:
            raise ValueError(
                f"min_train_size={min_train_size} is larger than max_train_size={max_train_size}."
            )

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits.

        Parameters
        ----------
        X, y, groups : object
            Ignored.

        Returns
        -------
        int
        """
        return self.n_splits

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Int, Int]]:
        """Yield the row positions of training and test data, earliest origin first.

        Parameters
        ----------
        X : container of shape (n_rows, ...)
            Data with time on the first axis.
        y, groups : object
            Ignored.

        Yields
        ------
        train, test : ndarray of int
            Positions along the first axis, increasing.

        Raises
        ------
        ValueError
            If X has too few steps, a window has no rows, or time is not on the first axis.
        """
        steps = self._read(X)
        for number, window in enumerate(self.windows(int(steps.positions.max()) + 1)):
            yield self._rows(steps, window, number)

    def windows(self, n_steps: int) -> list[Window]:
        """Return the windows of a grid of `n_steps` steps.

        Parameters
        ----------
        n_steps : int
            Steps from the first stamp to the last.

        Returns
        -------
        list of Window

        Raises
        ------
        ValueError
            If there are too few steps; says how many are needed.
        """
        step = self.horizon if self.step is None else self.step
        least = 1 if self.min_train_size is None else self.min_train_size
        needed = least + self.gap + self.horizon + (self.n_splits - 1) * step
        if n_steps < needed:
            name = " ".join(repr(self).split())  # on one line
            raise ValueError(
                f"X has {n_steps} time steps, but {name} needs at least {needed}: {least} to "
                f"train on + gap {self.gap} + horizon {self.horizon} + "
                f"{self.n_splits - 1} more origins x step {step}. Lower n_splits, horizon or step."
            )
        windows = []
        for k in range(self.n_splits):
            test_stop = n_steps - (self.n_splits - 1 - k) * step
            train_stop = test_stop - self.horizon - self.gap
            train_start = max(0, train_stop - (self.max_train_size or train_stop))
            windows.append(Window(train_start, train_stop, test_stop - self.horizon, test_stop))
        return windows

    def _iter_test_indices(self, X: Any = None, y: Any = None, groups: Any = None) -> Iterator[Int]:
        for _, test in self.split(X, y, groups):
            yield test

    def _read(self, X: Any) -> Steps:
        """Read the steps of the rows of X, whose first axis must be time."""
        if X is None:
            raise ValueError("X is needed to split: its rows are cut by their time stamps.")
        if hasattr(X, "data_vars"):
            raise ValueError(
                "An xarray Dataset has no first axis to split along; give the DataArray "
                "X.to_dataarray().transpose('time', ...)."
            )
        steps = read_steps(X)
        if steps.axis != 0:
            remedy = "Use sklearn.model_selection.KFold to split over series, or give a frame."
            if hasattr(X, "dims"):
                remedy = "Give X.transpose('time', ...)."
            raise ValueError(
                f"RollingOriginSplit cuts the first axis, which must be time; X has its time on "
                f"axis {steps.axis} of shape {np.shape(X)}. {remedy}"
            )
        if not len(steps.positions):
            raise ValueError("X has no rows to split.")
        return steps

    def _rows(self, steps: Steps, window: Window, number: int) -> tuple[Int, Int]:
        position = steps.positions
        train = np.flatnonzero((position >= window.train_start) & (position < window.train_stop))
        test = np.flatnonzero((position >= window.test_start) & (position < window.test_stop))
        known = np.zeros(int(steps.series.max()) + 1, dtype=bool)
        known[steps.series[train]] = True
        test = test[known[steps.series[test]]]
        for name, rows in (("training", train), ("test", test)):
            if not len(rows):
                raise ValueError(
                    f"The {name} window of split {number} has no rows that can be used: the data "
                    f"have a gap there, or no series has both training and test rows. Windows in "
                    f"steps: {window}. Change n_splits, horizon or step."
                )
        return train, test


def check_count(value: Any, name: str, least: int = 1) -> int:
    """Return `value` as int, or raise if it is not a whole number of at least `least`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer; got {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}.")
    return int(value)
