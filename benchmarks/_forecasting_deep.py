"""Deep peers: DLinear, NHITS, PatchTST and DeepAR of neuralforecast.

Each network sees one variable at a time and is shared by all. Adam fits it to the training rows;
the weights of the lowest validation loss are kept. All but DeepAR are fitted twice: by the squared
error for the columns MSE and MAE, by the multi-quantile loss for CRPS and coverage.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
from _forecasting_task import Array, Outcome, Rows, Task

from tsvae.demo.report import QUANTILE_LEVELS, ScoreSum

WINDOW_STEP = 5  # rows between training windows, and validation windows; coprime to day and week
FORECAST_BATCH = 128  # windows


class Recipe(NamedTuple):
    """How one peer is built and trained; `choices` are decided by the validation error."""

    label: str
    network: str  # class of neuralforecast
    window: int  # rows of history, at most the task's context
    settings: dict[str, Any]
    batch: int  # windows
    steps: int
    check_every: int  # steps between validations
    patience: int  # validations without improvement
    choices: dict[str, Sequence[Any]]
    published: dict[tuple[str, int], float]  # MSE by data and horizon


RECIPES = {
    # Zeng et al. 2023: 336 rows, 32 origins a batch, rates halved after each of ten rounds.
    "dlinear": Recipe(
        "DLinear",
        "DLinear",
        336,
        {"moving_avg_window": 25, "learning_rate": 5e-3, "num_lr_decays": 10},
        batch=224,
        steps=2_500,
        check_every=250,
        patience=10,  # the first rounds, at the full rate, are noise
        choices={},
        published={
            ("ETTh1", 96): 0.375,
            ("ETTh1", 192): 0.405,
            ("ETTh1", 336): 0.439,
            ("ETTh1", 720): 0.472,
            ("exchange", 96): 0.081,
            ("exchange", 192): 0.157,
            ("exchange", 336): 0.305,
            ("exchange", 720): 0.643,
        },
    ),
    # Challu et al. 2023: the library's network; scaled windows or not and the rate are chosen.
    "nhits": Recipe(
        "NHITS",
        "NHITS",
        512,
        {"num_lr_decays": 3},
        batch=512,
        steps=1_000,
        check_every=50,
        patience=5,
        choices={"scaler_type": ("identity", "standard"), "learning_rate": (1e-3, 1e-4)},
        published={},
    ),
    # Nie et al. 2023, PatchTST/64 with its small network for ETTh1; its batches are of 896 windows.
    "patchtst": Recipe(
        "PatchTST/64",
        "PatchTST",
        512,
        {
            "encoder_layers": 3,
            "n_heads": 4,
            "hidden_size": 16,
            "linear_hidden_size": 128,
            "dropout": 0.3,
            "fc_dropout": 0.3,
            "patch_len": 16,
            "stride": 8,
            "revin": True,
            "revin_affine": False,
            "revin_subtract_last": False,
            "batch_normalization": True,
            "learning_rate": 3e-4,
            "num_lr_decays": 4,
        },
        batch=256,
        steps=1_000,
        check_every=100,
        patience=3,
        choices={},
        published={
            ("ETTh1", 96): 0.370,
            ("ETTh1", 192): 0.413,
            ("ETTh1", 336): 0.422,
            ("ETTh1", 720): 0.447,
        },
    ),
    # Salinas et al. 2020: a week of hours, cells of 40, each window scaled, hour and weekday as
    # covariates; Student-t.
    "deepar": Recipe(
        "DeepAR",
        "DeepAR",
        168,
        {
            "lstm_n_layers": 2,
            "lstm_hidden_size": 40,
            "scaler_type": "standard",
            "learning_rate": 1e-3,
            "num_lr_decays": 3,
            "trajectory_samples": 100,
        },
        batch=128,
        steps=1_200,
        check_every=100,
        patience=3,
        choices={},
        published={},
    ),
}


PUBLISHED_SETTINGS = {("DLinear", "exchange"): {"learning_rate": 5e-4}}


class Trained(NamedTuple):
    """A fitted network, its choices and how its training went."""

    network: Any
    choice: dict[str, Any]
    best_step: int
    n_steps: int


class Forecasts(NamedTuple):
    """Means (N, H, F) and quantiles (N, H, F, Q); point forecasts have one of each."""

    mean: Array
    quantiles: Array


def run_deep(key: str, task: Task, seed: int) -> Outcome:
    """Fit one peer, choose by the validation part, score on the test part."""
    _be_quiet()
    recipe = RECIPES[key]
    recipe = recipe._replace(window=min(recipe.window, task.context))
    start = time.perf_counter()
    if recipe.network == "DeepAR":
        point = bands = _choose(recipe, task, "student", seed, {})
    else:
        point = _choose(recipe, task, "squared", seed, {})
        bands = _choose(recipe, task, "quantiles", seed, point.choice)
    fitted = time.perf_counter()
    scores, of_quantiles = ScoreSum(), ScoreSum()
    for origins, actual in task.chunks():
        forecasts = _forecast(bands, recipe, task, origins)
        mean = forecasts.mean
        if bands is not point:
            mean = _forecast(point, recipe, task, origins).mean
            of_quantiles.add(actual, forecasts.mean, forecasts.quantiles)
        scores.add(actual, mean, forecasts.quantiles)
    result = scores.result(
        recipe.label, seconds=time.perf_counter() - start, n_parameters=_size(point.network)
    )
    details = {
        "fit_seconds": fitted - start,
        "filling_and_choices": point.choice,
        "steps_kept_and_run": {
            "point": [point.best_step, point.n_steps],
            "bands": [bands.best_step, bands.n_steps],
        },
        **_against_published(recipe, task, result.mse),
    }
    if bands is not point:
        details["mse_of_the_mean_over_quantiles"] = of_quantiles.result("", seconds=0).mse
    return Outcome(result, details)


def _against_published(recipe: Recipe, task: Task, mse: float) -> dict[str, Any]:
    published = recipe.published.get((task.data, task.horizon))
    if published is None or len(task.fillings) > 1:
        return {}
    return {"published_mse": published, "within_5_percent": mse <= 1.05 * published}


def _choose(recipe: Recipe, task: Task, loss: str, seed: int, fixed: dict[str, Any]) -> Trained:
    """Train with what is fixed, then decide one choice after another on the validation part."""
    choices = {"filling": task.fillings, **recipe.choices}
    open_choices = {} if fixed else choices
    choice = {name: values[0] for name, values in choices.items()} | fixed
    best = _train(recipe, task, loss, seed, choice)
    if all(len(values) == 1 for values in open_choices.values()):
        return best
    lowest = _validation_error(best, recipe, task)
    for name, values in open_choices.items():
        for value in values[1:]:
            other = _train(recipe, task, loss, seed, best.choice | {name: value})
            error = _validation_error(other, recipe, task)
            if error < lowest:
                best, lowest = other, error
    return best


def _validation_error(trained: Trained, recipe: Recipe, task: Task) -> float:
    origins, actual = task.validation_windows(WINDOW_STEP)
    return float(np.nanmean((_forecast(trained, recipe, task, origins).mean - actual) ** 2))


def _train(recipe: Recipe, task: Task, loss: str, seed: int, choice: dict[str, Any]) -> Trained:
    import torch
    from pytorch_lightning.callbacks import ModelCheckpoint

    end = task.split.validation_end
    rows = task.filled(end, choice["filling"]).T
    observed = np.isfinite(task.visible.to_numpy()[:end]).T
    covariates = _calendar(task) if recipe.network == "DeepAR" else {}
    data = _dataset(rows, observed, {name: values[:end] for name, values in covariates.items()})
    settings: dict[str, Any] = {
        "batch_size": len(rows),
        "random_seed": seed,
        **_training_settings(recipe),
        **recipe.settings,
        **PUBLISHED_SETTINGS.get((recipe.network, task.data), {}),
        **{name: value for name, value in choice.items() if name != "filling"},
    }
    if recipe.network == "DeepAR":
        settings |= {"futr_exog_list": list(covariates), "h_train": task.horizon}
    with tempfile.TemporaryDirectory() as folder:
        kept = ModelCheckpoint(folder, monitor="ptl/val_loss", save_weights_only=True)
        network = _network_class(recipe.network)(
            h=task.horizon,
            input_size=recipe.window,
            loss=_loss(loss),
            callbacks=[kept],
            **settings,
        )
        with _windows_cut_once(network):
            network.fit(data, val_size=end - task.split.train_end)
        weights = torch.load(kept.best_model_path, weights_only=False)
        network.load_state_dict(weights["state_dict"])
    network.valid_batch_size = FORECAST_BATCH
    network.trainer_kwargs["callbacks"] = []  # they are of the training; the folder is gone
    network.trainer_kwargs["enable_checkpointing"] = False
    last_step = network.valid_trajectories[-1][0]
    return Trained(network, dict(choice), int(weights["global_step"]), int(last_step))


def _training_settings(recipe: Recipe) -> dict[str, Any]:
    return {
        "max_steps": recipe.steps,
        "val_check_steps": recipe.check_every,
        "early_stop_patience_steps": recipe.patience,
        "windows_batch_size": recipe.batch,
        "inference_windows_batch_size": FORECAST_BATCH,
        "step_size": WINDOW_STEP,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": True,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }


def _forecast(trained: Trained, recipe: Recipe, task: Task, origins: Rows) -> Forecasts:
    network, filling = trained.network, trained.choice["filling"]
    histories = task.histories(origins, recipe.window, filling).transpose(0, 2, 1)  # (N, F, W)
    n_origins, n_features, _ = histories.shape
    rows = histories.reshape(n_origins * n_features, -1)
    places = origins[:, None] + np.arange(-recipe.window, 0)
    observed = np.isfinite(task.visible.to_numpy())[places].transpose(0, 2, 1).reshape(rows.shape)
    covariates: dict[str, Array] = {}
    if recipe.network == "DeepAR":  # a place for the future of covariates
        rows = np.pad(rows, ((0, 0), (0, task.horizon)))
        observed = np.pad(observed, ((0, 0), (0, task.horizon)), constant_values=True)
        network.set_test_size(task.horizon)
        wanted = np.arange(-recipe.window, task.horizon)
        covariates = {
            name: np.repeat(values[origins[:, None] + wanted], n_features, axis=0).ravel()
            for name, values in _calendar(task).items()
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = network.predict(_dataset(rows, observed, covariates), step_size=1)
    found = np.asarray(found, dtype=np.float64)
    found = found.reshape(n_origins, n_features, task.horizon, -1).transpose(0, 2, 1, 3)
    if recipe.network == "DeepAR":
        return Forecasts(found[..., 0], found[..., 1:])
    return Forecasts(found.mean(axis=-1), np.sort(found, axis=-1))


def _dataset(rows: Array, observed: Array, covariates: dict[str, Array]) -> Any:
    """Rows (N, W) of N series; covariates of one series, repeated, or of all, one after another."""
    from neuralforecast.tsdataset import TimeSeriesDataset

    flat = rows.reshape(-1)
    columns = {"y": flat}
    for name, values in covariates.items():
        columns[name] = values if len(values) == len(flat) else np.tile(values, len(rows))
    columns["available_mask"] = observed.reshape(-1)
    return TimeSeriesDataset(
        temporal=np.column_stack(list(columns.values())).astype(np.float32),
        temporal_cols=pd.Index(list(columns)),
        indptr=np.arange(0, len(flat) + 1, rows.shape[1]),
        y_idx=0,
    )


def _calendar(task: Task) -> dict[str, Array]:
    """Hour and weekday of every row in [-1/2, 1/2], those that change."""
    stamps = pd.DatetimeIndex(task.target.index)
    found = {"hour": stamps.hour / 23 - 0.5, "weekday": stamps.day_of_week / 6 - 0.5}
    return {k: np.asarray(v, dtype=np.float64) for k, v in found.items() if v.nunique() > 1}


def _loss(name: str) -> Any:
    from neuralforecast.losses.pytorch import MSE, DistributionLoss, MQLoss

    if name == "squared":
        return MSE()
    if name == "quantiles":
        return MQLoss(quantiles=list(QUANTILE_LEVELS))
    return DistributionLoss("StudentT", quantiles=list(QUANTILE_LEVELS))


def _network_class(name: str) -> Any:
    import neuralforecast.models

    if name == "DeepAR":
        from _forecasting_deepar import SampledDeepAR

        return SampledDeepAR
    return getattr(neuralforecast.models, name)


@contextmanager
def _windows_cut_once(network: Any) -> Iterator[None]:
    """Keep the training windows, which neuralforecast cuts and copies anew for every step.

    A batch holds all series, in a new order; windows are drawn from it at random anyway.
    """
    kind = type(network)  # an attribute of the network would go into its checkpoints
    cut, kept = kind._create_windows, []

    def windows(self: Any, batch: Any, step: str) -> Any:
        if step != "train":
            return cut(self, batch, step)
        if not kept:
            kept.append(cut(self, batch, step))
        return kept[0]

    with mock.patch.object(kind, "_create_windows", windows):
        yield


def _size(network: Any) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _be_quiet() -> None:
    import neuralforecast  # noqa: F401 - sets the loggers up, so it must come first

    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|neuralforecast)(\..*)?")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
