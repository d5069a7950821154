"""The spectral penalty and the divergence of each channel, against slow oracles."""

from __future__ import annotations

import cmath
import math

import pytest
import torch

from tsvae import VAEDenoiser
from tsvae._records.building import build_model
from tsvae._records.design import design_model
from tsvae.models import (
    VAE,
    VQVAE,
    AdaGVAE,
    Autoencoder,
    ConditionalVAE,
    ConditionEmbedding,
    HierarchicalVAE,
)
from tsvae.models.gaussians import gaussian_kl
from tsvae.models.hierarchical_outputs import level_kl
from tsvae.models.spectral import spectral_difference
from tsvae.nn import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder

B, S, T, F, D = 3, 2, 7, 2, 4


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def slow_amplitudes(values):
    """Moduli of the orthonormal discrete Fourier transform, term by term."""
    n = len(values)
    return [
        abs(sum(v * cmath.exp(-2j * math.pi * k * t / n) for t, v in enumerate(values)))
        / math.sqrt(n)
        for k in range(n)
    ]


def slow_difference(x, x_hat, mask, scale):
    result = torch.zeros(x_hat.shape[:2], dtype=torch.float64)
    for b, s in ((b, s) for b in range(len(x)) for s in range(x_hat.shape[1])):
        for f in range(x.shape[2]):
            said = x_hat[b, s, :, f].tolist()
            wanted = [
                float(x[b, t, f]) if bool(mask[b, t, f]) else said[t] for t in range(len(said))
            ]
            pairs = zip(slow_amplitudes(wanted), slow_amplitudes(said), strict=True)
            result[b, s] += sum(abs(one - other) for one, other in pairs) / float(scale[f])
    return result


@pytest.mark.parametrize("steps", [1, 2, 7, 8])
def test_against_the_transform_term_by_term(steps):
    x, x_hat = draw(B, steps, F), draw(B, S, steps, F, seed=1)
    mask, scale = draw(B, steps, F, seed=2) > -0.5, torch.tensor([0.5, 2.0], dtype=torch.float64)
    found = spectral_difference(x, x_hat, mask, scale)
    torch.testing.assert_close(found, slow_difference(x, x_hat, mask, scale))
    everything = spectral_difference(x, x_hat)
    ones = torch.ones_like(mask), torch.ones(F)
    torch.testing.assert_close(everything, slow_difference(x, x_hat, *ones))


def test_what_is_not_asked_for_may_hold_anything():
    x, x_hat = draw(B, T, F), draw(B, S, T, F, seed=1).requires_grad_()
    mask = draw(B, T, F, seed=2) > 0.0
    mask[0] = False
    expected = spectral_difference(x, x_hat, mask)
    (gradient,) = torch.autograd.grad(expected.sum(), x_hat)
    for anything in (math.nan, math.inf, 1e30):
        found = spectral_difference(torch.where(mask, x, anything), x_hat, mask)
        assert torch.equal(found, expected)
        (same,) = torch.autograd.grad(found.sum(), x_hat)
        assert torch.equal(same, gradient)
    assert bool((expected[0] == 0.0).all()) and bool((gradient[0] == 0.0).all())
    assert bool((expected[1:] > 0.0).all()) and bool((gradient[1:] != 0.0).any())


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_gradient_is_finite_where_amplitudes_vanish(value):
    x = torch.zeros(1, 8, 1)
    x_hat = torch.full((1, 1, 8, 1), value, requires_grad=True)
    spectral_difference(x, x_hat).sum().backward()
    assert bool(torch.isfinite(x_hat.grad).all())


def test_the_gradient_against_finite_differences():
    x, x_hat = draw(B, T, F), draw(B, S, T, F, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: spectral_difference(x, y), (x_hat,))


def test_a_residual_of_the_size_of_the_scale_costs_about_a_nat_per_value():
    noise = 0.05 * draw(50, 256, 1)
    silent = torch.zeros(50, 1, 256, 1, dtype=torch.float64)
    cost = spectral_difference(noise, silent, scale=torch.tensor([0.05])).mean() / 256
    assert float(cost) == pytest.approx(math.sqrt(math.pi) / 2, rel=0.03)  # mean Rayleigh modulus


def parts():
    return ConvEncoder(F, (6, 8)), ConvDecoder(D, F, T, (8, 6), latent="map")


def vae(**options):
    return VAE(*parts(), D, latent="map", **options)


def conditional(**options):
    networks = MLPEncoder(F + 1, T, (6,)), MLPDecoder(D + 1, T, F, (6,))
    return ConditionalVAE(*networks, D, ConditionEmbedding(1), **options)


KINDS = {
    "ae": lambda **o: Autoencoder(*parts(), D, latent="map", **o),
    "vae": vae,
    "iwae": lambda **o: vae(objective="iwae", **o),
    "bernoulli": lambda **o: vae(likelihood="bernoulli", **o),
    "conditional": conditional,
    "ada": lambda **o: AdaGVAE(*parts(), D, latent="map", **o),
    "hierarchical": lambda **o: HierarchicalVAE.convolutional(F, T, D, hidden_sizes=(6, 8), **o),
    "vq": lambda **o: VQVAE(*parts(), D, n_codes=5, **o),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_adds_it_to_its_loss(kind):
    x = draw(B, T, F).float()
    if kind == "bernoulli":
        x = torch.sigmoid(x)
    batch = {"x": x, "mask": draw(B, T, F, seed=2) > -0.5}
    batch["asked"] = batch["mask"] & (draw(B, T, F, seed=3) > 0.0)
    batch["visible"] = batch["mask"] & ~batch["asked"]
    if kind == "conditional":
        batch["condition"] = draw(B, 1, seed=4).float()
    if kind == "ada":
        batch |= {f"{name}_pair": part for name, part in batch.items()}
    results = []
    for weight in (0.0, 3.0):
        model = KINDS[kind](spectral_weight=weight).build(x).eval()
        results.append(model.training_step(batch, 0))
    plain, penalised = results
    assert "spectral" not in plain.diagnostics
    spectral = penalised.diagnostics["spectral"]
    assert float(spectral) > 0.0
    difference = penalised.objective - plain.objective
    torch.testing.assert_close(difference, 3.0 * spectral / (T * F), rtol=1e-4, atol=1e-5)
    model.train().training_step(batch, 0).objective.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(bool(torch.isfinite(grad).all()) for grad in gradients)


@pytest.mark.parametrize("kind", ["ae", "vae", "conditional", "hierarchical", "vq"])
def test_the_denoiser_hands_it_to_its_model(kind):
    params = VAEDenoiser(3, model=kind, spectral_weight=0.7, architecture="conv").get_params()
    design = design_model(params, 16, 1, 1 if kind == "conditional" else 0)
    model = build_model(design, None, torch.Generator().manual_seed(0))
    assert model.spectral_weight == 0.7


def test_a_bad_weight_is_refused():
    for weight in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="spectral_weight must be a finite number >= 0"):
            vae(spectral_weight=weight)


def high_power(values):
    spectrum = torch.fft.rfft(values, dim=-2).abs().square()
    return float(spectrum[..., spectrum.shape[-2] // 2 :, :].sum())


def test_a_small_fit_keeps_more_high_frequency_power():
    steps = 32
    t = torch.arange(steps) / steps
    phase = 6.28 * torch.rand(64, 1, generator=torch.Generator().manual_seed(0))
    # A strong slow wave and a weak fast one of a phase of its own: two codes hold the first.
    x = torch.sin(6.28 * (2 * t + phase)) + 0.3 * torch.sin(6.28 * (12 * t + 7 * phase))
    x = x.unsqueeze(-1)
    kept = []
    for weight in (0.0, 1.0):
        generator = torch.Generator().manual_seed(0)
        model = Autoencoder(
            MLPEncoder(1, steps, (32,), generator=generator),
            MLPDecoder(2, steps, 1, (32,), generator=generator),
            2,
            spectral_weight=weight,
            generator=generator,
        ).build(x)
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for step in range(200):
            optimizer.zero_grad()
            model.training_step({"x": x}, step).objective.backward()
            optimizer.step()
        with torch.no_grad():
            kept.append(high_power(model.eval()(x).x_hat[:, 0]) / high_power(x))
    assert kept[1] > kept[0] + 0.2, kept
    assert kept[1] < 1.5


# -- divergence of each channel -------------------------------------------------------------------


@pytest.mark.parametrize("latent", ["vector", "map"])
def test_the_divergence_of_every_channel(latent):
    x = draw(B, T, F)
    networks = parts() if latent == "map" else (MLPEncoder(F, T, (6,)), MLPDecoder(D, T, F, (6,)))
    model = VAE(*networks, D, latent=latent).double().build(x)
    with torch.no_grad():
        model.log_var_head.weight.copy_(0.3 * draw(*model.log_var_head.weight.shape, seed=4))
    output = model(x)
    found = model.compute_loss(x, output).diagnostics
    kl = gaussian_kl(output.mu[:, 0], output.log_var[:, 0])
    for channel in range(D):
        oracle = sum(float(record[..., channel].detach().sum()) for record in kl) / B
        assert float(found[f"kl_{channel}"]) == pytest.approx(oracle)
    assert f"kl_{D}" not in found
    total = sum(float(found[f"kl_{channel}"]) for channel in range(D))
    assert total == pytest.approx(float(found["kl_divergence"]))


def test_a_wide_code_is_not_reported_channel_by_channel():
    x = draw(B, T, F)
    model = VAE(MLPEncoder(F, T, (6,)), MLPDecoder(65, T, F, (6,)), 65).double().build(x)
    found = model.compute_loss(x, model(x)).diagnostics
    assert not [name for name in found if name.startswith("kl_") and name != "kl_divergence"]


@pytest.mark.parametrize("make", [HierarchicalVAE.perceptron, HierarchicalVAE.convolutional])
def test_the_divergence_of_every_channel_of_every_level(make):
    x = draw(B, T, F)
    model = make(F, T, (2, 3), hidden_sizes=(6, 8), n_levels=2).double().build(x)
    output = model(x)
    found = model.compute_loss(x, output).diagnostics
    levels = model.split_levels(level_kl(output).mean(1).detach())
    for i, (level, channels) in enumerate(zip(levels, (2, 3), strict=True), start=1):
        values = [float(found[f"kl_level_{i}_{c}"]) for c in range(channels)]
        oracle = level.reshape(B, -1, channels).sum(1).mean(0).tolist()
        assert values == pytest.approx(oracle)
        assert sum(values) == pytest.approx(float(found[f"kl_level_{i}"]))
    assert "kl_0" not in found
