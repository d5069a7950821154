"""Is the fitted model in good health? Warnings that say what to change."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Health", "PosteriorCollapseWarning", "examine", "warn_about"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ACTIVE_NATS = 0.01
_ENOUGH_RECORDS = 50
_CLUSTER_GAIN = 0.5  # nats per record by which a mixture beats one normal
_POWER_KEPT = 0.5


class PosteriorCollapseWarning(UserWarning):
    """The codes say nothing about the records: the decoder has learned to do without them."""


@dataclass(frozen=True, eq=False)
class Health:
    """What was measured on training records.

    Attributes
    ----------
    kl_per_dimension : ndarray of shape (D,) or None
        Nats, mean over records; None without a posterior.
    active_units : int
        Code entries with a KL above 0.01 nats; those that vary, without a posterior.
    high_frequency_power : float or None
        Power of reconstructions over that of targets in the upper half of the band; None if it
        says nothing (noisy targets, too short).
    cluster_gain : float or None
        Nats per record by which a mixture of normals describes the codes better than one normal.
    """

    kl_per_dimension: Array | None
    active_units: int
    high_frequency_power: float | None
    cluster_gain: float | None


def examine(
    mu: Array, kl: Array | None, target: Array | None, mask: Mask, reconstruction: Array
) -> Health:
    """Measure the health of a fit.

    Parameters
    ----------
    mu : ndarray of shape (N, D)
        Posterior means.
    kl : ndarray of shape (D,) or None
        Nats per code entry, mean over records; None without a posterior.
    target : ndarray of shape (N, W, F) or None
        What reconstructions should equal; None if that is not known (noisy signals alone).
    mask : bool ndarray of shape (N, W, F)
        Observed entries of the target.
    reconstruction : ndarray of shape (N, W, F)

    Returns
    -------
    Health
    """
    if kl is not None:
        active = int((kl > _ACTIVE_NATS).sum())
    else:
        active = int((mu.std(axis=0) > 1e-6).sum())
    power = None if target is None else _high_frequency_power(target, mask, reconstruction)
    return Health(kl, active, power, _cluster_gain(mu))


def warn_about(health: Health, kind: str, latent: str) -> None:
    """Warn about what is wrong, with the remedy.

    Parameters
    ----------
    health : Health
    kind : str
        The ``model`` parameter.
    latent : str
        "vector" or "map"; the steps of a map differ by their place, which is no defect.
    """
    level = _callers_level()
    if health.active_units == 0:
        remedy = "a smaller beta, free_bits=0.5, or a longer annealing_steps"
        if kind in ("ae", "vq"):
            remedy = "a larger learning_rate, or more epochs"
        warnings.warn(
            "The codes carry no information about the records (0 active units): every record is "
            f"reconstructed as the mean. Try {remedy}; with very noisy or very few records there "
            "may be nothing to learn.",
            PosteriorCollapseWarning,
            stacklevel=level,
        )
    if health.high_frequency_power is not None and health.high_frequency_power < _POWER_KEPT:
        warnings.warn(
            "Reconstructions hold only "
            f"{health.high_frequency_power:.0%} of the power in the upper half of the frequency "
            "band: fine detail is lost. Try a smaller beta, likelihood='laplace', "
            "spectral_weight=1, latent='map' or a larger latent_dim.",
            UserWarning,
            stacklevel=level,
        )
    gain = health.cluster_gain
    if not health.active_units or gain is None:
        return
    if kind == "vae" and latent == "vector" and gain > _CLUSTER_GAIN:
        warnings.warn(
            f"The codes form clusters (a mixture describes them {gain:.1f} nats per record better "
            "than one normal), so draws from the prior fall between them. Draw by "
            "sample(source='density'), or smooth the codes by noise_scale=0.1 or a larger beta.",
            UserWarning,
            stacklevel=level,
        )


def _callers_level() -> int:
    """Return the ``stacklevel``, seen from :func:`warn_about`, of the caller's own line."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _package(frame.f_globals) in ("tsvae", "sklearn"):
        frame, level = frame.f_back, level + 1
    return level


def _package(names: dict[str, Any]) -> str:
    return str(names.get("__name__", "")).split(".")[0]


def _high_frequency_power(target: Array, mask: Mask, reconstruction: Array) -> float | None:
    complete = mask.all(axis=(1, 2))
    if target.shape[1] < 16 or complete.sum() < 2:
        return None
    window = np.hanning(target.shape[1] + 2)[1:-1, None]

    def power(values: Array) -> float:
        centred = values - values.mean(axis=1, keepdims=True)
        spectrum = np.abs(np.fft.rfft(centred * window, axis=1)) ** 2
        return float(spectrum[:, spectrum.shape[1] // 2 :].sum())

    wanted = power(target[complete])
    return power(reconstruction[complete]) / wanted if wanted > 0.0 else None


def _cluster_gain(mu: Array) -> float | None:
    """Held-out gain of a mixture over one normal, in the codes' first principal directions."""
    if len(mu) < _ENOUGH_RECORDS:
        return None
    from sklearn.mixture import GaussianMixture

    centred = mu - mu.mean(axis=0)
    _, size, directions = np.linalg.svd(centred, full_matrices=False)
    # Equal codes differ by rounding, which has no shape.
    usable = size > 1e-6 * max(size[0], 1e-6 * float(np.linalg.norm(mu)), 1e-12)
    if not usable.any():
        return None
    inside = centred @ directions[usable][:3].T
    inside /= inside.std(axis=0)
    fit, held_out = inside[::2], inside[1::2]
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n_components in (1, 4):
            mixture = GaussianMixture(n_components, reg_covar=1e-3, random_state=0).fit(fit)
            scores.append(float(mixture.score(held_out)))
    return scores[1] - scores[0]
