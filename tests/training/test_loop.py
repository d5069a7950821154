from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from tsvae.training import (
    Augmentation,
    Callback,
    DivergenceError,
    LossResult,
    TrainingLog,
    WindowLoader,
    pinned_threads,
    split_validation,
    train,
)


def test_quadratic_converges_to_its_minimum(toys):
    model = toys.Quadratic()
    config = toys.config(max_epochs=300, learning_rate=0.1, lr_schedule="cosine")
    log = train(model, toys.target, config=config, generator=toys.generator())
    torch.testing.assert_close(model.p.data, torch.tensor([1.0, -2.0, 3.0]), atol=1e-3, rtol=0)
    assert log.stop_reason == "max_epochs"
    assert log["step"] == list(range(1, 301))
    assert log["step"][-1] == 300 and len(model.steps) == 300


@pytest.mark.parametrize("lr_schedule", ["cosine", "constant", "plateau", "one_cycle"])
def test_no_epochs_leave_the_model_as_it_is(toys, lr_schedule):
    model = toys.Quadratic()
    before = model.p.data.clone()
    config = toys.config(max_epochs=0, lr_schedule=lr_schedule)
    log = train(model, toys.target, config=config, generator=toys.generator())
    assert log.rows == [] and log.stop_reason == "max_epochs"
    torch.testing.assert_close(model.p.data, before, atol=0, rtol=0)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adafactor"])
def test_every_optimizer_goes_downhill(toys, optimizer):
    model = toys.Quadratic()
    nn.init.constant_(model.p, 0.5)  # Adafactor's steps are relative to the parameter's size
    config = toys.config(max_epochs=20, learning_rate=0.1, optimizer=optimizer)
    log = train(model, toys.target, config=config, generator=toys.generator())
    assert log["objective"][-1] < 0.8 * log["objective"][0]
    assert bool(((model.p.data - 0.5) * torch.tensor([1, -1, 1]) > 0).all())


def test_adam_step_by_hand(toys):
    model = toys.Quadratic()
    config = toys.config(max_epochs=2, learning_rate=0.01, clip_norm=None)
    train(model, toys.target, config=config, generator=toys.generator())
    expected = torch.zeros(3, dtype=torch.float64)
    first, second = torch.zeros(3), torch.zeros(3)
    for step in (1, 2):
        gradient = expected - torch.tensor([1.0, -2.0, 3.0])
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        scale = (second / (1 - 0.999**step)).sqrt() + 1e-8
        expected = expected - 0.01 * first / (1 - 0.9**step) / scale
    torch.testing.assert_close(model.p.data, expected.float(), atol=1e-7, rtol=1e-6)


class GradientSpy(Callback):
    """Gradients as the optimizers saw them."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, state):
        self.seen.append({n: p.grad.clone() for n, p in state.model.named_parameters()})


def test_clipping_touches_only_the_networks_and_the_natural_rate_is_exact(toys):
    model, spy = toys.TwoGroups(), GradientSpy()
    config = toys.config(max_epochs=1, learning_rate=0.1, natural_learning_rate=0.0002)
    x = torch.tensor([[2.0, 1.0]])
    train(
        model,
        lambda epoch, generator: [{"x": x}],
        config=config,
        generator=toys.generator(),
        callbacks=[spy],
    )
    assert spy.seen[0]["p"].norm().item() == pytest.approx(1.0, rel=1e-4)
    torch.testing.assert_close(spy.seen[0]["natural"], -100 * x[0])
    torch.testing.assert_close(model.natural.data, 0.0002 * 100 * x[0])


def test_natural_rate_follows_its_own_schedule(toys):
    model = toys.TwoGroups()
    rates = []

    class Rates(Callback):
        def on_step_end(self, state):
            rates.append([o.param_groups[0]["lr"] for o in state.optimizers.values()])

    config = toys.config(
        max_epochs=4,
        learning_rate=1.0,
        natural_learning_rate=0.5,
        lr_schedule="cosine",
        natural_lr_schedule="constant",
    )
    train(
        model,
        lambda epoch, generator: [{"x": torch.zeros(1, 2)}],
        config=config,
        generator=toys.generator(),
        callbacks=[Rates()],
    )
    network, natural = zip(*rates, strict=True)
    assert natural == (0.5,) * 4
    expected = [0.5 * (1 + np.cos(np.pi * s / 4)) for s in range(4)]
    np.testing.assert_allclose(network, expected, atol=1e-12)


def test_foreign_natural_parameters_are_refused(toys):
    model = toys.TwoGroups()
    model.natural_parameters = lambda: [torch.zeros(2)]
    with pytest.raises(ValueError, match=r"natural_parameters\(\) lists 1 tensors"):
        train(model, toys.target, config=toys.config(), generator=toys.generator())


def test_accumulation_equals_the_big_batch(toys):
    x = torch.randn(8, 3, generator=toys.generator(5), dtype=torch.float64)
    results = []
    for batches, accumulate in (([x], 1), (list(x.split(2)), 4), (list(x.split(4)), 2)):
        model = toys.Quadratic().double()
        config = toys.config(max_epochs=5, learning_rate=0.1, accumulate=accumulate)
        train(
            model,
            lambda epoch, generator, batches=batches: [{"x": b} for b in batches],
            config=config,
            generator=toys.generator(),
        )
        assert max(model.steps) == 4  # an optimizer step is what counts as a step
        results.append(model.p.data)
    torch.testing.assert_close(results[1], results[0], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(results[2], results[0], atol=1e-12, rtol=1e-12)


def test_nan_names_epoch_step_term_and_remedy(toys):
    class Breaks(toys.Quadratic):
        def training_step(self, batch, step):
            fit = super().training_step(batch, step).objective
            local_kl = fit * (float("nan") if step == 5 else 1.0)
            return LossResult(fit + local_kl, {"fit": fit, "local_kl": local_kl})

    model = Breaks()

    def two(epoch, generator):
        return toys.target(epoch, generator) * 2

    pattern = r"epoch 2, step 5.*'local_kl'.*smaller learning_rate.*scaling"
    with pytest.raises(DivergenceError, match=pattern) as caught:
        train(model, two, config=toys.config(max_epochs=9), generator=toys.generator())
    assert isinstance(caught.value, FloatingPointError)
    assert (caught.value.epoch, caught.value.step) == (2, 5)
    assert caught.value.terms == ("local_kl",)
    assert torch.isfinite(model.p).all()


def test_infinite_validation_criterion_is_named(toys):
    class Breaks(toys.Quadratic):
        def training_step(self, batch, step):
            result = super().training_step(batch, step)
            return result if self.training else result._replace(objective=self.p.sum() / 0.0)

    with pytest.raises(DivergenceError, match="validation criterion"):
        train(
            Breaks(),
            toys.target,
            validation_batches=toys.target(0, None),
            config=toys.config(),
            generator=toys.generator(),
        )


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("Out of memory")],
)
def test_out_of_memory_names_a_smaller_batch_size(toys, error):
    class Greedy(toys.Quadratic):
        def training_step(self, batch, step):
            raise error

    config = toys.config(batch_size=64)
    with pytest.raises(MemoryError, match="batch_size=64; try batch_size=32"):
        train(Greedy(), toys.target, config=config, generator=toys.generator())


def test_other_runtime_errors_pass_unchanged(toys):
    class Broken(toys.Quadratic):
        def training_step(self, batch, step):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match=r"^shapes do not match$"):
        train(Broken(), toys.target, config=toys.config(), generator=toys.generator())


class Scripted(nn.Module):
    """Validation criteria by a script; the parameter counts the training steps."""

    def __init__(self, criteria):
        super().__init__()
        self.p = nn.Parameter(torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.criteria = criteria

    def training_step(self, batch, step):
        if self.training:
            self.count += 1
            return LossResult(self.p * 0.0 + self.criteria[step], {})
        return LossResult(torch.tensor(self.criteria[int(self.count) - 1]), {})


def test_early_stopping_restores_the_best_state(toys):
    model = Scripted([5.0, 3.0, 4.0, 3.5, 1.0, 0.5])
    log = train(
        model,
        lambda epoch, generator: [{}],
        validation_batches=lambda epoch, generator: [{}],
        config=toys.config(max_epochs=6, patience=2),
        generator=toys.generator(),
    )
    assert log.stop_reason == "patience"
    assert log["validation"] == [5.0, 3.0, 4.0, 3.5]
    assert log.best_epoch == 1 and int(model.count) == 2


def test_no_early_stop_before_its_start_or_min_epochs(toys):
    criteria = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    for settings, epochs in (({"early_stopping_start": 4}, 5), ({"min_epochs": 5}, 5), ({}, 2)):
        model = Scripted(criteria)
        log = train(
            model,
            lambda epoch, generator: [{}],
            validation_batches=[{}],
            config=toys.config(max_epochs=6, patience=1, **settings),
            generator=toys.generator(),
        )
        assert len(log.rows) == epochs, settings
        assert log.best_epoch == 0 and int(model.count) == 1


def test_without_validation_the_training_objective_decides_after_the_warm_up(toys):
    # Small objectives before step 3 are those of an incomplete beta: they must not be "best".
    model = Scripted([0.1, 0.2, 5.0, 4.0, 4.5, 4.6, 4.7])
    log = train(
        model,
        lambda epoch, generator: [{}],
        config=toys.config(max_epochs=7, patience=2, early_stopping_start=3),
        generator=toys.generator(),
    )
    assert log["objective"] == pytest.approx([0.1, 0.2, 5.0, 4.0, 4.5, 4.6])
    assert log.best_epoch == 3 and int(model.count) == 4
    assert log["validation"] == [None] * 6


def test_without_validation_and_patience_the_last_state_stands(toys):
    model = Scripted([1.0, 2.0, 3.0])
    log = train(
        model, lambda epoch, generator: [{}], config=toys.config(), generator=toys.generator()
    )
    assert log.best_epoch is None and int(model.count) == 3


def test_min_delta_counts_small_gains_as_none(toys):
    model = Scripted([1.0, 0.99, 0.98, 0.97])
    log = train(
        model,
        lambda epoch, generator: [{}],
        validation_batches=[{}],
        config=toys.config(max_epochs=4, patience=2, min_delta=0.1),
        generator=toys.generator(),
    )
    assert len(log.rows) == 3
    assert log.best_epoch == 2  # the kept state is the best one all the same


def test_validation_is_weighted_in_eval_mode_without_gradients_and_at_intervals(toys):
    class Weighted(toys.Quadratic):
        def training_step(self, batch, step):
            if self.training:
                return super().training_step(batch, step)
            assert not torch.is_grad_enabled()
            return LossResult(batch["value"], {"weight": batch["weight"]})

    model = Weighted()
    validation = [
        {"value": torch.tensor(1.0), "weight": torch.tensor(3.0)},
        {"value": torch.tensor(5.0), "weight": torch.tensor(1.0)},
    ]
    log = train(
        model,
        toys.target,
        validation_batches=validation,
        config=toys.config(max_epochs=5, validation_every=2),
        generator=toys.generator(),
    )
    assert log["validation"] == [None, 2.0, None, 2.0, 2.0]  # the last epoch always
    assert model.modes == [True] * 5 and model.training


def test_validation_draws_do_not_disturb_training(toys):
    results = []
    for validation in (None, toys.regression_batches):
        model = toys.Network()
        config = toys.config(max_epochs=3)
        seen = []

        class Keep(Callback):
            def on_epoch_end(self, state, seen=seen):
                seen.append(state.model.net[0].weight.detach().clone())

        train(
            model,
            toys.regression_batches,
            validation_batches=validation,
            config=config,
            generator=toys.generator(),
            callbacks=[Keep()],
        )
        results.append(torch.stack(seen))
    assert torch.equal(results[0], results[1])


def test_the_same_seed_gives_the_same_bits_and_global_states_stay(toys):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    models = []
    for seed in (0, 0, 1):
        models.append(toys.Network())
        train(
            models[-1],
            toys.regression_batches,
            config=toys.config(),
            generator=toys.generator(seed),
        )
    states = [m.state_dict() for m in models]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert not torch.equal(states[0]["net.0.weight"], states[2]["net.0.weight"])
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_nothing_is_left_behind(toys, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    logger = logging.getLogger("lightning_fabric")
    handlers, dtype = list(logger.handlers), torch.get_default_dtype()
    threads = torch.get_num_threads()
    model = toys.Network()
    attributes = set(model.__dict__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for precision in ("32-true", "bf16-mixed", "64-true"):
            config = toys.config(max_epochs=1, precision=precision, n_threads=1)
            train(model, toys.regression_batches, config=config, generator=toys.generator())
    assert dict(os.environ) == environment
    assert logger.handlers == handlers
    assert torch.get_num_threads() == threads and torch.get_default_dtype() == dtype
    assert list(tmp_path.iterdir()) == []
    out, err = capfd.readouterr()
    assert out == "" and err == ""
    assert set(model.__dict__) == attributes and type(model) is toys.Network
    assert all(p.grad is None and p.is_leaf for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_float64_reaches_model_and_batch(toys):
    class Typed(toys.Quadratic):
        def training_step(self, batch, step):
            assert batch["x"].dtype == torch.float64 and batch["flag"].dtype == torch.bool
            result = super().training_step(batch, step)
            assert result.objective.dtype == torch.float64
            return result

    def batches(epoch, generator):
        return [toys.target(0, None)[0] | {"flag": torch.ones(2, dtype=torch.bool)}]

    model = Typed()
    train(model, batches, config=toys.config(precision="64-true"), generator=toys.generator())
    assert model.p.dtype == torch.float64


def test_mixed_precision_touches_only_the_networks(toys):
    seen = {}

    class Mixed(toys.Network):
        def network_modules(self):
            return [self.net]

        def training_step(self, batch, step):
            def look(module, args, output):
                seen["inside"] = output.dtype

            hidden = self.net[0].register_forward_hook(look)
            seen["output"] = self.net(batch["x"]).dtype
            hidden.remove()
            seen["matmul"] = (batch["x"] @ batch["x"].T).dtype
            seen["batch"] = batch["x"].dtype
            return super().training_step(batch, step)

    model = Mixed()
    log = train(
        model,
        toys.regression_batches,
        config=toys.config(precision="bf16-mixed", max_epochs=20, learning_rate=0.01),
        generator=toys.generator(),
    )
    full = torch.float32
    assert seen == {"inside": torch.bfloat16, "output": full, "matmul": full, "batch": full}
    assert all(p.dtype == full for p in model.parameters())
    assert log["objective"][-1] < 0.5 * log["objective"][0]


def test_mixed_precision_of_a_whole_step(toys):
    seen = {}

    class Mixed(toys.Network):
        def training_step(self, batch, step):
            seen["net"] = self.net(batch["x"]).dtype
            seen["batch"] = batch["x"].dtype
            return super().training_step(batch, step)

    config = toys.config(precision="bf16-mixed")
    train(Mixed(), toys.regression_batches, config=config, generator=toys.generator())
    assert seen == {"net": torch.bfloat16, "batch": torch.float32}


def test_half_precision_on_the_cpu_is_refused(toys):
    with pytest.raises(ValueError, match=r"needs a CUDA device.*bf16-mixed"):
        train(
            toys.Quadratic(),
            toys.target,
            config=toys.config(precision="16-mixed"),
            generator=toys.generator(),
        )


def test_interrupt_keeps_the_best_state(toys):
    class Interrupt(Callback):
        ended = False

        def on_epoch_end(self, state):
            if state.epoch == 3:
                raise KeyboardInterrupt

        def on_fit_end(self, state):
            self.ended = True

    model, callback, log = Scripted([5.0, 1.0, 7.0]), Interrupt(), TrainingLog()
    model.train()
    with pytest.raises(KeyboardInterrupt):
        train(
            model,
            lambda epoch, generator: [{}],
            validation_batches=[{}],
            config=toys.config(max_epochs=9),
            generator=toys.generator(),
            callbacks=[callback],
            log=log,
        )
    assert int(model.count) == 2 and callback.ended
    assert log.stop_reason == "interrupted" and log.best_epoch == 1 and len(log.rows) == 3


def test_limits_of_steps_and_time(toys):
    def three(epoch, generator):
        return toys.target(epoch, generator) * 3

    model = toys.Quadratic()
    log = train(
        model, three, config=toys.config(max_epochs=9, max_steps=4), generator=toys.generator()
    )
    assert log.stop_reason == "max_steps" and log["step"] == [3, 4] and model.steps == [0, 1, 2, 3]
    model = toys.Quadratic()
    config = toys.config(max_epochs=10**6, max_time=0.2)
    log = train(model, three, config=config, generator=toys.generator())
    assert log.stop_reason == "max_time" and 0.1 < log["seconds"][-1] < 5


def test_iterables_without_length_are_counted_without_disturbing_the_generator(toys):
    def lazily(epoch, generator):
        yield from toys.regression_batches(epoch, generator)

    states = []
    for batches in (lazily, toys.regression_batches):
        model = toys.Network()
        config = toys.config(lr_schedule="cosine")
        train(model, batches, config=config, generator=toys.generator())
        states.append(model.net[0].weight)
    assert torch.equal(states[0], states[1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"batches": lambda epoch, generator: []}, ValueError, "gave no batch"),
        ({"batches": [{}]}, TypeError, "batches must be a callable"),
        ({"validation_batches": iter([{}])}, TypeError, "empty after one pass"),
        ({"validation_batches": []}, ValueError, "validation_batches gave no batch"),
        ({"model": nn.Linear(1, 1)}, TypeError, "training_step"),
        ({"callbacks": [Callback]}, TypeError, "callbacks must be objects"),
        ({"callbacks": [3]}, TypeError, "callbacks must be objects"),
    ],
)
def test_useless_arguments_are_refused(toys, change, error, message):
    arguments = {"model": toys.Quadratic(), "batches": toys.target} | change
    with pytest.raises(error, match=message):
        train(**arguments, config=toys.config(), generator=toys.generator())


def test_a_model_without_trainable_parameters_is_refused(toys):
    model = toys.Quadratic().requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        train(model, toys.target, config=toys.config(), generator=toys.generator())


def test_mode_comes_back(toys):
    model = toys.Quadratic().eval()
    train(model, toys.target, config=toys.config(), generator=toys.generator())
    assert not model.training and model.modes == [True] * 3


def test_missing_device_is_refused(toys):
    if torch.cuda.is_available():
        device = f"cuda:{torch.cuda.device_count()}"
    else:
        device = "cuda"
    with pytest.raises(ValueError, match=r"is not available.*device='cpu'"):
        config = toys.config(device=device)
        train(toys.Quadratic(), toys.target, config=config, generator=toys.generator())


def test_threads_are_restored_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), pinned_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_windows_masks_and_validation_work_together(toys):
    """A linear network fills in the hidden last steps of windows of a sine."""

    class Filler(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(24, 24)
            nn.init.zeros_(self.net.weight)

        def training_step(self, batch, step):
            shown = batch["x"] * batch["visible"]
            asked = batch["mask"] & ~batch["visible"] if self.training else batch["mask"]
            error = (self.net(shown[..., 0]) - batch["x"][..., 0]) ** 2 * asked[..., 0]
            weight = asked.sum()
            return LossResult(error.sum() / weight.clamp(min=1), {"weight": weight})

    t = torch.arange(600.0)
    values = torch.sin(t * 2 * torch.pi / 24)[None, :, None]
    mask = torch.rand(values.shape, generator=toys.generator(3)) < 0.95
    values = torch.where(mask, values, torch.nan)
    split = split_validation(torch.tensor([600]), 0.2, 24)
    common = {"values": values, "mask": mask, "window": 24, "batch_size": 8}
    training = WindowLoader(
        **common, ranges=split.train, augmentation=Augmentation(random_fraction=0.2, future_steps=6)
    )
    validation = WindowLoader(**common, ranges=split.validation, random_start=False, shuffle=False)
    log = train(
        Filler(),
        training,
        validation_batches=validation,
        config=toys.config(max_epochs=60, learning_rate=0.02, lr_schedule="cosine"),
        generator=toys.generator(),
    )
    assert log["validation"][0] > 0.3 and min(log["validation"]) < 0.03
    assert log["objective"][-1] < 0.03 and "weight" not in log


def test_import_is_light():
    code = "import tsvae.training, sys; print('lightning_fabric' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
