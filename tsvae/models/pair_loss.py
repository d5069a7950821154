"""Loss of a pair of models: reconstructions, divergences, and what joins their codes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from tsvae.models.barlow import barlow_twins_loss
from tsvae.models.gaussians import gaussian_kl
from tsvae.models.observation import ObservationModel
from tsvae.models.outputs import ForwardResult
from tsvae.models.pair_parts import PairForward
from tsvae.training import LossResult

if TYPE_CHECKING:
    from tsvae.models.pair import PairVAE

__all__ = ["SideRecords", "pair_loss"]


class SideRecords(NamedTuple):
    """What the loss compares reconstructions of one side with.

    Parameters
    ----------
    values : Tensor of shape (B, T, F)
    mask : Tensor of bool of shape (B, T, F) or None
    weight : Tensor broadcastable to (B, T, F) or None
    """

    values: Tensor
    mask: Tensor | None
    weight: Tensor | None


def pair_loss(
    model: PairVAE,
    first: SideRecords,
    second: SideRecords,
    output: PairForward,
    beta: float,
) -> LossResult:
    """Weighted reconstructions, divergences and joining terms; see ``PairVAE.compute_loss``."""
    loss, diagnostics = _reconstructions(model, first, second, output)
    a, b = first.values, second.values
    diagnostics["beta"] = a.new_tensor(beta)
    for name, x, result in (("a", a, output.a), ("b", b, output.b)):
        if len(x):
            rate = diagnostics[f"kl_divergence_{name}"] = _rate_of(result)
            loss = loss + beta * rate / math.prod(x.shape[1:])
    loss = loss + _joining(model, output, diagnostics)
    detached = {name: value.detach() for name, value in diagnostics.items()}
    detached["weight"] = a.new_tensor(float(max(len(a), len(b))))
    return LossResult(loss, detached)


def _reconstructions(
    model: PairVAE, first: SideRecords, second: SideRecords, output: PairForward
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the four, per value; each in the diagnostics, per record."""
    terms = (
        ("a_from_a", model.a.observation, first, output.a.x_hat),
        ("b_from_b", model.b.observation, second, output.b.x_hat),
        ("b_from_a", model.across_b, second, output.b_from_a),
        ("a_from_b", model.across_a, first, output.a_from_b),
    )
    loss, diagnostics = first.values.new_zeros(()), {}
    for weight, (name, law, records, x_hat) in zip(model.weights, terms, strict=True):
        if len(x_hat):
            value = diagnostics[f"log_likelihood_{name}"] = _log_likelihood(law, records, x_hat)
            loss = loss - weight * value / math.prod(x_hat.shape[-2:])
    return loss, diagnostics


def _joining(model: PairVAE, output: PairForward, diagnostics: dict[str, Tensor]) -> Tensor | float:
    """Weighted terms that join the codes of both sides, noted in the diagnostics."""
    loss: Tensor | float = 0.0
    n_pairs = len(output.b_from_a)
    if n_pairs > 1 and model.barlow_weight:
        diagnostics["barlow_twins"] = _barlow(model, output, n_pairs)
        loss = loss + model.barlow_weight * diagnostics["barlow_twins"]
    for name, result, again in (
        ("a", output.a, output.a_again),
        ("b", output.b, output.b_again),
    ):
        if again is not None:
            error = diagnostics[f"cycle_{name}"] = _round_trip_error(result, again)
            loss = loss + model.cycle_weight * error
    return loss


def _barlow(model: PairVAE, output: PairForward, n_pairs: int) -> Tensor:
    """Barlow Twins loss of paired means, divided by their size; a map's steps are samples."""
    codes = [r.mu[:n_pairs, 0].reshape(-1, model.latent_dim) for r in (output.a, output.b)]
    if model.projector is not None:
        codes = [model.projector(z) for z in codes]
    return barlow_twins_loss(codes[0], codes[1], model.barlow_lambda) / codes[0].shape[1]


def _log_likelihood(law: ObservationModel, data: SideRecords, x_hat: Tensor) -> Tensor:
    """Mean over records and codes of the weighted log-likelihood, in nats per record."""
    n = len(x_hat)
    x, mask, weight = data
    log_prob = law.log_prob(x[:n], x_hat, None if mask is None else mask[:n])
    if weight is not None:
        log_prob = log_prob * weight.expand_as(x)[:n].unsqueeze(1)
    return log_prob.sum(dim=(-2, -1)).mean()


def _rate_of(result: ForwardResult) -> Tensor:
    """KL of a side's posteriors from the prior, mean over records, in nats."""
    assert result.log_var is not None  # both sides are variational
    return gaussian_kl(result.mu[:, 0], result.log_var[:, 0]).flatten(1).sum(1).mean()


def _round_trip_error(result: ForwardResult, again: Tensor) -> Tensor:
    """Mean squared difference between codes of unpaired samples and those that came back."""
    sent = result.z[len(result.z) - len(again) :].detach()
    return ((again - sent) ** 2).mean()
