from __future__ import annotations

import copy
import csv
import io
import pickle

import pytest
import torch

from tsvae.training import (
    Callback,
    Checkpoint,
    FabricLogger,
    ProgressBar,
    ReconstructionRecorder,
    load_checkpoint,
    train,
)


class Recorder(Callback):
    def __init__(self, stop_after=None):
        self.calls = []
        self.stop_after = stop_after

    def on_fit_start(self, state):
        self.calls.append("start")

    def on_step_end(self, state):
        assert state.result.objective.dim() == 0 and "x" in state.batch
        self.calls.append(f"step{state.step}")

    def on_epoch_end(self, state):
        assert len(state.log.rows) == state.epoch
        self.calls.append(f"epoch{state.epoch}")
        return state.epoch == self.stop_after

    def on_fit_end(self, state):
        self.calls.append("end")


def test_hooks_come_in_order_and_can_stop(toys):
    first, second = Recorder(stop_after=2), Recorder()
    log = train(
        toys.Quadratic(),
        toys.target,
        config=toys.config(max_epochs=5),
        generator=toys.generator(),
        callbacks=[first, second],
    )
    expected = ["start", "step1", "epoch1", "step2", "epoch2", "end"]
    assert first.calls == second.calls == expected
    assert log.stop_reason == "callback"


def test_any_object_with_a_hook_will_do(toys):
    class Duck:
        n = 0

        def on_epoch_end(self, state):
            self.n += 1

    duck = Duck()
    arguments = {"config": toys.config(), "generator": toys.generator()}
    train(toys.Quadratic(), toys.target, callbacks=[duck], **arguments)
    assert duck.n == 3


def test_the_end_is_called_after_an_error_too(toys):
    class Fails(Recorder):
        def on_step_end(self, state):
            raise LookupError("mine")

    callback = Fails()
    with pytest.raises(LookupError, match="mine"):
        train(
            toys.Quadratic(),
            toys.target,
            config=toys.config(),
            generator=toys.generator(),
            callbacks=[callback],
        )
    assert callback.calls == ["start", "end"]


def test_recorder_keeps_a_fixed_sample_without_disturbing_training(toys):
    sample = toys.regression_batches(0, toys.generator(9))[0]
    recorder = ReconstructionRecorder(sample, every=2)
    models = []
    for callbacks in ([recorder], []):
        models.append(toys.Network())
        train(
            models[-1],
            toys.regression_batches,
            config=toys.config(max_epochs=5),
            generator=toys.generator(),
            callbacks=callbacks,
        )
    states = [m.state_dict() for m in models]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert recorder.epochs == [0, 2, 4]
    last = models[0].eval().reconstruct(sample)
    torch.testing.assert_close(recorder.reconstructions[-1], last.detach())
    assert not torch.equal(recorder.reconstructions[0], recorder.reconstructions[1])
    twin = pickle.loads(pickle.dumps(recorder))
    assert torch.equal(twin.reconstructions[1], recorder.reconstructions[1])
    assert not any(r.requires_grad for r in recorder.reconstructions)


def test_recorder_takes_the_first_batch_of_each_run_by_default(toys):
    recorder = ReconstructionRecorder()
    assert recorder.batch is None
    for seed in (0, 1):
        arguments = {"config": toys.config(max_epochs=2), "generator": toys.generator(seed)}
        seen = Recorder()
        batches = []
        seen.on_step_end = lambda state, batches=batches: batches.append(state.batch)
        model = toys.Network()
        train(model, toys.regression_batches, callbacks=[recorder, seen], **arguments)
        assert torch.equal(recorder.batch["x"], batches[0]["x"])
        assert recorder.epochs == [0, 1]  # a new run, a new record
        torch.testing.assert_close(
            recorder.reconstructions[-1], model.eval().reconstruct(batches[0]).detach()
        )


def test_recorder_without_reconstruct_records_nothing(toys):
    recorder = ReconstructionRecorder({})
    arguments = {"config": toys.config(), "generator": toys.generator()}
    train(toys.Quadratic(), toys.target, callbacks=[recorder], **arguments)
    assert recorder.reconstructions == []


def test_verbose_shows_a_bar_and_silence_is_the_default(toys, capfd):
    arguments = {"generator": toys.generator()}
    train(toys.Quadratic(), toys.target, config=toys.config(), **arguments)
    assert capfd.readouterr() == ("", "")
    train(toys.Quadratic(), toys.target, config=toys.config(verbose=True), **arguments)
    out, err = capfd.readouterr()
    assert out == "" and "3/3" in err and "objective" in err


def test_bar_is_not_doubled_and_pickles_while_open(toys):
    stream = io.StringIO()
    bar = ProgressBar(file=stream)

    class Pickles(Callback):
        def on_epoch_end(self, state):
            twin = copy.copy(bar)
            assert bar._bar is not None and twin._bar is None

    train(
        toys.Quadratic(),
        toys.target,
        config=toys.config(verbose=True),
        generator=toys.generator(),
        callbacks=[bar, Pickles()],
    )
    assert "3/3" in stream.getvalue() and bar._bar is None
    assert pickle.loads(pickle.dumps(ProgressBar(leave=False))).settings == {"leave": False}


def test_fabric_logger_writes_the_rows(toys, tmp_path):
    logger = FabricLogger("csv", root_dir=tmp_path, name="run", version=0)
    log = train(
        toys.Quadratic(),
        toys.target,
        config=toys.config(),
        generator=toys.generator(),
        callbacks=[logger],
    )
    with open(tmp_path / "run" / "version_0" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["objective"]) for r in rows] == pytest.approx(log["objective"])
    assert [int(r["step"]) for r in rows] == [1, 2, 3]
    assert pickle.loads(pickle.dumps(logger)).version == 0


def test_fabric_logger_takes_any_logger(toys):
    class Memory:
        def __init__(self):
            self.rows, self.status = [], None

        def log_metrics(self, metrics, step=None):
            self.rows.append((step, metrics["objective"]))

        def finalize(self, status):
            self.status = status

    memory = Memory()
    arguments = {"config": toys.config(), "generator": toys.generator()}
    train(toys.Quadratic(), toys.target, callbacks=[FabricLogger(memory)], **arguments)
    assert [s for s, _ in memory.rows] == [1, 2, 3] and memory.status == "success"
    with pytest.raises(ValueError, match="logger must be"):
        FabricLogger("wandb")


class Stop(Callback):
    """Ends a run as a power cut would."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, state):
        if state.epoch == self.epoch:
            raise ConnectionError


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
@pytest.mark.parametrize("rate", [0.01, "auto"])
def test_resuming_gives_the_same_bits(toys, tmp_path, schedule, rate):
    path = tmp_path / "folder" / "run.pt"
    config = toys.config(
        max_epochs=8, learning_rate=rate, lr_schedule=schedule, patience=7, optimizer="adamw"
    )

    def run(model, generator, callbacks=(), resume=None):
        return train(
            model,
            toys.regression_batches,
            validation_batches=toys.regression_batches,
            config=config,
            generator=generator,
            callbacks=callbacks,
            resume=resume,
        )

    whole, whole_generator = toys.Network(), toys.generator()
    expected = run(whole, whole_generator)
    with pytest.raises(ConnectionError):
        run(toys.Network(), toys.generator(), [Checkpoint(path, every=2), Stop(5)])
    assert load_checkpoint(path)["epoch"] == 4
    # another initialisation and another seed: everything comes from the file
    model, generator = toys.Network(seed=3), toys.generator(99)
    log = run(model, generator, resume=path)
    a, b = whole.state_dict(), model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(whole_generator.get_state(), generator.get_state())
    for name in expected:
        if name != "seconds":
            assert log[name] == expected[name], name
    assert (log.best_epoch, log.stop_reason) == (expected.best_epoch, expected.stop_reason)
    assert [p.name for p in path.parent.iterdir()] == ["run.pt"]


def test_resuming_a_finished_run_does_nothing_more(toys, tmp_path):
    path = str(tmp_path / "run.pt")
    arguments = {"config": toys.config(), "generator": toys.generator()}
    model, twin = toys.Quadratic(), toys.Quadratic()
    train(model, toys.target, callbacks=[Checkpoint(path)], **arguments)
    log = train(twin, toys.target, resume=path, **arguments)
    assert torch.equal(model.p, twin.p) and twin.steps == [] and len(log.rows) == 3
    assert log.stop_reason == "max_epochs"


def test_foreign_checkpoints_are_refused(toys, tmp_path):
    path = tmp_path / "run.pt"
    arguments = {"config": toys.config(), "generator": toys.generator()}
    train(toys.Quadratic(), toys.target, callbacks=[Checkpoint(path)], **arguments)
    with pytest.raises(ValueError, match="belongs to another model"):
        train(toys.Network(), toys.regression_batches, resume=path, **arguments)
    other = {"config": toys.config(optimizer="adafactor"), "generator": toys.generator()}
    with pytest.raises(ValueError, match=r"optimizer='adam'.*'adafactor'"):
        train(toys.Quadratic(), toys.target, resume=path, **other)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*none\.pt"):
        train(toys.Quadratic(), toys.target, resume=str(tmp_path / "none.pt"), **arguments)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        train(toys.Quadratic(), toys.target, resume=path, **arguments)
    torch.save({"model": 1}, path)
    with pytest.raises(ValueError, match="is no tsvae checkpoint"):
        load_checkpoint(path)
