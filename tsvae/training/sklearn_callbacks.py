"""Bridge to scikit-learn's own callback protocol (``sklearn.callback``, from 1.9, experimental).

With an older scikit-learn, or one whose protocol has changed, everything here falls back to
doing nothing: an estimator built on it trains all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tsvae.training.callbacks import Callback
from tsvae.training.state import TrainingState

__all__ = ["SklearnCallbacks", "callback_support_mixin", "with_callbacks"]

Method = TypeVar("Method", bound=Callable[..., Any])


def callback_support_mixin() -> type:
    """Class that gives an estimator ``set_callbacks``, or an empty one.

    Returns
    -------
    type
        ``sklearn.callback.CallbackSupportMixin`` where there is one.
    """
    try:
        from sklearn.callback import CallbackSupportMixin
    except ImportError:
        return type("CallbackSupportMixin", (), {})
    return CallbackSupportMixin  # type: ignore[no-any-return]


def with_callbacks(method: Method) -> Method:
    """Decorate ``fit`` so that scikit-learn's callbacks are torn down, whatever happens.

    Parameters
    ----------
    method : callable
        An estimator's ``fit``.
    """
    try:
        from sklearn.callback import with_callbacks as decorate
    except ImportError:
        return method
    return decorate(method)  # type: ignore[no-any-return]


class SklearnCallbacks(Callback):
    """Tells the scikit-learn callbacks of an estimator about every epoch.

    An epoch is a subtask of ``fit``. Does nothing if the estimator has no callbacks.

    Parameters
    ----------
    estimator : estimator
        Being fitted, by a ``fit`` decorated with :func:`with_callbacks`.
    fitted_attributes : callable, optional
        Returns, when asked, the attributes that make a copy of the estimator ready to predict.
        Callbacks that score the estimator need them.
    X, y : optional
        Training data for those callbacks.
    """

    def __init__(
        self,
        estimator: Any,
        fitted_attributes: Callable[[], dict[str, Any]] | None = None,
        X: Any = None,
        y: Any = None,
    ) -> None:
        self.estimator = estimator
        self.fitted_attributes = fitted_attributes
        self.X, self.y = X, y
        self._context: Any = None
        self._task: Any = None

    def on_fit_start(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_fit_start`."""
        if not getattr(self.estimator, "_skl_callbacks", None):
            return
        begin = getattr(self.estimator, "_init_callback_context", None)
        if begin is None:
            return
        epochs = state.config.max_epochs - state.epoch
        self._context = begin(max_subtasks=epochs)
        self._call(self._context, "call_on_fit_task_begin")
        self._begin_epoch()

    def on_epoch_end(self, state: TrainingState) -> bool:
        """See :meth:`Callback.on_epoch_end`."""
        if self._task is None:
            return False
        stop = bool(self._call(self._task, "call_on_fit_task_end", self.fitted_attributes))
        self._task = None
        if state.epoch < state.config.max_epochs and not stop:
            self._begin_epoch()
        return stop

    def on_fit_end(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_fit_end`."""
        if self._context is not None:
            self._call(self._context, "call_on_fit_task_end", self.fitted_attributes)
        self._context = self._task = None

    def _begin_epoch(self) -> None:
        self._task = self._context.subcontext(task_name="epoch")
        self._call(self._task, "call_on_fit_task_begin")

    def _call(self, context: Any, hook: str, attributes: Any = None) -> Any:
        settings = {"estimator": self.estimator, "X": self.X, "y": self.y}
        if attributes is not None:
            settings["reconstruction_attributes"] = attributes
        return getattr(context, hook)(**settings)
