"""Networks of latent ladders: dense, and convolutional along time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from tsvae.models.ladder import Ladder
from tsvae.nn import ConvDecoder, ConvEncoder, DenseNet, MLPEncoder
from tsvae.nn.checks import check_sizes
from tsvae.nn.convolutional import halved_steps

__all__ = ["convolutional_ladder", "perceptron_ladder"]


def perceptron_ladder(
    in_features: int,
    n_steps: int,
    latent_dims: Sequence[int],
    hidden_sizes: Sequence[int],
    *,
    skip: bool = True,
    **options: Any,
) -> Ladder:
    """Ladder of vectors, by dense networks.

    Parameters
    ----------
    in_features : int
        Channels of the records.
    n_steps : int
        T.
    latent_dims : sequence of int
        Of each level, coarsest first.
    hidden_sizes : sequence of int
        Layers between record and finest level; further levels are one layer of the last width.
    skip : bool, default=True
        See :class:`Ladder`.
    **options
        Of :class:`~tsvae.nn.DenseNet`.

    Returns
    -------
    Ladder
        Its top-down state has ``latent_dims[-1]`` channels, and ``hidden_sizes[-1]`` more with
        ``skip`` and several levels.
    """
    dims = check_sizes("latent_dims", latent_dims)
    widths = check_sizes("hidden_sizes", hidden_sizes)
    if not widths:
        raise ValueError("hidden_sizes must have at least one entry, got none")
    width = widths[-1]
    encoders: list[nn.Module] = [MLPEncoder(in_features, n_steps, widths, **options)]
    expanders: list[nn.Module] = []
    for i in range(1, len(dims)):
        encoders.append(DenseNet(width, width, (width,), **options))
        state = dims[i - 1] + (width if skip and i > 1 else 0)
        expanders.append(DenseNet(state, width, (width,), **options))
    return Ladder(encoders, expanders, dims, skip=skip)


def convolutional_ladder(
    in_features: int,
    n_steps: int,
    latent_dims: Sequence[int],
    hidden_sizes: Sequence[int],
    *,
    skip: bool = True,
    **options: Any,
) -> Ladder:
    """Ladder of maps along time, each of half the steps of the next finer one.

    Parameters
    ----------
    in_features : int
        Channels of the records.
    n_steps : int
        T.
    latent_dims : sequence of int
        Channels of each level's map, coarsest first.
    hidden_sizes : sequence of int
        Channels of each stage of stride 2. The last ones lead from level to level, one each; the
        others from the record to the finest level.
    skip : bool, default=True
        See :class:`Ladder`.
    **options
        Of :class:`~tsvae.nn.ConvEncoder` and :class:`~tsvae.nn.ConvDecoder`.

    Returns
    -------
    Ladder
        Its top-down state has ``latent_dims[-1]`` channels, and with ``skip`` and several levels
        those of the finest level's stage more.

    Raises
    ------
    ValueError
        If there are fewer stages than levels.
    """
    dims = check_sizes("latent_dims", latent_dims)
    widths = check_sizes("hidden_sizes", hidden_sizes)
    n_first = len(widths) - len(dims) + 1
    if n_first < 1:
        raise ValueError(
            f"{len(dims)} latent levels need at least as many stages, got hidden_sizes={widths}; "
            "give more hidden_sizes or lower n_levels"
        )
    steps = halved_steps(n_steps, len(widths))[n_first:]  # of each level, finest first
    encoders: list[nn.Module] = [ConvEncoder(in_features, widths[:n_first], **options)]
    encoders += [ConvEncoder(a, (b,), **options) for a, b in pairwise(widths[n_first - 1 :])]
    expanders: list[nn.Module] = []
    channels = dims[0]
    for i in range(1, len(dims)):
        fine, coarse = widths[-1 - i], widths[-i]
        expanders.append(ConvDecoder(channels, fine, steps[-1 - i], (coarse,), **options))
        channels = dims[i] + (fine if skip else 0)
    return Ladder(encoders, expanders, dims, skip=skip)
