"""Stages of training: order, batches, annealing, freezing, the warning of pre-training."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch

from tsvae import PairVAELinker
from tsvae._linker.batches import SideData
from tsvae._linker.fitting import PretrainingWarning, TrainingSides, fit_stages
from tsvae._linker.pairs import Rows
from tsvae.models import VAE
from tsvae.models.pair import PairVAE
from tsvae.nn import MLPDecoder, MLPEncoder
from tsvae.training import Callback

N, STEPS_A, STEPS_B = 60, 7, 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def side_data(steps, noise, seed=0):
    rng = np.random.default_rng(seed)
    size = np.random.default_rng(9).uniform(-1.0, 1.0, (N, 1))  # the same on both sides
    values = np.sin(3.0 * size * np.linspace(0.3, 1.0, steps)) + noise * rng.standard_normal(
        (N, steps)
    )
    values = torch.tensor(values[..., None], dtype=torch.float32)
    return SideData(values, torch.ones_like(values, dtype=torch.bool), torch.ones(1, steps, 1))


def sides(n_pairs=N, n_held_out=0, n_only=(0, 0), noise=0.05):
    order = np.arange(N)
    cuts = np.cumsum([n_pairs, n_held_out, *n_only])
    rows = Rows(*np.split(order, cuts)[:4])
    return TrainingSides(side_data(STEPS_A, noise), side_data(STEPS_B, noise, 1), rows)


def vae(steps):
    encoder = MLPEncoder(2, steps, (8, 8), generator=generator(1))
    decoder = MLPDecoder(2, steps, 1, (8, 8), generator=generator(2))
    return VAE(encoder, decoder, 2, mask_input=True, initial_scale=0.5)


def pair(beta=0.1, **options):
    model = PairVAE(vae(STEPS_A), vae(STEPS_B), beta=beta, generator=generator(3), **options)
    return model.build(torch.zeros(2, STEPS_A, 1), torch.zeros(2, STEPS_B, 1))


class Witness(Callback):
    """Notes what each stage starts with, and its batches and results step by step."""

    def __init__(self):
        self.stages, self.states, self.freezing = [], [], []
        self.batches, self.results, self.trained, self.configs = [], [], [], []

    def on_fit_start(self, state):
        self.stages.append(state.model.stage)
        self.states.append(copy.deepcopy(state.model.state_dict()))
        self.freezing.append(state.model.freezing)
        self.configs.append(state.config)
        for found in (self.batches, self.results, self.trained):
            found.append([])

    def on_step_end(self, state):
        names = {name for name, p in state.model.named_parameters() if p.requires_grad}
        self.batches[-1].append({name: value.clone() for name, value in state.batch.items()})
        self.results[-1].append(state.result)
        self.trained[-1].append(names)


def run(model=None, data=None, **settings):
    model, data = model or pair(), data or sides()
    options = {"max_epochs": 1, "batch_size": 8, "device": "cpu", "random_state": 0}
    params = PairVAELinker(**options | settings).get_params(deep=False)
    witness = Witness()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PretrainingWarning)
        logs = fit_stages(model, data, params, generator(4), (witness,))
    return model, logs, witness


def test_without_pre_training_there_is_one_stage():
    model, logs, witness = run()
    assert logs.separate is None and len(logs.joint.rows) == 1
    assert witness.stages == ["joint"] and model.stage == "joint"
    assert "barlow_twins" in logs.joint and "log_likelihood_b_from_a" in logs.joint
    assert model.freezing is None


def test_sides_first_and_then_together():
    model, logs, witness = run(pretrain_epochs=3, max_epochs=2)
    assert witness.stages == ["separate", "joint"] and model.stage == "joint"
    assert len(logs.separate.rows) == 3 and len(logs.joint.rows) == 2
    assert "log_likelihood_a_from_a" in logs.separate
    assert "barlow_twins" not in logs.separate and "log_likelihood_b_from_a" not in logs.separate
    assert logs.joint.rows[0]["step"] == 20  # counts begin anew
    across = [n for n in witness.states[0] if n.startswith("across")]
    assert across and all(
        torch.equal(witness.states[0][n], witness.states[1][n]) for n in across
    )  # nothing across was trained
    moved = [n for n in witness.states[0] if not n.startswith("across")]
    assert all(not torch.equal(witness.states[0][n], witness.states[1][n]) for n in moved)


@pytest.mark.parametrize(("n", "size", "expected"), [(60, 8, 20), (60, 2, 30), (5, 2, 20)])
def test_an_epoch_is_one_look_at_the_data_within_bounds(n, size, expected):
    _, logs, _ = run(data=sides(n), batch_size=size, max_epochs=1)
    assert logs.joint.rows[0]["step"] == expected


def test_the_longest_epoch_has_80_steps():
    rows = Rows(np.tile(np.arange(N), 20), *[np.arange(0)] * 3)
    _, logs, _ = run(data=sides()._replace(rows=rows), batch_size=2, max_epochs=1)
    assert logs.joint.rows[0]["step"] == 80


@pytest.mark.parametrize("pretrain_epochs", [0, 2])
def test_the_divergence_grows_over_half_of_the_first_stage(pretrain_epochs):
    model, _, witness = run(max_epochs=2, pretrain_epochs=pretrain_epochs)
    betas = [[float(r.diagnostics["beta"]) for r in results] for results in witness.results]
    half = len(betas[0]) // 2
    expected = [0.1 * min(1.0, step / half) for step in range(len(betas[0]))]
    np.testing.assert_allclose(betas[0], expected, rtol=1e-5)
    assert witness.configs[0].early_stopping_start == half
    if pretrain_epochs:
        np.testing.assert_allclose(betas[1], 0.1, rtol=1e-5)
        assert witness.configs[1].early_stopping_start == 0
    assert model.beta == 0.1


def test_batches_are_drawn_by_share_together_and_by_number_before():
    data = sides(12, 0, (24, 36 - 12))
    _, _, witness = run(data=data, pretrain_epochs=1, paired_share=0.5, batch_size=9)
    before, together = witness.batches
    assert {int(b["n_pairs"]) for b in before} == {3}  # 12 of 36 records of each side are pairs
    assert {int(b["n_pairs"]) for b in together} == {4}
    assert {len(b["a"]) for b in (*before, *together)} == {9}
    values = [data.a.values[row].tolist() for row in (*data.rows.pairs, *data.rows.only_x)]
    seen = [record.tolist() for b in before for record in b["a"]]
    counts = [seen.count(value) for value in values]  # 20 steps of 9 records, 36 of them
    assert min(counts) >= 4 and sum(counts) == 180


def test_pairs_that_are_held_out_judge_and_do_not_train():
    data = sides(25, 35)
    model, logs, witness = run(data=data, max_epochs=2)
    held_out = {tuple(data.a.values[row, :, 0].tolist()) for row in data.rows.held_out}
    trained = {tuple(x[:, 0].tolist()) for b in witness.batches[0] for x in b["a"]}
    assert len(trained) == 25 and not trained & held_out
    assert all(value is not None for value in logs.joint["validation"])
    assert logs.joint.best_epoch in (0, 1)
    # The criterion of the best epoch is that of the model that was handed back.
    chunks = [data.rows.held_out[:18], data.rows.held_out[18:]]  # as equal as can be
    found = []
    for chunk in chunks:
        rows = torch.as_tensor(chunk)
        batch = {**data.a.rows(rows, "a"), **data.b.rows(rows, "b")}
        found.append(model.eval().training_step(batch, 0).objective.item())
    expected = (18 * found[0] + 17 * found[1]) / 35
    assert min(logs.joint["validation"]) == pytest.approx(expected, rel=1e-4)
    assert run(data=sides(25))[1].joint["validation"] == [None]


@pytest.mark.parametrize("freeze", ["X", "y", "both"])
def test_frozen_sides_keep_what_pre_training_made(freeze):
    model, _, witness = run(pretrain_epochs=1, freeze=freeze)
    names = {"X": "a", "y": "b", "both": "ab"}[freeze]
    rests = tuple(f"{n}.{part}." for n in names for part in ("encoder", "decoder"))
    changed = {
        name
        for name, value in model.state_dict().items()
        if not torch.equal(value, witness.states[1][name])
    }
    assert changed == {name for name in witness.states[1] if not name.startswith(rests)}
    assert witness.freezing[0] is None and witness.freezing[1] is not None
    assert model.freezing is None


def test_layers_wake_up_from_the_code_outwards():
    model, _, witness = run(pretrain_epochs=1, freeze="X", unfreeze_epochs=2, max_epochs=3)
    networks = {n for n, _ in model.named_parameters() if n.startswith(("a.encoder", "a.decoder"))}
    order, awake = [], set()
    for trained in witness.trained[1]:
        order += [trained & networks - awake] if trained & networks - awake else []
        awake |= trained & networks
    assert awake == networks and len(order) > 2
    encoder, decoder = (
        [n for n, _ in model.named_parameters() if n.startswith(f"a.{part}")]
        for part in ("encoder", "decoder")
    )
    when = {name: place for place, names in enumerate(order) for name in names}
    for way in (encoder[::-1], decoder):
        assert [when[n] for n in way] == sorted(when[n] for n in way)
        assert when[way[0]] <= 1 and when[way[-1]] > 1
    released = [len(trained & networks) for trained in witness.trained[1]]
    assert released[0] == 0 and released[40] == len(networks)  # two epochs of 20 steps
    assert released[39] < len(networks)


def unsettled(data, **settings):
    """Sides that a warning names."""
    model = pair(0.01)
    params = PairVAELinker(
        **{"max_epochs": 1, "batch_size": 8, "device": "cpu", "lr_schedule": "constant"} | settings
    ).get_params(deep=False)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit_stages(model, data, params, generator(4))
    messages = [str(w.message) for w in found if w.category is PretrainingWarning]
    return [name for name in ("X", "y") if any(f"of {name} had not" in m for m in messages)]


def test_a_warning_if_pre_training_is_cut_short():
    assert unsettled(sides(), pretrain_epochs=1) == ["X", "y"]
    assert unsettled(sides(), pretrain_epochs=3) == ["X", "y"]
    assert unsettled(sides(), pretrain_epochs=0) == []


def test_no_warning_when_the_sides_have_settled():
    rng = np.random.default_rng(0)
    data = sides()
    noise = [
        torch.tensor(rng.standard_normal(part.values.shape), dtype=torch.float32)
        for part in (data.a, data.b)
    ]
    dull = data._replace(
        a=SideData(noise[0], data.a.mask, data.a.weight),
        b=SideData(noise[1], data.b.mask, data.b.weight),
    )
    settings = {"pretrain_epochs": 12, "learning_rate": 0.01, "lr_schedule": "one_cycle"}
    assert unsettled(dull, **settings) == []


def test_the_warning_points_at_the_call_of_fit_and_says_what_to_do():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 4)), rng.standard_normal((20, 3))
    linker = PairVAELinker(2, hidden_sizes=(4,), pretrain_epochs=1, max_epochs=1, random_state=0)
    with pytest.warns(PretrainingWarning, match="Raise pretrain_epochs, or set") as found:
        linker.fit(X, y)
    assert {w.filename for w in found} == {__file__}
    assert len(linker.pretraining_log_.rows) == 1
    assert linker.set_params(pretrain_epochs=0).fit(X, y).pretraining_log_ is None


def test_equal_seeds_train_alike():
    state = torch.get_rng_state()
    one, two = (run(pretrain_epochs=1, max_epochs=1)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), state)
