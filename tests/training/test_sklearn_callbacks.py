from __future__ import annotations

import sys

import pytest
from sklearn.base import BaseEstimator

from tsvae.training import SklearnCallbacks, callback_support_mixin, train, with_callbacks


def build(toys):
    """A tiny estimator as scikit-learn's callback protocol wants it."""

    class Estimator(callback_support_mixin(), BaseEstimator):
        @with_callbacks
        def fit(self, X=None, y=None):
            adapter = SklearnCallbacks(self, lambda: {"fitted_": True}, X=X)
            self.log_ = train(
                toys.Quadratic(),
                toys.target,
                config=toys.config(),
                generator=toys.generator(),
                callbacks=[adapter],
            )
            return self

    return Estimator


def test_estimators_without_callbacks_train_as_ever(toys):
    estimator = build(toys)().fit()
    assert len(estimator.log_.rows) == 3
    assert not hasattr(estimator, "_callback_fit_ctx")


def test_sklearn_callbacks_see_every_epoch_and_can_stop(toys):
    pytest.importorskip("sklearn.callback")

    class Spy:
        def __init__(self, stop_at=None):
            self.calls, self.stop_at = [], stop_at

        def setup(self, estimator, context):
            self.calls.append(("setup", context.max_subtasks))

        def on_fit_task_begin(self, estimator, context):
            self.calls.append(("begin", context.task_name, context.task_id))

        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            assert fitted_estimator.fitted_
            self.calls.append(("end", context.task_name, context.task_id))
            return context.task_name == "epoch" and context.task_id == self.stop_at

        def teardown(self, estimator, context):
            self.calls.append(("teardown",))

    spy = Spy()
    build(toys)().set_callbacks(spy).fit()
    epochs = [(kind, "epoch", i) for i in range(3) for kind in ("begin", "end")]
    assert spy.calls == [
        ("setup", 3),
        ("begin", "fit", 0),
        *epochs,
        ("end", "fit", 0),
        ("teardown",),
    ]
    stopped = build(toys)().set_callbacks(Spy(stop_at=1)).fit()
    assert len(stopped.log_.rows) == 2 and stopped.log_.stop_reason == "callback"


def test_fallback_without_the_protocol(toys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    mixin = callback_support_mixin()
    assert mixin.__bases__ == (object,) and not hasattr(mixin, "set_callbacks")
    assert len(build(toys)().fit().log_.rows) == 3
