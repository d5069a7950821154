"""Self-supervision: what the encoder is not shown, and disturbances of what it is.

Masks are Boolean with True = observed (or visible). Shapes: B series, T steps, F features.
Patterns can be shared by the whole batch, shape (1, T, F): series whose visible entries agree
then share one covariance recursion in the filter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Augmentation",
    "Augmented",
    "hidden_blocks",
    "hidden_entries",
    "hidden_future",
    "observed_lengths",
]


def observed_lengths(mask: Tensor) -> Tensor:
    """Count the steps up to and including the last observed one; 0 where nothing is observed.

    Parameters
    ----------
    mask : Tensor of bool of shape (B, T, F)
        True = observed.

    Returns
    -------
    Tensor of int64 of shape (B,)

    Examples
    --------
    >>> import torch
    >>> observed_lengths(torch.tensor([[[True], [False], [True], [False]]])).tolist()
    [3]
    """
    steps = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (mask.any(dim=-1) * steps).amax(dim=1)


def hidden_entries(
    shape: tuple[int, int, int],
    fraction: float,
    generator: torch.Generator,
    *,
    varied: bool = False,
) -> Tensor:
    """Hide single entries at random.

    Parameters
    ----------
    shape : tuple
        (B, T, F), or (1, T, F) for a shared pattern.
    fraction : float
        Probability that an entry is hidden.
    generator : torch.Generator
        Source of randomness.
    varied : bool, default=False
        Draw a probability for each series, evenly from half of ``fraction`` to three halves.

    Returns
    -------
    Tensor of bool, of that shape
        True = hidden; on the generator's device.
    """
    share: float | Tensor = fraction
    if varied:
        one = torch.rand((shape[0], 1, 1), generator=generator, device=generator.device)
        share = ((0.5 + one) * fraction).clamp(max=0.5 * (1.0 + fraction))  # some stay in sight
    return torch.rand(shape, generator=generator, device=generator.device) < share


def hidden_blocks(
    shape: tuple[int, int, int], n_blocks: int, length: int, generator: torch.Generator
) -> Tensor:
    """Hide blocks contiguous in time, each of one variable.

    Parameters
    ----------
    shape : tuple
        (B, T, F), or (1, T, F) for a shared pattern.
    n_blocks : int
        Blocks per series; they may overlap.
    length : int
        Steps per block, cut to T.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    Tensor of bool, of that shape
        True = hidden.
    """
    n_series, n_steps, n_features = shape
    length, device = min(length, n_steps), generator.device
    size = (n_series, n_blocks)
    first = torch.randint(n_steps - length + 1, size, generator=generator, device=device)
    feature = torch.randint(n_features, size, generator=generator, device=device)
    # (B, T, F) by marking the steps of each block in its feature's row
    steps = first[..., None] + torch.arange(length, device=device)
    hidden = torch.zeros(n_series, n_features, n_steps, dtype=torch.bool, device=device)
    series = torch.arange(n_series, device=device)[:, None, None]
    hidden[series, feature[..., None], steps] = True
    return hidden.transpose(1, 2)


def hidden_future(
    shape: tuple[int, int, int], steps: int, device: torch.device | None = None
) -> Tensor:
    """Hide the last steps of a window, so that the model is asked for a forecast.

    Parameters
    ----------
    shape : tuple
        (B, T, F); the pattern is the same for all series.
    steps : int
        Number of steps to hide.

    Returns
    -------
    Tensor of bool of shape (1, T, F)
        True = hidden.

    Examples
    --------
    >>> hidden_future((5, 4, 1), 2)[0, :, 0].tolist()
    [False, False, True, True]
    """
    _, n_steps, n_features = shape
    late = torch.arange(n_steps, device=device) >= n_steps - steps
    return late[None, :, None].expand(1, n_steps, n_features)


class Augmented(NamedTuple):
    """An augmented batch.

    Parameters
    ----------
    x : Tensor of shape (B, T, F)
        Values for the encoder: noisy, 0 where not observed.
    visible : Tensor of bool of shape (B, T, F)
        Entries shown to the encoder; a subset of ``mask``.
    mask : Tensor of bool of shape (B, T, F)
        Observed entries: the given mask, with its steps in the order of ``x``.
    target : Tensor of shape (B, T, F)
        The values without noise, in the order of ``x``.
    """

    x: Tensor
    visible: Tensor
    mask: Tensor
    target: Tensor


@dataclass(frozen=True)
class Augmentation:
    """Composition of masks and disturbances for self-supervised training.

    Parameters
    ----------
    random_fraction : float, default=0.0
        Probability that a single entry is hidden.
    n_blocks : int, default=0
        Blocks hidden per series, each contiguous in time within one variable.
    block_length : int, default=0
        Steps per block.
    future_steps : int, default=0
        Last steps of the window that are hidden.
    future_probability : float, default=1.0
        Probability, per batch, that the future is hidden.
    noise_scale : float, default=0.0
        Standard deviation of Gaussian noise added to observed entries, in units of ``x``.
    shuffle : bool, default=False
        Put the steps of each window in random order (a control that destroys all dynamics).
    shared : bool, default=True
        One pattern of hidden entries for the whole batch.
    varied : bool, default=False
        ``random_fraction`` is the mean of a probability of each series, see
        :func:`hidden_entries`: what is learned then holds for records with few gaps and with many.

    Examples
    --------
    >>> import torch
    >>> x, mask = torch.ones(2, 4, 1), torch.ones(2, 4, 1, dtype=torch.bool)
    >>> hide = Augmentation(future_steps=1)
    >>> hide(x, mask, torch.Generator().manual_seed(0)).visible[0, :, 0].tolist()
    [True, True, True, False]
    """

    random_fraction: float = 0.0
    n_blocks: int = 0
    block_length: int = 0
    future_steps: int = 0
    future_probability: float = 1.0
    noise_scale: float = 0.0
    shuffle: bool = False
    shared: bool = True
    varied: bool = False

    def __post_init__(self) -> None:
        for name in ("random_fraction", "future_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)!r}.")
        for name in ("n_blocks", "block_length", "future_steps", "noise_scale"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)!r}.")

    def __call__(self, x: Tensor, mask: Tensor, generator: torch.Generator) -> Augmented:
        """Augment a batch.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
            Values; whatever is not observed is replaced by 0.
        mask : Tensor of bool of shape (B, T, F) or (1, T, F)
            True = observed.
        generator : torch.Generator
            Source of randomness; may live on another device than ``x``.

        Returns
        -------
        Augmented
        """
        mask = mask.bool().expand_as(x)
        if self.shuffle:
            x, mask = self._in_random_order([x, mask], generator)
        return self._disturb(x, mask, generator)

    def _disturb(self, x: Tensor, mask: Tensor, generator: torch.Generator) -> Augmented:
        """Everything but the shuffling."""
        target = torch.where(mask, x, torch.zeros_like(x))
        visible = mask & ~self.hidden(tuple(x.shape), generator).to(x.device)  # type: ignore[arg-type]
        noisy = target + self._noise(target, generator) * mask if self.noise_scale else target
        return Augmented(noisy, visible, mask, target)

    def hidden(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """Draw the pattern of hidden entries.

        Parameters
        ----------
        shape : tuple
            (B, T, F).
        generator : torch.Generator
            Source of randomness.

        Returns
        -------
        Tensor of bool of shape (1, T, F) if shared, else (B, T, F)
            True = hidden.
        """
        size = (1, *shape[1:]) if self.shared else shape
        hidden = torch.zeros(size, dtype=torch.bool, device=generator.device)
        if self.random_fraction:
            hidden |= hidden_entries(size, self.random_fraction, generator, varied=self.varied)
        if self.n_blocks and self.block_length:
            hidden |= hidden_blocks(size, self.n_blocks, self.block_length, generator)
        if self.future_steps and self._draws_future(generator):
            hidden |= hidden_future(size, self.future_steps, generator.device)
        return hidden

    def augment_batch(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the batch with ``x`` and ``mask`` augmented and ``visible`` added.

        Shuffling moves ``inputs`` along with the values.

        ``target`` (values without noise) is added only if there is noise.

        Parameters
        ----------
        batch : mapping
            With ``x`` and ``mask``.
        generator : torch.Generator
            Source of randomness.
        """
        result = dict(batch)
        x, mask = batch["x"], batch["mask"].bool().expand_as(batch["x"])
        if self.shuffle:
            names = ["inputs"] if "inputs" in batch else []
            moved = [x, mask, *(batch[name] for name in names)]
            x, mask, *others = self._in_random_order(moved, generator)
            result.update(zip(names, others, strict=True))
            result["lengths"] = observed_lengths(mask)
        augmented = self._disturb(x, mask, generator)
        result |= {"x": augmented.x, "mask": augmented.mask, "visible": augmented.visible}
        if self.noise_scale:
            result["target"] = augmented.target
        return result

    def _draws_future(self, generator: torch.Generator) -> bool:
        if self.future_probability == 1:
            return True
        draw = torch.rand((), generator=generator, device=generator.device)
        return bool(draw < self.future_probability)

    def _in_random_order(self, values: list[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Permute the steps of all tensors (B, T, ...) alike, each series by itself."""
        size = values[0].shape[:2]
        keys = torch.rand(size, generator=generator, device=generator.device)
        order = keys.argsort(dim=1).to(values[0].device)[..., None]
        return [torch.take_along_dim(value, order, dim=1) for value in values]

    def _noise(self, x: Tensor, generator: torch.Generator) -> Tensor:
        draws = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
        return draws.to(x.device) * self.noise_scale
