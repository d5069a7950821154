r"""Step-by-step recursions in time and their hand-written gradients.

Where coefficients stay the same (module ``steady``) the first two skip ahead:

- affine, :math:`m_t = F_t m_{t-1} + g_t` (state means and samples);
- congruence, :math:`X_t = F_t X_{t-1} F_t' + C_t` (smoothed and forecast covariances);
- Riccati, :math:`P_t = A S_{t-1} A' + Q,\; S_t = (P_t^{-1} + \Lambda_t)^{-1}` (filter covariances).

Autograd through thousands of tiny steps costs a graph node per operation, so each recursion is one
``autograd.Function`` whose backward pass is the adjoint recursion. For the affine one,

.. math:: \lambda_t = \bar m_t + F_{t+1}' \lambda_{t+1}, \quad
          \bar g_t = \lambda_t, \quad \bar F_t = \lambda_t m_{t-1}',

for the congruence one the same with :math:`Y_t = \bar X_t + F_{t+1}' Y_{t+1} F_{t+1}`. For the
Riccati recursion, with :math:`X_t = (P_t + \Lambda_t^{-1})^{-1}` and
:math:`I - S_t \Lambda_t = I - P_t X_t =: J_t`, the differentials are

.. math:: dS = J\,dP\,J' - S\,d\Lambda\,S, \qquad
          d\log|I + P \Lambda| = tr(X\,dP) + tr(S\,d\Lambda),

so the adjoint is again a congruence recursion, with matrices :math:`J_t A`. The gradients are
exact, first-order only, and cost O(T) memory.

Layout here: time first, then one batch axis N of independent matrices; vectors as rows
``(T, N, R, K)`` with R the number of vectors that share a matrix.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.linalg import (
    identity_like,
    safe_cholesky,
    semidefinite_factor,
    symmetrize,
)
from tsvae.lds.memory import empty
from tsvae.lds.steady import (
    CHUNKED_FROM,
    Run,
    Settling,
    common_runs,
    constant_affine,
    equal_runs,
    mirrored,
)
from tsvae.lds.stepping import kind_of_steps

# Numbers that one step of an affine recursion touches, below which chunks side by side beat the
# loop over all steps.
CHUNKED_BELOW = 1 << 16


def affine_loop(
    matrices: Tensor,
    constants: Tensor,
    reverse: bool,
    of_past: bool = False,
    runs: list[Run] | None = None,
) -> Tensor:
    """Row form ``m_t = m_prev @ matrices_t + constants_t``, without gradient.

    The first visited step has no past. Shapes as in ``affine_scan``; over runs of equal matrices
    the recursion is taken by chunks where a step alone is too small to keep a processor busy.
    ``of_past``: a step takes the matrix of the step visited before it. ``runs``: where matrices are
    known to stay the same; looked for if None.
    """
    out = constants.clone(memory_format=torch.contiguous_format)
    n_steps, n, rows, size = constants.shape
    if n * rows * size * size > CHUNKED_BELOW:
        runs = []
    elif runs is None:
        runs = equal_runs(matrices)
    if reverse:
        runs = mirrored(runs, n_steps)
    shift = int(of_past)
    jumps = {
        max(run.start + shift, 1): run.stop for run in runs if run.stop - run.start > CHUNKED_FROM
    }
    moves = range(n_steps)[:: -1 if reverse else 1]
    kind = kind_of_steps(matrices)
    matrix, target = kind.views(matrices), kind.views(out)
    now = past = moves[0]
    state, step = target[now], 1
    while step < n_steps:
        past, now = now, moves[step]
        link = past if of_past else now
        if step in jumps:
            end = jumps[step]
            block = slice(step, end) if not reverse else slice(n_steps - end, n_steps - step)
            constant_affine(matrices[link], constants[block], out[past], reverse, out[block])
            step, now = end, moves[end - 1]
            state = target[now]
            continue
        here = target[now]
        kind.add_product(here, state, matrix[link], out=here)
        state = here
        step += 1
    return out


def congruence_loop(
    matrices: Tensor,
    constants: Tensor,
    reverse: bool,
    of_past: bool = False,
    out: Tensor | None = None,
    runs: list[Run] | None = None,
    halves: Tensor | None = None,
) -> Tensor:
    """``X_t = F_t X_prev F_t' + C_t``, without gradient; the first visited step has no past.

    Where F and C stay the same, the recursion ends when it has settled and the rest is filled in.
    ``of_past``: a step takes the matrix of the step visited before it. ``out`` may be
    ``constants``. ``runs``: where both are known to stay the same; looked for if None. ``halves``
    takes ``F_t X_prev``, zero at the first visited step.
    """
    if out is None:
        out = empty(constants.shape, constants)
    n_steps = constants.shape[0]
    if runs is None:
        runs = equal_runs(matrices)
        runs = common_runs(runs, equal_runs(constants)) if runs else []
    if of_past:
        moved = -1 if reverse else 1
        runs = [Run(max(a + moved, a), min(b + moved, b)) for a, b in runs]
    settling = Settling(mirrored(runs, n_steps) if reverse else runs, constants.dtype)
    moves = range(n_steps)[:: -1 if reverse else 1]
    kind = kind_of_steps(matrices)
    matrix, transposed = kind.views(matrices), kind.views(matrices.mT)
    constant, target = kind.views(constants), kind.views(out)
    kept = None if halves is None else kind.views(halves)
    now = past = moves[0]
    out[now] = constants[now]
    if halves is not None:
        halves[now].zero_()
    state, half, step = target[now], None, 1
    while step < n_steps:
        end = settling.stop(out[now]) if settling.looks(step - 1) else None
        if end is not None:
            rest = slice(step, end) if not reverse else slice(n_steps - end, n_steps - step)
            out[rest] = out[now]
            if halves is not None:
                halves[rest] = halves[now]
            step, now = end, moves[end - 1]
            state = target[now]
            continue
        past, now = now, moves[step]
        link = past if of_past else now
        half = kind.product(matrix[link], state, half if kept is None else kept[now])
        state = target[now]
        kind.add_product(constant[now], half, transposed[link], out=state)
        step += 1
    return out


def _towards_past(sequence: Tensor, reverse: bool) -> Tensor:
    """Row t holds what the step visited just before t holds (zeros at the first visited)."""
    zero = torch.zeros_like(sequence[:1])
    if reverse:
        return torch.cat((sequence[1:], zero))
    return torch.cat((zero, sequence[:-1]))


class _AffineScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrices: Tensor, constants: Tensor, reverse: bool) -> Tensor:
        states = affine_loop(matrices.mT, constants, reverse)
        ctx.reverse = reverse
        ctx.save_for_backward(matrices, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        matrices, states = ctx.saved_tensors
        # The adjoint runs the other way and uses the matrix of the step it comes from.
        adjoint = affine_loop(matrices, grad, not ctx.reverse, of_past=True)
        grad_matrices = None
        if ctx.needs_input_grad[0]:
            grad_matrices = adjoint.mT @ _towards_past(states, ctx.reverse)
        return grad_matrices, adjoint, None


class _CongruenceScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrices: Tensor, constants: Tensor, reverse: bool) -> Tensor:
        states = congruence_loop(matrices, constants, reverse)
        ctx.reverse = reverse
        ctx.save_for_backward(matrices, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        matrices, states = ctx.saved_tensors
        adjoint = congruence_loop(matrices.mT, grad, not ctx.reverse, of_past=True)
        grad_matrices = None
        if ctx.needs_input_grad[0]:
            past = _towards_past(states, ctx.reverse)
            grad_matrices = adjoint @ matrices @ past.mT + adjoint.mT @ matrices @ past
        return grad_matrices, adjoint, None


def affine_scan(matrices: Tensor, constants: Tensor, reverse: bool = False) -> Tensor:
    """Run ``m_t = F_t m_{t-1} + g_t`` with ``m_0 = g_0`` for row vectors.

    Parameters
    ----------
    matrices : Tensor (T, N, K, K)
        F; the one at the first visited step is ignored.
    constants : Tensor (T, N, R, K)
        g, R vectors for each matrix.
    reverse : bool, default=False
        Run from the last step to the first: ``m_t = F_t m_{t+1} + g_t``.

    Returns
    -------
    Tensor (T, N, R, K)
    """
    result: Tensor = _AffineScan.apply(matrices, constants, reverse)  # type: ignore[no-untyped-call]
    return result


def congruence_scan(matrices: Tensor, constants: Tensor, reverse: bool = False) -> Tensor:
    """Run ``X_t = F_t X_{t-1} F_t' + C_t`` with ``X_0 = C_0``; all ``(T, N, K, K)``."""
    result: Tensor = _CongruenceScan.apply(matrices, constants, reverse)  # type: ignore[no-untyped-call]
    return result


class CovarianceRecursion(NamedTuple):
    """Everything about a filter pass that does not depend on observed values.

    Attributes
    ----------
    predicted : Tensor (T, N, K, K)
        P_t, covariance before the potential of step t.
    filtered : Tensor (T, N, K, K)
        S_t, after it. The gain on a residual ``h - Lambda m`` is S_t itself.
    log_det : Tensor (T, N)
        ``log |I + P_t Lambda_t|``.
    """

    predicted: Tensor
    filtered: Tensor
    log_det: Tensor


def covariance_recursion(
    transition: Tensor, noise: Tensor, initial: Tensor, precision: Tensor
) -> CovarianceRecursion:
    """Riccati recursion of the filter, free of the batch of series.

    It takes any size and singular A, Q; ``filtering.ways`` prefers faster recursions, which are
    tested against it.

    Parameters
    ----------
    transition, noise, initial : Tensor (N, K, K)
        A, Q and the covariance of the first state.
    precision : Tensor (T, N, K, K)
        Potentials' precisions, positive semidefinite.

    Returns
    -------
    CovarianceRecursion
    """
    outputs = _Riccati.apply(transition, noise, initial, precision)  # type: ignore[no-untyped-call]
    return CovarianceRecursion(*outputs)


class _Update(NamedTuple):
    """Forward results of the Riccati recursion plus X_t = (P_t + Lambda_t^-1)^-1."""

    predicted: Tensor
    filtered: Tensor
    log_det: Tensor
    shrinkage: Tensor


def _riccati(a: Tensor, q: Tensor, p: Tensor, precision: Tensor) -> _Update:
    # With Lambda = W W' an update is one by unit-noise observations W'z: N = I + W'PW is well
    # scaled (diagonal scaling does not matter to Cholesky), and Joseph's form keeps S >= 0.
    factors = semidefinite_factor(precision)
    predicted, filtered = torch.empty_like(precision), torch.empty_like(precision)
    roots: list[Tensor] = []
    eye = identity_like(p).expand_as(p)
    transposed = a.mT
    for w, wt, before, after in zip(
        factors.unbind(0),
        factors.mT.unbind(0),
        predicted.unbind(0),
        filtered.unbind(0),
        strict=True,
    ):
        before.copy_(p)
        pw = torch.bmm(p, w)
        root, failed = torch.linalg.cholesky_ex(torch.baddbmm(eye, wt, pw))
        if bool(failed.any()):
            root = safe_cholesky(symmetrize(torch.baddbmm(eye, wt, pw)))
        gain = torch.cholesky_solve(pw.mT, root)  # transposed gain, N^-1 W'P
        keep = torch.baddbmm(eye, gain.mT, wt, alpha=-1.0)
        kept = torch.bmm(torch.bmm(keep, p), keep.mT)
        torch.baddbmm(kept, gain.mT, gain, out=after)
        p = torch.baddbmm(q, torch.bmm(a, after), transposed)
        roots.append(root)
    root = torch.stack(roots)
    log_det = 2.0 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    half = torch.linalg.solve_triangular(root, factors.mT, upper=False)
    return _Update(predicted, filtered, log_det, half.mT @ half)


class _Riccati(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, transition: Tensor, noise: Tensor, initial: Tensor, precision: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        update = _riccati(transition, noise, initial, precision.contiguous())
        # Rounding leaves an asymmetry of the last digit.
        predicted, filtered = symmetrize(update.predicted), symmetrize(update.filtered)
        ctx.save_for_backward(transition, predicted, filtered, update.shrinkage)
        return predicted, filtered, update.log_det

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_predicted: Tensor, grad_filtered: Tensor, grad_log_det: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        a, predicted, filtered, shrinkage = ctx.saved_tensors
        weight = grad_log_det[..., None, None]
        keep = identity_like(a) - predicted @ shrinkage
        into_predicted = symmetrize(grad_predicted) + weight * shrinkage
        from_next = a.mT @ into_predicted[1:] @ a
        constant = symmetrize(grad_filtered)
        constant = torch.cat((constant[:-1] + from_next, constant[-1:]))
        adjoint = congruence_loop((keep @ a).mT, constant, reverse=True, of_past=True)
        total = into_predicted + keep.mT @ adjoint @ keep
        grad_precision = weight * filtered - filtered @ adjoint @ filtered
        grad_transition = 2.0 * (total[1:] @ a @ filtered[:-1]).sum(0)
        return grad_transition, total[1:].sum(0), total[0], grad_precision
