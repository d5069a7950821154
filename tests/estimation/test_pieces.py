"""Long series cut into pieces: every row once, bounded batches, the same values in any batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsvae import SVAEForecaster
from tsvae.estimation import engine as engine_module
from tsvae.estimation.pieces import batches_of_pieces
from tsvae.models import origins

sizes = st.integers(1, 30)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sizes, sizes, st.integers(1, 12), st.booleans(), st.booleans(), st.integers(1, 60))
def test_each_row_belongs_to_one_piece(n_series, n_steps, body, look_ahead, mix, most_rows):
    rows = np.zeros((n_series, n_steps), dtype=int)
    for batch in batches_of_pieces(
        n_series, n_steps, body, look_ahead=look_ahead, most_rows=most_rows, mix=mix
    ):
        assert len(batch.series) == 1 or len(batch.series) * batch.width <= most_rows
        assert mix or len(np.unique(batch.start)) == 1
        end = batch.begin + batch.width
        assert (batch.begin == np.maximum(batch.start - body, 0)).all()
        assert (end == np.minimum(batch.stop + body * look_ahead, n_steps)).all()
        for series, start, stop in zip(batch.series, batch.start, batch.stop, strict=True):
            rows[series, start:stop] += 1
    assert (rows == 1).all()


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = np.sin(np.arange(150)[None, :, None] / 4) + 0.2 * rng.normal(size=(3, 150, 2))
    x[1, 20:50, 0] = x[2, 120:] = np.nan
    x[0, rng.random((150, 2)) < 0.1] = np.nan
    return x


@pytest.fixture(scope="module", params=["normal", "laplace"])
def fitted(request, data):
    return (
        SVAEForecaster(
            5, context_length=20, latent_dim=4, max_epochs=1, random_state=0, n_samples=3
        )
        .set_params(likelihood=request.param)
        .fit(data)
    )


@pytest.mark.parametrize("method", ["impute", "transform", "score_samples", "predict"])
def test_batches_change_nothing(fitted, data, method, monkeypatch):
    together = getattr(fitted, method)(data)
    monkeypatch.setattr(origins, "_STATES_AT_ONCE", 1)
    if fitted.likelihood == "normal":  # draws belong to batches: those of sampled models stay
        monkeypatch.setattr(engine_module, "_ENTRIES_PER_PASS", 1)
        monkeypatch.setattr(engine_module, "_STATES_PER_PASS", 1)
    apart = getattr(fitted, method)(data)
    scale = np.nanstd(together)
    np.testing.assert_allclose(apart, together, atol=2e-4 * scale, rtol=1e-4)


@pytest.mark.parametrize("fitted", ["normal"], indirect=True)
def test_passes_do_not_grow_with_the_series(fitted, monkeypatch):
    widths = []
    run = engine_module.smooth_latents

    def counted(model, x, *args, **options):
        widths.append(x.shape[1])
        return run(model, x, *args, **options)

    monkeypatch.setattr(engine_module, "smooth_latents", counted)
    x = np.random.default_rng(1).normal(size=(3, 1000, 2))
    x[:, 50] = x[:, 500] = np.nan
    fitted.transform(x[:, :100])
    fitted.transform(x)
    # The first and the last piece of a series have one margin, those between them two.
    assert widths == [40, 60, 40, 60]
