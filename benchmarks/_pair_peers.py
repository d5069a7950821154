"""Regressions that predict one side of a pair from the other, one direction at a time.

Columns of inputs and targets are centred by the training rows and scaled by their own deviation or
by that of the whole side. What is tuned is tuned on training rows alone, by the squared error in
units of the data on `folds`: pairs of row numbers to fit and to validate.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.cross_decomposition import PLSRegression
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, KFold

Array = NDArray[np.float64]
Folds = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]

SCALINGS = ("column", "side")
ALPHAS = tuple(10.0**k for k in range(-3, 5))
PLS_COMPONENTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
PLS_FIRST = 32  # more components are tried if so many are the best
CCA_PARTS = (4, 8, 16, 32, 64)
CCA_COMPONENTS = (2, 4, 8, 16)
HALF_WIDTHS = (32, 64, 128, 256)
EVERY = 7  # sample of the training windows that the linear filter is fitted to


class Fitted(NamedTuple):
    """A peer after fitting."""

    predict: Callable[[Array], Array]
    settings: dict[str, Any]


class Peer(NamedTuple):
    """A line of the tables: its name, what fits it to `(x, y, folds, seed)`."""

    label: str
    fit: Callable[[Array, Array, Folds, int], Fitted]


def shuffled_folds(n: int, seed: int) -> Folds:
    """Five folds of records that are independent of each other."""
    return list(KFold(5, shuffle=True, random_state=seed).split(np.zeros(n)))


def last_quarter(n: int) -> Folds:
    """One fold of windows in order, each of which overlaps with the next one by half."""
    border = 3 * n // 4
    return [(np.arange(border - 1), np.arange(border, n))]


class Scale(NamedTuple):
    """Centre of each column, and the unit of each column or of all."""

    centre: Array
    unit: Any

    @classmethod
    def of(cls, x: Array, scaling: str) -> Self:
        centred = x - x.mean(axis=0)
        unit = centred.std() if scaling == "side" else centred.std(axis=0)
        return cls(x.mean(axis=0), unit)

    def apply(self, x: Array) -> Array:
        return (x - self.centre) / self.unit

    def undo(self, x: Array) -> Array:
        return x * self.unit + self.centre


class Scaled(BaseEstimator, RegressorMixin):
    """A regression of scaled targets on scaled inputs.

    Dividing each column by its own deviation makes columns of little signal as loud as the others,
    noise included; with one unit for the side, they stay as quiet as they are.
    """

    def __init__(self, model: Any, scaling: str = "column") -> None:
        self.model = model
        self.scaling = scaling

    def fit(self, x: Array, y: Array) -> Self:
        self.inputs_, self.targets_ = Scale.of(x, self.scaling), Scale.of(y, self.scaling)
        self.model_ = clone(self.model).fit(self.inputs_.apply(x), self.targets_.apply(y))
        return self

    def predict(self, x: Array, **how: Any) -> Array:
        return self.targets_.undo(self.model_.predict(self.inputs_.apply(x), **how))


def fit_fixed(model: Any, x: Array, y: Array, settings: dict[str, Any]) -> Fitted:
    """Fit with one unit a side: better for these models on the validation part."""
    fitted = Scaled(model, "side").fit(x, y)
    return Fitted(fitted.predict, {**settings, "scaling": "side"})


def fit_grid(
    model: Any, grid: Mapping[str, Sequence[Any]], x: Array, y: Array, folds: Folds
) -> Fitted:
    """Search scalings and the parameters of `model`, then fit it to all rows."""
    search = GridSearchCV(
        Scaled(model),
        {"scaling": SCALINGS, **{f"model__{name}": values for name, values in grid.items()}},
        cv=folds,
        scoring="neg_mean_squared_error",
    ).fit(x, y)
    chosen = {name.removeprefix("model__"): v for name, v in search.best_params_.items()}
    return Fitted(search.predict, chosen)


def fit_ridge(x: Array, y: Array, folds: Folds, seed: int) -> Fitted:
    from sklearn.linear_model import Ridge

    return fit_grid(Ridge(), {"alpha": ALPHAS}, x, y, folds)


class FirstComponents(BaseEstimator, RegressorMixin):
    """Partial least squares whose predictions by the first components alone are at hand.

    The components are found one after the other, so those of a smaller fit are the first ones.
    """

    def __init__(self, n_components: int = 2) -> None:
        self.n_components = n_components

    def fit(self, x: Array, y: Array) -> Self:
        with warnings.catch_warnings():  # late components are noise: their direction is anybody's
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.pls_ = PLSRegression(self.n_components, scale=False).fit(x, y)
        self.centre_ = x.mean(axis=0)
        return self

    def predict(self, x: Array, n_components: int | None = None) -> Array:
        k = slice(n_components)
        scores = (x - self.centre_) @ self.pls_.x_rotations_[:, k]
        return scores @ self.pls_.y_loadings_[:, k].T + self.pls_.intercept_


def pls_errors(x: Array, y: Array, folds: Folds, scaling: str, numbers: Sequence[int]) -> Array:
    """Fit the largest number of components once a fold, and judge every smaller one from it."""
    errors = np.zeros(len(numbers))
    for train, held_out in folds:
        model = Scaled(FirstComponents(numbers[-1]), scaling).fit(x[train], y[train])
        for i, k in enumerate(numbers):
            errors[i] += np.mean((model.predict(x[held_out], n_components=k) - y[held_out]) ** 2)
    return errors


def fit_pls(x: Array, y: Array, folds: Folds, seed: int) -> Fitted:
    largest = min([x.shape[1], y.shape[1], *(len(train) - 1 for train, _ in folds)])
    for limit in (PLS_FIRST, largest):
        numbers = [k for k in PLS_COMPONENTS if k <= min(limit, largest)]
        errors = np.stack([pls_errors(x, y, folds, scaling, numbers) for scaling in SCALINGS])
        which, best = np.unravel_index(np.argmin(errors), errors.shape)
        if numbers[best] < PLS_FIRST:
            break
    scaling, chosen = SCALINGS[which], numbers[best]
    fitted = Scaled(FirstComponents(chosen), scaling).fit(x, y)
    return Fitted(fitted.predict, {"n_components": chosen, "scaling": scaling})


class CCA(BaseEstimator, RegressorMixin):
    """Canonical correlation of leading principal components, then least squares on its scores.

    Canonical variates say which directions go together, not how large the target is along them,
    hence the regression; without principal components, hundreds of nearly collinear columns
    correlate perfectly by chance.
    """

    def __init__(self, n_parts: int = 8, n_components: int = 4) -> None:
        self.n_parts = n_parts
        self.n_components = n_components

    def fit(self, x: Array, y: Array) -> Self:
        self.centre_, self.target_ = x.mean(axis=0), y.mean(axis=0)
        u, s, vt = np.linalg.svd(x - self.centre_, full_matrices=False)
        k = self.n_parts
        of_y = np.linalg.svd(y - self.target_, full_matrices=False)[0][:, :k]
        rotation = np.linalg.svd(u[:, :k].T @ of_y)[0][:, : self.n_components]
        scores = u[:, :k] @ rotation  # orthonormal, so that least squares is a product
        self.weights_ = (vt[:k].T / s[:k]) @ rotation @ (scores.T @ (y - self.target_))
        return self

    def predict(self, x: Array) -> Array:
        return self.target_ + (x - self.centre_) @ self.weights_


def fit_cca(x: Array, y: Array, folds: Folds, seed: int) -> Fitted:
    grid = {"n_parts": CCA_PARTS, "n_components": CCA_COMPONENTS}
    return fit_grid(CCA(), grid, x, y, folds)


def fit_neighbors(x: Array, y: Array, folds: Folds, seed: int) -> Fitted:
    from sklearn.neighbors import KNeighborsRegressor

    return fit_grid(KNeighborsRegressor(), {"n_neighbors": (5,)}, x, y, folds)


def fit_mlp(x: Array, y: Array, folds: Folds, seed: int) -> Fitted:
    from sklearn.neural_network import MLPRegressor

    settings: dict[str, Any] = {
        "hidden_layer_sizes": (512, 512),
        "alpha": 0.01,
        "early_stopping": True,
        "n_iter_no_change": 50,
        "max_iter": 500,
    }
    with warnings.catch_warnings():  # 500 passes are the budget
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit_fixed(MLPRegressor(**settings, random_state=seed), x, y, settings)


def fit_trees(x: Array, y: Array, folds: Folds, seed: int) -> Fitted:
    from sklearn.ensemble import ExtraTreesRegressor

    settings = {"n_estimators": 200, "max_features": 0.1}
    return fit_fixed(ExtraTreesRegressor(**settings, random_state=seed), x, y, settings)


class LinearFilter(BaseEstimator, RegressorMixin):
    """A sample of the target from the input's samples around it, by the same weights everywhere.

    Windows stand alone: beyond its ends, a window repeats its first and last sample.
    """

    def __init__(self, half_width: int = 64, alpha: float = 1.0, every: int = EVERY) -> None:
        self.half_width = half_width
        self.alpha = alpha
        self.every = every

    def _around(self, x: Array) -> Array:
        width = self.half_width
        padded = np.pad(x, ((0, 0), (width, width)), mode="edge")
        return np.lib.stride_tricks.sliding_window_view(padded, 2 * width + 1, axis=1)

    def fit(self, x: Array, y: Array) -> Self:
        inputs = self._around(x)[:, :: self.every].reshape(-1, 2 * self.half_width + 1)
        targets = y[:, :: self.every].ravel()
        centre, mean = inputs.mean(axis=0), targets.mean()
        covariance = (inputs - centre).T @ (inputs - centre) + self.alpha * np.eye(len(centre))
        self.weights_ = np.linalg.solve(covariance, (inputs - centre).T @ (targets - mean))
        self.intercept_ = mean - centre @ self.weights_
        return self

    def predict(self, x: Array) -> Array:
        return np.stack([row @ self.weights_ for row in self._around(x)]) + self.intercept_


def fit_filter(x: Array, y: Array, folds: Folds, seed: int) -> Fitted:
    """Choose the width; columns are not scaled apart, as weights are the same for all."""
    search = GridSearchCV(
        LinearFilter(),
        {"half_width": HALF_WIDTHS},
        cv=folds,
        scoring="neg_mean_squared_error",
    ).fit(x, y)
    return Fitted(search.predict, search.best_params_)


PEERS: dict[str, Peer] = {
    "pls": Peer("PLS", fit_pls),
    "cca": Peer("CCA", fit_cca),
    "ridge": Peer("ridge", fit_ridge),
    "filter": Peer("linear filter", fit_filter),
    "knn": Peer("5 nearest neighbours", fit_neighbors),
    "mlp": Peer("MLP", fit_mlp),
    "trees": Peer("extra-trees", fit_trees),
}
