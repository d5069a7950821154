from __future__ import annotations

import dataclasses

import pytest

from tsvae.training import TrainingConfig


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("max_epochs", -1, ValueError),
        ("max_epochs", 1.5, TypeError),
        ("max_epochs", "a", TypeError),
        ("max_epochs", None, TypeError),
        ("max_steps", 0, ValueError),
        ("batch_size", True, TypeError),
        ("learning_rate", 0, ValueError),
        ("learning_rate", "fast", ValueError),
        ("learning_rate", None, TypeError),
        ("learning_rate", float("nan"), ValueError),
        ("natural_learning_rate", -0.1, ValueError),
        ("optimizer", "sgd", ValueError),
        ("lr_schedule", "linear", ValueError),
        ("natural_lr_schedule", "linear", ValueError),
        ("warmup_steps", -1, ValueError),
        ("clip_norm", 0.0, ValueError),
        ("accumulate", 0, ValueError),
        ("precision", "8", ValueError),
        ("device", "toaster", ValueError),
        ("strategy", "fsdp", ValueError),
        ("num_devices", 0, ValueError),
        ("patience", 0, ValueError),
        ("min_delta", float("nan"), ValueError),
        ("validation_every", 0, ValueError),
        ("max_time", 0, ValueError),
    ],
)
def test_bad_settings_are_named_with_what_was_expected(name, value, error):
    with pytest.raises(error, match=rf"^{name} must be .*got {value!r}\.$"):
        TrainingConfig(**{name: value})


def test_config_is_frozen_and_plain():
    config = TrainingConfig(max_steps=5, learning_rate="auto", device="cuda:1", patience=None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.max_epochs = 2
    assert TrainingConfig(**config.to_dict()) == config
    assert len({config, TrainingConfig(**config.to_dict())}) == 1
