"""A recurrent prior over sequences of codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsvae.models.code_counts import check_codes
from tsvae.nn.checks import check_size
from tsvae.nn.layers import Linear, fill_normal, fill_uniform, private_generator
from tsvae.training import LossResult, TrainingConfig, train

__all__ = ["AutoregressiveCodePrior"]


class AutoregressiveCodePrior(nn.Module):
    r"""Recurrent network (GRU) over codes: each depends on all before it and on its position.

    .. math:: p(c_1, ..., c_L) = \prod_t p(c_t | c_{<t}, t)

    Parameters
    ----------
    n_codes : int
        K, size of the alphabet.
    n_steps : int
        L, steps of a sequence.
    embedding_dim : int, default=32
        Width of the codes' and positions' embeddings.
    hidden_size : int, default=128
        Width of the recurrent state.
    max_epochs : int, default=100
        Longest training; it stops earlier when the held-out sequences get no likelier.
    max_steps : int, default=3000
        Limit in optimizer steps: many sequences need fewer passes.
    batch_size : int, default=64
    learning_rate : float, default=3e-3
    patience : int, default=5
        Epochs without improvement on the held-out sequences.
    validation_fraction : float, default=0.1
        Share of sequences held out; 0 trains to the end on all.
    generator : torch.Generator, optional
        Source of the initial parameters; None: a private one with seed 0.

    References
    ----------
    van den Oord et al. 2017 (arXiv 1711.00937), section 3.3 (an autoregressive prior over codes,
    fitted after the VQ-VAE); Cho et al. 2014 (arXiv 1406.1078), equations 5 to 8 (GRU).

    Examples
    --------
    >>> prior = AutoregressiveCodePrior(4, 3, hidden_size=8)
    >>> prior.log_prob(torch.tensor([[0, 3, 1]])).shape
    torch.Size([1])
    """

    trained: Tensor

    def __init__(
        self,
        n_codes: int,
        n_steps: int,
        *,
        embedding_dim: int = 32,
        hidden_size: int = 128,
        max_epochs: int = 100,
        max_steps: int = 3000,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        patience: int = 5,
        validation_fraction: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_codes = check_size("n_codes", n_codes)
        self.n_steps = check_size("n_steps", n_steps)
        if not 0.0 <= validation_fraction < 1.0:
            raise ValueError(
                f"validation_fraction must be at least 0 and below 1, got {validation_fraction!r}"
            )
        self.validation_fraction = validation_fraction
        self.config = TrainingConfig(
            max_epochs=max_epochs,
            max_steps=max_steps,
            batch_size=check_size("batch_size", batch_size),
            learning_rate=learning_rate,
            patience=patience,
            device="cpu",
        )
        width = check_size("embedding_dim", embedding_dim)
        hidden = check_size("hidden_size", hidden_size)
        # Code K stands for "nothing before": it starts every sequence.
        self.embedding = nn.Parameter(torch.zeros(self.n_codes + 1, width))
        self.position = nn.Parameter(torch.zeros(self.n_steps, width))
        # By way of "meta", where torch's own draws of the initial weights touch no global state.
        recurrent = nn.GRU(width, hidden, batch_first=True, device="meta")
        self.recurrent = recurrent.to_empty(device="cpu")
        self.head = Linear(hidden, self.n_codes)
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))
        self.reset_parameters(generator)

    @property
    def fitted(self) -> bool:
        """Whether :meth:`fit` was called (or a fitted state loaded)."""
        return bool(self.trained)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew.

        Parameters
        ----------
        generator : torch.Generator, optional
            None: a private one with seed 0.
        """
        generator = private_generator(generator)
        fill_normal(self.embedding, 1.0, generator)
        fill_normal(self.position, 1.0, generator)
        for parameter in self.recurrent.parameters():
            fill_uniform(parameter, 1.0 / math.sqrt(self.recurrent.hidden_size), generator)
        self.head.reset_parameters(generator)

    def forward(self, codes: Tensor) -> Tensor:
        """Log odds of every code at every step, given the codes before it.

        Parameters
        ----------
        codes : Tensor of int64, shape (N, t)
            t at most L - 1 predicts one step more than given.

        Returns
        -------
        Tensor, shape (N, min(t + 1, L), K)
        """
        start = codes.new_full((len(codes), 1), self.n_codes)
        before = torch.cat([start, codes], dim=1)[:, : self.n_steps]
        x = self.embedding[before] + self.position[: before.shape[1]]
        logits: Tensor = self.head(self.recurrent(x)[0])
        return logits

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log probability of each sequence.

        Parameters
        ----------
        codes : Tensor of int, shape (N, L)

        Returns
        -------
        Tensor, shape (N,)
            In nats.
        """
        codes = check_codes(codes, self.n_codes, self.n_steps)
        log_odds = functional.log_softmax(self(codes), dim=-1)
        return log_odds.gather(-1, codes.unsqueeze(-1)).squeeze(-1).sum(-1)

    def training_step(self, batch: dict[str, Tensor], step: int) -> LossResult:
        """Negative log probability per code of one batch.

        Parameters
        ----------
        batch : dict of Tensor
            ``codes (B, L)``.
        step : int
            Not used.

        Returns
        -------
        LossResult
        """
        codes = batch["codes"]
        log_prob = self.log_prob(codes).mean()
        weight = log_prob.new_tensor(float(len(codes)))
        diagnostics = {"log_likelihood": log_prob.detach(), "weight": weight}
        return LossResult(-log_prob / self.n_steps, diagnostics)

    def fit(
        self,
        codes: Tensor,
        generator: torch.Generator | None = None,
        config: TrainingConfig | None = None,
    ) -> AutoregressiveCodePrior:
        """Train from the present parameters.

        Parameters
        ----------
        codes : Tensor of int, shape (N, L)
        generator : torch.Generator, optional
            Source of the order of batches and of the held-out share; None: seed 0.
        config : TrainingConfig, optional
            Settings in place of the constructor's.

        Returns
        -------
        AutoregressiveCodePrior
            Itself, in eval mode.
        """
        codes = check_codes(codes, self.n_codes, self.n_steps).cpu()
        generator = private_generator(generator)
        config = self.config if config is None else config
        order = torch.randperm(len(codes), generator=generator, device=generator.device).cpu()
        held_out = int(self.validation_fraction * len(codes))
        kept, rest = codes[order[held_out:]], codes[order[:held_out]]

        def batches(epoch: int, random: torch.Generator) -> list[dict[str, Tensor]]:
            shuffled = torch.randperm(len(kept), generator=random, device=random.device).cpu()
            return [{"codes": kept[part]} for part in shuffled.split(config.batch_size)]

        validation = [{"codes": part} for part in rest.split(config.batch_size)]
        train(
            self,
            batches,
            validation_batches=validation if held_out else None,
            config=config,
            generator=generator,
        )
        self.trained.fill_(True)
        return self.eval()

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw sequences.

        Parameters
        ----------
        n : int
        generator : torch.Generator
            Only source of random numbers; on any device.

        Returns
        -------
        Tensor of int64, shape (n, L)
        """
        device = self.position.device
        code = torch.full((check_size("n", n), 1), self.n_codes, device=device)
        state, codes = None, []
        for t in range(self.n_steps):
            x, state = self.recurrent(self.embedding[code] + self.position[t], state)
            odds = functional.softmax(self.head(x[:, 0]), dim=-1).to(generator.device)
            code = torch.multinomial(odds, 1, generator=generator).to(device)
            codes.append(code)
        return torch.cat(codes, dim=1)
