"""The observation model against torch.distributions; its three kinds of scale."""

from __future__ import annotations

import pytest
import torch
from torch import distributions

from tsvae.models.observation import ObservationModel, family_likelihood
from tsvae.nn import get_likelihood

GENERATOR = torch.Generator().manual_seed(5)


def draw(*shape):
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


X_HAT = draw(4, 3, 6, 2)
SCALE = torch.tensor([0.7, 2.0], dtype=torch.float64)


def reference(name, x_hat, scale):
    return {
        "gaussian": lambda: distributions.Normal(x_hat, scale),
        "laplace": lambda: distributions.Laplace(x_hat, scale),
        "student-t": lambda: distributions.StudentT(10.0, x_hat, scale),
        "bernoulli": lambda: distributions.Bernoulli(logits=x_hat, validate_args=False),
        "poisson": lambda: distributions.Poisson(torch.exp(x_hat)),
    }[name]()


def values(name, shape):
    x = draw(*shape)
    if name == "bernoulli":
        return (x > 0).double()
    return torch.round(x.abs() * 2) if name == "poisson" else x


NAMES = ["gaussian", "laplace", "student-t", "bernoulli", "poisson"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", ["learned", "fixed"])
def test_log_densities_and_means_are_those_of_torch(name, scale):
    model = ObservationModel(2, name, scale=scale, initial_scale=SCALE).double()
    x = values(name, (4, 6, 2))
    law = reference(name, X_HAT, SCALE)
    torch.testing.assert_close(
        model.log_prob(x, X_HAT), law.log_prob(x.unsqueeze(1)), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(model.mean(X_HAT), law.mean.expand(X_HAT.shape))


@pytest.mark.parametrize("name", NAMES)
def test_another_likelihood_may_be_asked_for(name):
    model = ObservationModel(2, "gaussian", scale="fixed", initial_scale=SCALE).double()
    x = values(name, (4, 6, 2))
    expected = reference(name, X_HAT, SCALE).log_prob(x.unsqueeze(1))
    torch.testing.assert_close(
        model.log_prob(x, X_HAT, likelihood=name), expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("scale", ["learned", "fixed", "calibrated"])
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e30])
def test_what_is_masked_reaches_nothing(scale, junk):
    x, mask = draw(4, 6, 2), draw(4, 6, 2) > 0
    results = []
    for filling in (0.0, junk):
        model = ObservationModel(2, scale=scale).double()
        x_hat = X_HAT.clone().requires_grad_()
        filled = torch.where(mask, x, torch.full_like(x, filling))
        log_prob = model.log_prob(filled, x_hat, mask)
        assert bool((log_prob[~mask.unsqueeze(1).expand(log_prob.shape)] == 0).all())
        log_prob.sum().backward()
        results.append((log_prob, x_hat.grad, *(p.grad for p in model.parameters())))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
        assert torch.isfinite(one).all()


@pytest.mark.parametrize(("name", "power"), [("gaussian", 2), ("laplace", 1)])
def test_the_calibrated_scale_is_the_best_one(name, power):
    model = ObservationModel(2, name, scale="calibrated").double()
    x, mask = draw(4, 6, 2), draw(4, 6, 2) > -0.5
    size = (x.unsqueeze(1) - X_HAT).abs() ** power
    seen = mask.unsqueeze(1).expand(size.shape)
    best = torch.stack([size[..., f][seen[..., f]].mean() ** (1 / power) for f in range(2)])
    at_best = model.log_prob(x, X_HAT, mask).sum()
    expected = reference(name, X_HAT, best).log_prob(x.unsqueeze(1))[seen].sum()
    torch.testing.assert_close(at_best, expected)
    for factor in (0.9, 1.1):
        worse = reference(name, X_HAT, factor * best).log_prob(x.unsqueeze(1))[seen].sum()
        assert float(worse) < float(at_best)
    # The first batch's scale is taken as it is, and eval mode uses it.
    torch.testing.assert_close(model.eval().log_prob(x, X_HAT, mask).sum(), at_best)


def test_the_running_scale_follows_slowly_and_gradients_see_a_constant():
    model = ObservationModel(1, scale="calibrated").double()
    x_hat = torch.zeros(1, 1, 2, 1, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[[3.0], [1.0]]], dtype=torch.float64)
    model.log_prob(x, x_hat).sum().backward()
    # d/dm sum -(x - m)^2 / (2 s^2) = (x - m) / s^2 with s^2 = 5
    torch.testing.assert_close(x_hat.grad.flatten(), torch.tensor([0.6, 0.2]).double())
    before = model.raw_scale.clone()
    model.log_prob(10 * x, x_hat)
    model.eval()
    moved = (model.raw_scale - before) / (50**0.5 - 5**0.5)
    assert 0.0 < float(moved) < 0.5
    state = model.raw_scale.clone()
    model.log_prob(x, x_hat)
    assert torch.equal(model.raw_scale, state)


def test_a_perfect_fit_and_an_unseen_feature_stay_finite():
    model = ObservationModel(2, scale="calibrated")
    x = torch.zeros(3, 4, 2)
    mask = torch.tensor([True, False]).expand(3, 4, 2)
    log_prob = model.log_prob(x, x.unsqueeze(1), mask)
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(model.raw_scale).all()


def test_names_and_errors():
    assert family_likelihood("gaussian", min_scale=0.1).min_scale == 0.1
    assert family_likelihood("student-t").name == "student_t"
    given = get_likelihood("laplace")
    assert family_likelihood(given) is given
    with pytest.raises(ValueError, match="likelihood='cauchy' is not known"):
        ObservationModel(1, "cauchy")
    with pytest.raises(ValueError, match="scale must be 'learned', 'fixed' or 'calibrated'"):
        ObservationModel(1, scale="network")
    with pytest.raises(ValueError, match=r"closed form .* use scale='learned'"):
        ObservationModel(1, "student-t", scale="calibrated")
    with pytest.raises(ValueError, match="initial_scale must be positive"):
        ObservationModel(1, initial_scale=-1.0)
    ObservationModel(1, "bernoulli", scale="calibrated")  # has no scale: nothing to calibrate
