"""What the estimators share: parameters, seeds, tags, saving and loading."""

from __future__ import annotations

import inspect
import os
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from tsvae.estimation.model_file import read_model_file, write_model_file

__all__ = ["TorchEstimator"]

_PLAIN = (bool, int, float, str, type(None))


class TorchEstimator(BaseEstimator):
    """Base of estimators that wrap a torch model.

    A subclass names what its file holds by ``_pack()`` and ``_unpack()``.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        tags.target_tags.multi_output = True
        return tags

    def _seed(self) -> int:
        """One number drawn from ``random_state``: the only source of randomness of a fit."""
        return self._draw_seed(self.random_state)  # type: ignore[attr-defined]

    @staticmethod
    def _draw_seed(random_state: Any) -> int:
        try:
            state = check_random_state(random_state)
        except ValueError:
            raise ValueError(
                f"random_state must be an int, a numpy RandomState or None, got {random_state!r}."
            ) from None
        return int(state.randint(np.iinfo(np.int32).max))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one file of tensors and JSON.

        Parameters
        ----------
        path : str or path
            Replaced as a whole, or not at all.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        TypeError
            If a parameter has no JSON form; the message names it. Callbacks are left out.
        """
        header, tensors = self._pack()
        header |= {"estimator": type(self).__name__, "parameters": self._plain_parameters()}
        write_model_file(path, header, tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a fitted estimator from a file written by :meth:`save`.

        Loading runs no code from the file.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        estimator

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it is damaged or of another origin.
        """
        header, tensors = read_model_file(path, cls.__name__)
        known = set(inspect.signature(cls).parameters)
        try:
            parameters = {k: _from_json(v) for k, v in header["parameters"].items() if k in known}
            estimator = cls(**parameters)
            estimator._unpack(header, tensors)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"{os.fspath(path)!r} is incomplete or damaged ({type(error).__name__}: {error}); "
                "write it again with save(), or copy it anew."
            ) from error
        return estimator

    def _pack(self) -> tuple[dict[str, Any], dict[str, Any]]:
        raise TypeError(f"{type(self).__name__} cannot be saved.")

    def _unpack(self, header: dict[str, Any], tensors: dict[str, Any]) -> None:
        raise TypeError(f"{type(self).__name__} cannot be loaded.")

    def _plain_parameters(self) -> dict[str, Any]:
        plain = {}
        for name, value in self.get_params(deep=False).items():
            if name == "callbacks" or isinstance(value, np.random.RandomState):
                value = None
            plain[name] = _to_json(name, value)
        return plain


def _to_json(name: str, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, tuple):
        return {"tuple": [_to_json(name, item) for item in value]}
    if isinstance(value, list | np.ndarray):
        return [_to_json(name, item) for item in value]
    if isinstance(value, dict):
        return {"items": [[_to_json(name, part) for part in item] for item in value.items()]}
    raise TypeError(
        f"parameter {name}={value!r} has no JSON form; set it to numbers or strings before save()."
    )


def _from_json(value: Any) -> Any:
    if isinstance(value, dict) and "items" in value:
        return {_from_json(key): _from_json(item) for key, item in value["items"]}
    if isinstance(value, dict):
        return tuple(_from_json(item) for item in value["tuple"])
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    return value
