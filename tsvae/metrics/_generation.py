"""Are generated series like real ones? Frechet distance and discriminative score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tsvae.metrics._containers import Float, as_float
from tsvae.metrics._series_statistics import series_statistics

Features = str | Callable[[Float], Any] | None


def frechet_distance(real: Any, generated: Any, *, features: Features = "statistics") -> float:
    r"""Squared Frechet distance between Gaussians fitted to the features of two sets of series.

    .. math:: |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^{1/2})

    with means and covariances of the features, as in the Frechet inception distance (FID).

    Parameters
    ----------
    real, generated : array-like of shape (n_series, n_steps, n_variables) or (n_series, n_steps)
        The sets; their sizes may differ. Nothing may be missing.
    features : "statistics", callable or None, default="statistics"
        What describes a series. ``"statistics"`` is :func:`series_statistics`, each in units of
        its standard deviation over the real series. A callable, such as the encoder of a model,
        takes a set as an array of shape (n_series, n_steps, n_variables) and returns one row per
        series. None takes the values themselves.

    Returns
    -------
    float
        At least 0, which is best.

    Raises
    ------
    ValueError
        If a set has fewer than 2 series, something is missing, or series of the two sets differ
        in shape.

    Notes
    -----
    Two samples of one distribution have a distance above 0, about in inverse proportion to their
    number: compare figures of equal sizes, and have more series than features. The trace of
    :math:`(S_1 S_2)^{1/2}` is the sum of singular values of :math:`A B'` with
    :math:`S_1 = A'A, S_2 = B'B`, which needs no matrix root and holds for singular covariances.

    References
    ----------
    D. C. Dowson and B. V. Landau (1982), The Frechet distance between multivariate normal
    distributions, J. Multivariate Analysis 12, 450-455.
    M. Heusel et al. (2017), GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium, NeurIPS, eq. 6.

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.metrics import frechet_distance
    >>> real = np.random.default_rng(0).normal(size=(200, 30))
    >>> frechet_distance(real, real)
    0.0
    >>> round(frechet_distance(real, real + 0.5, features=None), 6)  # 30 steps, 0.25 each
    7.5
    """
    first, second = _check_sets(real, generated)
    a, b = _describe(first, features, "real"), _describe(second, features, "generated")
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"features gave {a.shape[1]} numbers for a real series and {b.shape[1]} for a "
            "generated one."
        )
    if isinstance(features, str):
        a, b = _in_units_of_real(a, b)
    shift = a.mean(axis=0) - b.mean(axis=0)
    root_a, root_b = _root(a), _root(b)
    overlap = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    spread = (root_a**2).sum() + (root_b**2).sum() - 2 * overlap
    # Rounding leaves a few units of the last digit of the traces.
    floor = 1e-13 * ((root_a**2).sum() + (root_b**2).sum())
    return float(shift @ shift + (spread if spread > floor else 0.0))


def discriminative_score(
    real: Any,
    generated: Any,
    *,
    classifier: Any = None,
    features: Features = "statistics",
    cv: int = 5,
    random_state: int | np.random.RandomState | None = None,
) -> float:
    """Discriminative score: how far from chance a classifier tells real from generated.

    The distance of its accuracy from 1/2. Each series is judged by a classifier that was trained
    on the other folds.

    Parameters
    ----------
    real, generated : array-like of shape (n_series, n_steps, n_variables) or (n_series, n_steps)
        The sets. Nothing may be missing.
    classifier : scikit-learn classifier, default=None
        None is a random forest of 100 trees. TimeGAN trains a recurrent network on the values
        instead, so figures are comparable only under one classifier and one set of features.
    features : "statistics", callable or None, default="statistics"
        As in :func:`frechet_distance`, not rescaled.
    cv : int, default=5
        Number of folds.
    random_state : int, RandomState or None, default=None
        Seed of the folds and of the default classifier.

    Returns
    -------
    float
        From 0, where the sets cannot be told apart, to 0.5. The accuracy is the mean of those on
        the real and on the generated series, so the sets may differ in size.

    Raises
    ------
    ValueError
        As in :func:`frechet_distance`; also if a set has fewer series than there are folds.

    Notes
    -----
    Sets of n series each that are alike score about ``0.28 / sqrt(n)`` by chance.

    References
    ----------
    J. Yoon, D. Jarrett and M. van der Schaar (2019), Time-series generative adversarial networks,
    NeurIPS, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.metrics import discriminative_score
    >>> rng = np.random.default_rng(0)
    >>> noise, walks = rng.normal(size=(50, 30)), rng.normal(size=(50, 30)).cumsum(axis=1)
    >>> discriminative_score(noise, walks, random_state=0)
    0.48
    """
    from sklearn.base import clone
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.utils import check_random_state

    first, second = _check_sets(real, generated)
    if not 2 <= cv <= min(len(first), len(second)):
        raise ValueError(
            f"cv must be from 2 to the size of the smaller set; got {cv!r} for "
            f"{len(first)} real and {len(second)} generated series."
        )
    x = np.concatenate(
        [_describe(first, features, "real"), _describe(second, features, "generated")]
    )
    y = np.repeat([1, 0], [len(first), len(second)])
    rng = check_random_state(random_state)
    folds = StratifiedKFold(cv, shuffle=True, random_state=rng.randint(2**31 - 1))
    if classifier is None:
        classifier = RandomForestClassifier(
            class_weight="balanced", random_state=rng.randint(2**31 - 1)
        )
    told = cross_val_predict(clone(classifier), x, y, cv=folds)
    return abs(float(balanced_accuracy_score(y, told)) - 0.5)


def _check_sets(real: Any, generated: Any) -> tuple[Float, Float]:
    """Both sets as arrays (B, T, F)."""
    sets = []
    for name, given in (("real", real), ("generated", generated)):
        values = as_float(given, name)
        values = values[..., None] if values.ndim == 2 else values
        if values.ndim != 3 or len(values) < 2 or 0 in values.shape:
            raise ValueError(
                f"{name} must have shape (n_series, n_steps, n_variables) or (n_series, n_steps) "
                f"with at least 2 series; got {np.shape(given)}."
            )
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0, 0])
            raise ValueError(
                f"{name} is missing or not finite in series {row}; impute it, or leave it out."
            )
        sets.append(values)
    if sets[0].shape[1:] != sets[1].shape[1:]:
        raise ValueError(
            "real and generated must have the same steps and variables; got series of shape "
            f"{sets[0].shape[1:]} and {sets[1].shape[1:]}."
        )
    return sets[0], sets[1]


def _describe(series: Float, features: Features, name: str) -> Float:
    """Features of a set, (B, M)."""
    if features is None:
        return series.reshape(len(series), -1)
    if isinstance(features, str):
        if features != "statistics":
            raise ValueError(
                f"features must be 'statistics', a callable or None; got {features!r}."
            )
        return series_statistics(series)
    found = as_float(features(series), "features")
    found = found.reshape(len(found), -1) if found.ndim > 1 else found[:, None]
    if len(found) != len(series) or not np.isfinite(found).all():
        raise ValueError(
            f"features must return one row of finite numbers for each of the {len(series)} series "
            f"of `{name}`; got shape {found.shape}."
        )
    return found


def _in_units_of_real(real: Float, generated: Float) -> tuple[Float, Float]:
    """Standardise by the real series; what is constant there keeps its own unit."""
    centre, scale = real.mean(axis=0), real.std(axis=0)
    rounding = 1e-12 * np.maximum(np.abs(centre), 1.0)
    scale = np.where(scale > rounding, scale, 1.0)
    return (real - centre) / scale, (generated - centre) / scale


def _root(features: Float) -> Float:
    """Upper triangular R with R'R the covariance of the features (B, M)."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    factor: Float = np.linalg.qr(centred, mode="r")  # type: ignore[assignment]
    return factor
