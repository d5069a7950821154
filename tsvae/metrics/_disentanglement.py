"""Does each factor of the data have a code of its own? MIG and SAP."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._containers import Float
from tsvae.metrics._factor_data import Circular, Discrete, Factor, FactorData, check_factor_data
from tsvae.metrics._validation import MultiOutput, average_outputs

_STRATEGIES = ("quantile", "uniform")
_TINY_VARIANCE = 1e-12  # relative to the squared size of a code: below, it is a constant


def mutual_information_gap(
    codes: Any,
    factors: Any,
    *,
    n_bins: int = 20,
    strategy: str = "quantile",
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Mutual information gap (MIG): the lead of the best code over the second best.

    For each factor v, the two largest mutual informations I(z_d; v) over codes d, their
    difference divided by the entropy H(v).

    Parameters
    ----------
    codes : array-like of shape (n_records, n_codes)
        Codes, such as the posterior means of a VAE. If codes and factors are both frames, rows
        are matched by label.
    factors : array-like of shape (n_records, n_factors)
        Known factors: numbers, or names (of groups, say) in columns of a frame.
    n_bins : int, default=20
        Number of bins of each code, and of each numeric factor with more distinct values.
    strategy : {"quantile", "uniform"}, default="quantile"
        Bins of equal counts, which makes the score independent of any increasing map of a code
        or factor, or of equal widths, as in disentanglement_lib.
    multioutput : {"uniform_average", "raw_values"} or array-like of shape (n_factors,)
        How factors are combined.

    Returns
    -------
    float or ndarray of shape (n_factors,)
        From 0 (no code stands out) to 1 (one code knows the factor, no other does).

    Raises
    ------
    ValueError
        If shapes differ, something is missing, or a factor is constant.

    Notes
    -----
    Mutual informations of independent variables come out as about ``n_bins**2 / (2 n_records)``
    nats rather than 0, so that perfect codes stay as much below 1 (times ``1 / log(n_bins)``):
    use some thousand records for 20 bins. A circular factor needs no care in the bins, but
    where two codes share the circle, neither leads.

    References
    ----------
    R. T. Q. Chen, X. Li, R. Grosse and D. Duvenaud (2018), Isolating sources of disentanglement
    in VAEs, NeurIPS, eq. 6.
    F. Locatello et al. (2019), Challenging common assumptions in the unsupervised learning of
    disentangled representations, ICML, appendix C (the estimate by bins).

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.metrics import mutual_information_gap
    >>> factors = np.random.default_rng(0).normal(size=(5000, 2))
    >>> mutual_information_gap(factors**3, factors)  # bins know the order, not the scale
    0.98...
    >>> turned = factors @ np.array([[1.0, 1.0], [1.0, -1.0]])
    >>> round(mutual_information_gap(turned, factors), 1)
    0.0
    """
    if isinstance(n_bins, bool) or not isinstance(n_bins, int | np.integer) or n_bins < 2:
        raise ValueError(f"n_bins must be an integer of at least 2; got {n_bins!r}.")
    if strategy not in _STRATEGIES:
        raise ValueError(f"strategy must be one of {_STRATEGIES}; got {strategy!r}.")
    data = check_factor_data(codes, factors)
    binned = [_bin(code, n_bins, strategy) for code in data.codes.T]
    raw = np.empty(len(data.factors))
    for k, factor in enumerate(data.factors):
        labels = factor.labels
        if factor.values is not None:
            labels = _bin(factor.values, n_bins, strategy)
        information = np.array([_mutual_information(code, labels) for code in binned])
        raw[k] = _gap(information) / _entropy(np.bincount(labels))
    return average_outputs(raw, multioutput)


def separated_attribute_predictability(
    codes: Any,
    factors: Any,
    *,
    discrete: Discrete = (),
    circular: Circular = None,
    test_size: float = 0.3,
    random_state: int | np.random.RandomState | None = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Separated attribute predictability (SAP): the lead of the code that predicts best.

    Each factor is predicted from each code alone. The score is the difference of the two best
    codes: of the squared correlation for a number, of the accuracy on held-out records of a
    linear classifier for a discrete factor.

    Parameters
    ----------
    codes, factors : array-like
        As in :func:`mutual_information_gap`.
    discrete : sequence of factor names or positions, default=()
        Numeric factors that are names of groups. Boolean and non-numeric ones always are.
    circular : mapping of factor to the length of a full turn, optional
        Factors that live on a circle, such as ``{"phase": 2 * numpy.pi}``: their cosine and sine
        are predicted. One code cannot have both, so the score stays well below 1.
    test_size : float, default=0.3
        Share of the records that the accuracy is measured on.
    random_state : int, RandomState or None, default=None
        Which records those are; without discrete factors nothing is random.
    multioutput : {"uniform_average", "raw_values"} or array-like of shape (n_factors,)
        How factors are combined.

    Returns
    -------
    float or ndarray of shape (n_factors,)
        From 0 to 1, which is best.

    Raises
    ------
    ValueError
        As in :func:`mutual_information_gap`.
    KeyError
        If `discrete` or `circular` names a factor that does not exist.

    References
    ----------
    A. Kumar, P. Sattigeri and A. Balakrishnan (2018), Variational inference of disentangled
    latent concepts from unlabeled observations, ICLR, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.metrics import separated_attribute_predictability
    >>> factors = np.random.default_rng(0).normal(size=(1000, 2))
    >>> separated_attribute_predictability(-3 * factors, factors)
    0.99...
    """
    data = check_factor_data(codes, factors, discrete=discrete, circular=circular)
    raw = np.empty(len(data.factors))
    for k, factor in enumerate(data.factors):
        if factor.targets is None:
            raw[k] = _gap(_accuracies(data, factor, test_size, random_state))
        else:
            raw[k] = _gap(_squared_correlations(data.codes, factor.targets))
    return average_outputs(raw, multioutput)


def _gap(scores: Float) -> float:
    """Largest less second largest; less zero where there is one code alone."""
    ranked = np.sort(scores)
    return float(ranked[-1] - (ranked[-2] if len(ranked) > 1 else 0.0))


def _bin(values: Float, n_bins: int, strategy: str) -> NDArray[np.intp]:
    distinct, labels = np.unique(values, return_inverse=True)
    if len(distinct) <= n_bins:
        return labels
    if strategy == "uniform":
        edges = np.linspace(distinct[0], distinct[-1], n_bins + 1)[1:-1]
    else:  # edges are values themselves, so an increasing map moves both alike
        levels = np.arange(1, n_bins) / n_bins
        edges = np.unique(np.quantile(values, levels, method="higher"))
    return np.searchsorted(edges, values, side="right")


def _entropy(counts: NDArray[Any]) -> float:
    """Entropy in nats of a histogram."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def _mutual_information(first: NDArray[np.intp], second: NDArray[np.intp]) -> float:
    """I = H(first) + H(second) - H(both), in nats."""
    both = first * (second.max() + 1) + second
    counts = [np.bincount(labels) for labels in (first, second, both)]
    return _entropy(counts[0]) + _entropy(counts[1]) - _entropy(counts[2])


def _squared_correlations(codes: Float, targets: Float) -> Float:
    """Share of the targets' variance (N, C) that is linear in each code (N, D)."""
    centred, wanted = codes - codes.mean(axis=0), targets - targets.mean(axis=0)
    variance = (centred**2).mean(axis=0)
    alive = variance > _TINY_VARIANCE * np.maximum((codes**2).mean(axis=0), 1e-300)
    covariance = wanted.T @ centred / len(codes)
    explained = (covariance**2).sum(axis=0) / np.where(alive, variance, 1.0)
    return np.where(alive, explained / (wanted**2).mean(axis=0).sum(), 0.0)


def _accuracies(
    data: FactorData,
    factor: Factor,
    test_size: float,
    random_state: int | np.random.RandomState | None,
) -> Float:
    """Held-out balanced accuracy of a linear classifier on each code alone."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    train, test, y_train, y_test = train_test_split(
        data.codes, factor.labels, test_size=test_size, random_state=random_state
    )
    _check_classes(factor, y_train)
    accuracies = np.empty(data.codes.shape[1])
    for d in range(len(accuracies)):
        model = make_pipeline(
            StandardScaler(), LinearSVC(C=0.01, class_weight="balanced", random_state=0)
        ).fit(train[:, [d]], y_train)
        accuracies[d] = balanced_accuracy_score(y_test, model.predict(test[:, [d]]))
    return accuracies


def _check_classes(factor: Factor, train_labels: NDArray[np.intp]) -> None:
    counts = np.bincount(factor.labels)
    if counts.min() < 4 or len(np.unique(train_labels)) < len(counts):
        raise ValueError(
            f"The discrete factor {factor.name!r} has a value with only {counts.min()} records; "
            "each needs a few for training and for testing. If the factor is a quantity, leave it "
            "out of `discrete`."
        )
