"""Errors of the training loop: each names the place and the remedy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["DivergenceError", "memory_errors_name_batch_size"]

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class DivergenceError(FloatingPointError):
    """Training met an objective that is NaN or infinite.

    Parameters
    ----------
    message : str
        What happened and what to do.
    epoch, step : int
        Where it happened, counted from 0.
    terms : tuple of str
        Diagnostics that were not finite, in the model's order.
    """

    def __init__(
        self, message: str, *, epoch: int = -1, step: int = -1, terms: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step
        self.terms = terms


def divergence(
    value: float,
    diagnostics: Mapping[str, Tensor | float],
    *,
    epoch: int,
    step: int,
    learning_rate: float | None,
    grad_norm: Tensor | float | None = None,
    validating: bool = False,
) -> DivergenceError:
    """Build the error for an objective that is not finite."""
    terms = tuple(name for name, term in diagnostics.items() if not _all_finite(term))
    if terms:
        cause = "not finite among its terms: " + ", ".join(repr(name) for name in terms)
    elif grad_norm is not None and not _all_finite(grad_norm):
        cause = "the gradient of the step before was not finite"
    else:
        cause = "every reported term is finite, so the sum overflowed or one term is unreported"
    where = "validation criterion" if validating else "training objective"
    advice = "Check"
    if learning_rate is not None:  # None: nothing was trained yet
        advice = f"Use a smaller learning_rate (it was {learning_rate:.3g}), and check"
    return DivergenceError(
        f"The {where} is {value} in epoch {epoch}, step {step}; {cause}. {advice} the scaling of "
        "the data: very large values and columns that are nearly constant are common causes.",
        epoch=epoch,
        step=step,
        terms=terms,
    )


def _all_finite(value: Tensor | float) -> bool:
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all())
    return math.isfinite(value)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device or the host ran out of memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error).lower() for text in _OUT_OF_MEMORY
    )


@contextmanager
def memory_errors_name_batch_size(batch_size: int) -> Iterator[None]:
    """Turn any out-of-memory error inside the block into one that names ``batch_size``.

    Parameters
    ----------
    batch_size : int
        The batch size in use.

    Raises
    ------
    MemoryError
        With a smaller ``batch_size`` to try.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if batch_size > 1:
            remedy = f"try batch_size={max(1, batch_size // 2)}"
        else:
            remedy = "it cannot be smaller: use shorter windows or a smaller model"
        raise MemoryError(
            f"Out of memory with batch_size={batch_size}; {remedy} "
            "(accumulate=2 keeps the effective batch)."
        ) from error
