from __future__ import annotations

import numpy as np
import pytest
import torch

from tsvae.training import DivergenceError, LossResult, learning_rate_range_test, train
from tsvae.training.devices import Runtime, launch
from tsvae.training.range_test import suggest_rate


def prepared(model, config):
    runtime = Runtime(launch(model, config), config)
    runtime.setup(model)
    return runtime


def test_rule_on_a_known_curve():
    # falls fastest at 1e-2 (a tanh in log-rate), explodes at the end of the range
    rates = np.geomspace(1e-6, 1.0, 61)
    curve = -np.tanh(2 * (np.log10(rates) + 2))
    assert suggest_rate(rates, curve) == pytest.approx(1e-2, rel=0.3)
    # the same fall, but the test ended at 3e-2: never above a tenth of that
    kept = rates < 3e-2
    assert suggest_rate(rates[kept], curve[kept]) == pytest.approx(3e-3, rel=0.3)
    flat = np.ones(61)
    assert suggest_rate(rates, flat) == 1e-3


def test_model_and_generators_are_as_before(toys):
    model, generator = toys.Network(), toys.generator()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = generator.get_state(), model.generator.get_state(), torch.get_rng_state()
    config = toys.config()
    results = [
        learning_rate_range_test(
            model,
            toys.regression_batches,
            config=config,
            generator=generator,
            runtime=prepared(model, config),
        )
        for _ in range(2)
    ]
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    after = generator.get_state(), model.generator.get_state(), torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(states, after, strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert len(results[0].learning_rates) == len(results[0].objectives)
    assert 1e-5 <= results[0].suggestion <= 1e-1


def test_auto_is_deterministic_and_learns(toys):
    logs = [
        train(
            toys.Network(),
            toys.regression_batches,
            config=toys.config(max_epochs=15, learning_rate="auto"),
            generator=toys.generator(),
        )
        for _ in range(2)
    ]
    assert logs[0]["learning_rate"] == logs[1]["learning_rate"]
    assert logs[0]["objective"] == logs[1]["objective"]
    assert logs[0]["objective"][-1] < 0.3 * logs[0]["objective"][0]


def test_steeper_problems_get_smaller_rates(toys):
    class Valley(toys.Quadratic):
        """A narrow valley: Adam must not step further than its width."""

        width = 1.0

        def training_step(self, batch, step):
            value = (((self.p - batch["x"] * self.width) / self.width) ** 2).sum()
            return LossResult(value, {})

    rates = []
    for width in (1.0, 1e-3):
        model, config = Valley(), toys.config()
        model.width = width
        runtime = prepared(model, config)
        result = learning_rate_range_test(
            model, toys.target, config=config, generator=toys.generator(), runtime=runtime
        )
        rates.append(result.suggestion)
    assert rates[1] < rates[0] / 30


def test_natural_parameters_stay_where_they_are(toys):
    class Watch(toys.TwoGroups):
        def training_step(self, batch, step):
            assert torch.equal(self.natural, torch.zeros(2)) and step == 0
            return super().training_step(batch, step)

    model, config = Watch(), toys.config()
    runtime = prepared(model, config)
    learning_rate_range_test(
        model,
        lambda epoch, generator: [{"x": torch.ones(1, 2)}],
        config=config,
        generator=toys.generator(),
        runtime=runtime,
    )


def test_a_broken_start_is_named(toys):
    class Broken(toys.Quadratic):
        def training_step(self, batch, step):
            value = self.p.sum() * float("nan")
            return LossResult(value, {"reconstruction": value})

    with pytest.raises(DivergenceError, match=r"step 0.*'reconstruction'.* Check the scaling"):
        train(
            Broken(),
            toys.target,
            config=toys.config(learning_rate="auto"),
            generator=toys.generator(),
        )
