"""Known conditions of a record, as numbers that networks can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tsvae.nn.checks import check_size, check_sizes
from tsvae.nn.layers import fill_normal, private_generator

__all__ = ["ConditionEmbedding"]


class ConditionEmbedding(nn.Module):
    """Continuous and categorical conditions ``(B, C)`` as one vector per record ``(B, E)``.

    The first ``n_continuous`` columns pass as they are; each further column holds the index of a
    category, 0 to its number of categories - 1.

    Parameters
    ----------
    n_continuous : int, default=0
        Continuous columns. Standardise them: networks read them as they are.
    n_categories : sequence of int, default=()
        Number of categories of each categorical column.
    embedding : {"onehot", "learned"}, default="onehot"
        Categories as indicator columns, or as learned vectors (for many categories).
    embedding_dim : int, default=8
        Length of a learned vector.
    generator : torch.Generator, optional
        Source of the learned vectors' start; None: a private one with seed 0.

    Attributes
    ----------
    n_conditions : int
        C, columns of the condition.
    out_features : int
        E.

    Examples
    --------
    >>> embed = ConditionEmbedding(1, (3,))
    >>> embed(torch.tensor([[0.5, 2.0]]))
    tensor([[0.5000, 0.0000, 0.0000, 1.0000]])
    >>> embed(torch.tensor([[0.5, 3.0]]))
    Traceback (most recent call last):
        ...
    ValueError: condition column 1 has the unknown category 3.0 (record 0): the model knows 3
    categories, given as 0 to 2
    """

    def __init__(
        self,
        n_continuous: int = 0,
        n_categories: Sequence[int] = (),
        *,
        embedding: Literal["onehot", "learned"] = "onehot",
        embedding_dim: int = 8,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_continuous = check_size("n_continuous", n_continuous, minimum=0)
        self.n_categories = check_sizes("n_categories", n_categories)
        self.n_conditions = self.n_continuous + len(self.n_categories)
        if not self.n_conditions:
            raise ValueError(
                "a condition needs at least one column: give n_continuous (number of continuous "
                "columns) or n_categories (number of categories of each categorical column)"
            )
        if embedding not in ("onehot", "learned"):
            raise ValueError(f"embedding must be 'onehot' or 'learned', got {embedding!r}")
        width = check_size("embedding_dim", embedding_dim)
        self.tables: nn.ParameterList | None = None
        if embedding == "learned":
            self.tables = nn.ParameterList(torch.zeros(n, width) for n in self.n_categories)
            generator = private_generator(generator)
            for table in self.tables:
                fill_normal(table, 1.0, generator)
        learned = width * len(self.n_categories)
        self.out_features = self.n_continuous + (
            sum(self.n_categories) if self.tables is None else learned
        )

    def forward(self, condition: Tensor) -> Tensor:
        """Embed.

        Parameters
        ----------
        condition : Tensor, shape (B, C)
            Continuous columns first.

        Returns
        -------
        Tensor, shape (B, E)

        Raises
        ------
        ValueError
            If the shape is wrong, a value is not finite, or a category is not known.
        """
        self._check(condition)
        parts = [condition[:, : self.n_continuous]]
        for i, n in enumerate(self.n_categories):
            category = condition[:, self.n_continuous + i]
            if self.tables is None:
                known = torch.arange(n, device=condition.device, dtype=condition.dtype)
                parts.append((category[:, None] == known).to(condition.dtype))
            else:
                parts.append(self.tables[i][category.long()].to(condition.dtype))
        return torch.cat(parts, dim=1)

    def _check(self, condition: Tensor) -> None:
        if condition.ndim != 2 or condition.shape[1] != self.n_conditions:
            raise ValueError(
                f"condition must have shape (B, {self.n_conditions}), {self.n_continuous} "
                f"continuous and {len(self.n_categories)} categorical columns, got "
                f"{tuple(condition.shape)}"
            )
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return  # values are not known there
        wrong = ~torch.isfinite(condition)
        if bool(wrong.any()):
            record, column = (int(i) for i in wrong.nonzero()[0])
            raise ValueError(
                f"condition column {column} is {float(condition[record, column])} in record "
                f"{record}; conditions cannot be missing: fill them in, or drop the record"
            )
        for i, n in enumerate(self.n_categories):
            column = self.n_continuous + i
            values = condition[:, column]
            wrong = (values != values.round()) | (values < 0) | (values >= n)
            if bool(wrong.any()):
                record = int(wrong.nonzero()[0])
                raise ValueError(
                    f"condition column {column} has the unknown category "
                    f"{float(values[record])} (record {record}): the model knows {n} categories, "
                    f"given as 0 to {n - 1}"
                )
