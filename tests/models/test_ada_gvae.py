"""Ada-GVAE: averaging by hand, the loss of two views, pairs in batches."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tsvae.models import VAE, AdaGVAE
from tsvae.models.ada_gvae import share_posteriors
from tsvae.models.outputs import Posterior
from tsvae.nn import MLPDecoder, MLPEncoder
from tsvae.training import TrainingConfig, train


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def make(kind=AdaGVAE, **options):
    encoder = MLPEncoder(options.pop("channels", 1), 6, (8,))
    model = kind(encoder.double(), MLPDecoder(3, 6, 1, (8,)).double(), latent_dim=3, **options)
    model.build(draws(2, 6, 1))
    with torch.no_grad():  # posteriors with variances of their own
        model.log_var_head.weight.copy_(0.3 * draws(*model.log_var_head.weight.shape, seed=9))
    return model


def test_averaging_equals_a_hand_calculation():
    mu1, mu2 = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[1.0, 1.5, -2.0]])
    var1, var2 = torch.tensor([[1.0, 0.5, 1.0]]), torch.tensor([[2.0, 0.25, 1.0]])
    # KL(N(m1, v1) || N(m2, v2)) = (v1 / v2 + (m1 - m2)^2 / v2 - 1 - log(v1 / v2)) / 2
    by_hand = [
        (0.5 + 0.5 - 1 + math.log(2)) / 2,
        (2.0 + 1.0 - 1 - math.log(2)) / 2,
        (1.0 + 16.0 - 1 - 0.0) / 2,
    ]
    tau = (max(by_hand) + min(by_hand)) / 2
    assert [kl < tau for kl in by_hand] == [True, True, False]
    result = share_posteriors(Posterior(mu1, var1.log()), Posterior(mu2, var2.log()))
    assert result.shared.tolist() == [[True, True, False]]
    torch.testing.assert_close(result.first.mu, torch.tensor([[0.5, 1.25, 2.0]]))
    torch.testing.assert_close(result.second.mu, torch.tensor([[0.5, 1.25, -2.0]]))
    torch.testing.assert_close(result.first.log_var.exp(), torch.tensor([[1.5, 0.375, 1.0]]))
    torch.testing.assert_close(result.second.log_var.exp(), torch.tensor([[1.5, 0.375, 1.0]]))


def test_threshold_is_per_pair_and_over_the_whole_map():
    first = Posterior(draws(5, 4, 3), 0.5 * draws(5, 4, 3, seed=1))
    second = Posterior(draws(5, 4, 3, seed=2), 0.5 * draws(5, 4, 3, seed=3))
    result = share_posteriors(first, second)
    laws = [Normal(p.mu, (0.5 * p.log_var).exp()) for p in (first, second)]
    kl = kl_divergence(*laws).flatten(1)
    tau = (kl.max(1).values + kl.min(1).values) / 2
    assert torch.equal(result.shared, (kl < tau[:, None]).reshape(5, 4, 3))
    assert 0 < int(result.shared.sum()) < result.shared.numel()


def test_equal_views_keep_their_posterior():
    posterior = Posterior(draws(2, 3), draws(2, 3, seed=1))
    result = share_posteriors(posterior, posterior)
    torch.testing.assert_close(result.first, posterior)


def test_loss_is_the_mean_of_two_elbos():
    model = make(scale="fixed").eval()
    x1, x2 = draws(4, 6, 1), draws(4, 6, 1, seed=1)
    output = model(x1, x2)
    result = model.compute_loss(x1, x2, output, beta=2.0)
    elbos = []
    for x, view in ((x1, output.output1), (x2, output.output2)):
        log_prob = Normal(view.x_hat[:, 0], 1.0).log_prob(x).sum((1, 2))
        law = Normal(view.mu[:, 0], (0.5 * view.log_var[:, 0]).exp())
        kl = kl_divergence(law, Normal(torch.zeros(()).double(), 1.0)).sum(1)
        elbos.append((log_prob.mean(), kl.mean()))
    loss = sum(2.0 * kl - log_prob for log_prob, kl in elbos) / 2
    torch.testing.assert_close(result.objective, loss / 6)
    for name, (log_prob, kl) in zip(("x1", "x2"), elbos, strict=True):
        torch.testing.assert_close(result.diagnostics[f"log_likelihood_{name}"], log_prob.detach())
        torch.testing.assert_close(result.diagnostics[f"kl_divergence_{name}"], kl.detach())
    mean = sum(kl.detach() for _, kl in elbos) / 2
    torch.testing.assert_close(result.diagnostics["kl_divergence"], mean)
    shared = output.shared.sum(1).double().mean()
    assert float(result.diagnostics["shared"]) == pytest.approx(float(shared))


def test_gradients_reach_both_encodings_through_the_average():
    model = make()
    x1, x2 = draws(4, 6, 1), draws(4, 6, 1, seed=1)
    x1.requires_grad_(), x2.requires_grad_()
    output = model(x1, x2)
    output.output1.mu.sum().backward()
    assert (x2.grad.abs().flatten(1).sum(1) > 0).all()
    assert torch.isfinite(x1.grad).all()


def test_missing_entries_of_either_view_change_nothing():
    model = make(mask_input=True, channels=2).eval()
    batch = {"x": draws(4, 6, 1), "x_pair": draws(4, 6, 1, seed=1)}
    for i, name in enumerate(("mask", "mask_pair")):
        batch[name] = torch.rand(4, 6, 1, generator=generator(i)) > 0.3
    reference = model.training_step(batch, 0)
    poisoned = dict(batch)
    for name, mask in (("x", "mask"), ("x_pair", "mask_pair")):
        poisoned[name] = torch.where(batch[mask], batch[name], torch.nan)
    result = model.training_step(poisoned, 0)
    assert torch.isfinite(result.objective)
    assert torch.equal(result.objective, reference.objective)
    complete = {name: batch[name] for name in ("x", "x_pair", "mask")}
    assert not torch.equal(model.training_step(complete, 0).objective, reference.objective)


def test_single_records_are_encoded_as_by_a_plain_vae():
    model, plain = make().eval(), make(VAE).eval()
    plain.load_state_dict(model.state_dict())
    x = draws(4, 6, 1)
    assert torch.equal(model.encode(x).z, plain.encode(x).z)
    bounds = (m.importance_weighted_bound(x, 5) for m in (model, plain))
    torch.testing.assert_close(*bounds)


def test_trains_on_pairs():
    model = make(annealing_steps=10, generator=generator(3))
    x1 = draws(40, 6, 1).cumsum(1)
    batch = {"x": x1, "x_pair": x1 + torch.tensor([1.0, 0, 0, 0, 0, 0]).double()[:, None]}
    log = train(
        model,
        lambda epoch, random: [batch],
        config=TrainingConfig(max_epochs=30, learning_rate=0.02, device="cpu"),
        generator=generator(),
    )
    assert log.rows[-1]["log_likelihood_x2"] > log.rows[0]["log_likelihood_x2"]
    assert torch.isfinite(model(x1, batch["x_pair"]).output1.x_hat).all()


def test_errors():
    x = draws(2, 6, 1)
    unbuilt = AdaGVAE(MLPEncoder(1, 6, (8,)), MLPDecoder(3, 6, 1, (8,)), latent_dim=3)
    with pytest.raises(RuntimeError, match=r"build\(sample\)"):
        unbuilt(x, x)
    with pytest.raises(KeyError, match="x_pair"):
        make().training_step({"x": x}, 0)
    with pytest.raises(ValueError, match="one shape"):
        make()(x, x[:1])


def test_same_generator_same_draws_and_pickling():
    x1, x2 = draws(3, 6, 1), draws(3, 6, 1, seed=1)
    one, other = (make(generator=generator(4)) for _ in range(2))
    copy = pickle.loads(pickle.dumps(one))
    results = [m(x1, x2, S=2).output1.z for m in (one, other, copy)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert not torch.equal(one(x1, x2, S=2).output1.z, results[0])
