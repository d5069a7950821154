"""Steps of recursions over small matrices: by PyTorch, or by numpy and LAPACK where it is cheaper.

A product of two 50 x 50 matrices takes no longer than a call of PyTorch and the views that it
needs. Calls and views of numpy cost a fraction of that: one matrix a step, as all series share
it while nothing is missing, is left to numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import lapack
from torch import Tensor

from tsvae.lds.steady import step_views

# Beyond this size calls no longer count, and numpy's BLAS starts threads of its own.
LARGEST_ON_HOST = 64
_ROUTINES = {
    np.float32: (lapack.spotrf, lapack.strtri),
    np.float64: (lapack.dpotrf, lapack.dtrtri),
}
_DTYPES = (torch.float32, torch.float64)


class TensorSteps:
    """Steps ``(N, ., .)`` of ``(T, N, ., .)``, with many matrices each."""

    @staticmethod
    def views(values: Tensor) -> Any:
        """Give every step."""
        return step_views(values)

    @staticmethod
    def one(values: Tensor) -> Any:
        """Give the only step."""
        return values

    @staticmethod
    def product(left: Any, right: Any, out: Any = None) -> Any:
        """``left right``."""
        return torch.bmm(left, right, out=out)

    @staticmethod
    def add_product(constant: Any, left: Any, right: Any, out: Any) -> None:
        """``out = constant + left right``; ``out`` may be the constant."""
        torch.baddbmm(constant, left, right, out=out)

    @staticmethod
    def subtract_product(constant: Any, left: Any, right: Any, out: Any) -> None:
        """``out = constant - left right``; ``out`` may be the constant."""
        torch.baddbmm(constant, left, right, alpha=-1.0, out=out)


class HostSteps:
    """The same for one matrix a step, as arrays ``(., .)``."""

    @staticmethod
    def views(values: Tensor) -> Any:
        """Give every step."""
        return values.detach().numpy()[:, 0]

    @staticmethod
    def one(values: Tensor) -> Any:
        """Give the only step."""
        return values.detach().numpy()[0]

    @staticmethod
    def product(left: Any, right: Any, out: Any = None) -> Any:
        """``left right``."""
        return np.matmul(left, right, out=out)

    @staticmethod
    def add_product(constant: Any, left: Any, right: Any, out: Any) -> None:
        """``out = constant + left right``; ``out`` may be the constant."""
        np.add(constant, left @ right, out=out)

    @staticmethod
    def subtract_product(constant: Any, left: Any, right: Any, out: Any) -> None:
        """``out = constant - left right``; ``out`` may be the constant."""
        np.subtract(constant, left @ right, out=out)


def products(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """Products of matrices ``(N, ., .)``: small ones by numpy, larger ones on PyTorch's threads."""
    rows, inner = left.shape[-2:]
    if rows * inner * right.shape[-1] <= LARGEST_ON_HOST**3:
        found: NDArray[Any] = left @ right
        return found
    return torch.bmm(torch.from_numpy(left), torch.from_numpy(right)).numpy()


StepKind = type[TensorSteps] | type[HostSteps]


def are_for_host(matrices: int, size: int, like: Tensor) -> bool:
    """Whether steps of so many matrices of that size, of the type of ``like``, belong there."""
    small = matrices == 1 and size <= LARGEST_ON_HOST
    return small and like.is_cpu and like.dtype in _DTYPES


def kind_of_steps(matrices: Tensor) -> StepKind:
    """Cheaper kind for recursions with ``matrices (T, N, K, K)``."""
    on_host = are_for_host(matrices.shape[1], matrices.shape[-1], matrices)
    return HostSteps if on_host else TensorSteps


class InverseRoots:
    """Turns a step's matrix into the inverse of its Cholesky factor, in place.

    Parameters
    ----------
    matrices : ndarray (T, K, K)
        Contiguous, float32 or float64.
    """

    def __init__(self, matrices: NDArray[Any]) -> None:
        self.potrf, self.trtri = _ROUTINES[matrices.dtype.type]
        # LAPACK's columns are our rows: X = U'U, and U^-1 by columns is L^-1 by rows.
        self.columns = matrices.swapaxes(1, 2)

    def __call__(self, step: int) -> bool:
        """Whether the matrix of this step is positive definite; if so, it is replaced."""
        factor, failed = self.potrf(self.columns[step], lower=0, clean=1, overwrite_a=1)
        if not failed:
            _, failed = self.trtri(factor, lower=0, overwrite_c=1)
        return not failed
