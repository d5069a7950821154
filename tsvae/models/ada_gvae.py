"""Ada-GVAE: disentanglement from pairs of records that share most of their factors."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tsvae.models.family import Asked
from tsvae.models.gaussians import gaussian_kl
from tsvae.models.outputs import ForwardResult, Posterior
from tsvae.models.vae import VAE
from tsvae.nn import Likelihood
from tsvae.nn.checks import check_size
from tsvae.training import LossResult

__all__ = ["AdaGVAE", "PairForwardResult", "SharedPosteriors", "share_posteriors"]

_PER_BATCH = ("weight", "beta")  # diagnostics that the two views have in common


class SharedPosteriors(NamedTuple):
    """Posteriors of two views after averaging.

    Parameters
    ----------
    first, second : Posterior
        Equal on shared entries.
    shared : Tensor of bool of shape (B, *latent)
        Entries that the views are taken to share.
    """

    first: Posterior
    second: Posterior
    shared: Tensor


class PairForwardResult(NamedTuple):
    """Forward pass of a pair.

    Parameters
    ----------
    output1, output2 : ForwardResult
        Of each view, from the averaged posteriors.
    shared : Tensor of bool of shape (B, *latent)
    """

    output1: ForwardResult
    output2: ForwardResult
    shared: Tensor


def share_posteriors(first: Posterior, second: Posterior) -> SharedPosteriors:
    r"""Average the posteriors of two views on the entries where they hardly differ.

    .. math::
        \delta_i = KL(q(z_i | x_1) \| q(z_i | x_2)), \quad
        \tau = \tfrac12 (\max_i \delta_i + \min_i \delta_i);

    entries with :math:`\delta_i < \tau` get the mean of both means and of both variances.

    Parameters
    ----------
    first, second : Posterior
        ``mu`` and ``log_var`` of shape (B, *latent).

    Returns
    -------
    SharedPosteriors

    References
    ----------
    Locatello et al. 2020 (arXiv 2002.02886), section 4 (threshold); Hosoya 2019 (arXiv
    1809.02383) for the averaging (GVAE).

    Examples
    --------
    >>> one = Posterior(torch.tensor([[0.0, 0.0]]), torch.zeros(1, 2))
    >>> other = Posterior(torch.tensor([[0.2, 4.0]]), torch.zeros(1, 2))
    >>> result = share_posteriors(one, other)
    >>> result.shared, result.first.mu, result.second.mu
    (tensor([[ True, False]]), tensor([[0.1000, 0.0000]]), tensor([[0.1000, 4.0000]]))
    """
    divergence = gaussian_kl(*first, *second).detach().flatten(1)
    threshold = 0.5 * (divergence.amax(1, keepdim=True) + divergence.amin(1, keepdim=True))
    shared = (divergence < threshold).reshape(first.mu.shape)
    mu = 0.5 * (first.mu + second.mu)
    log_var = torch.logaddexp(first.log_var, second.log_var) - math.log(2.0)

    def chosen(own: Posterior) -> Posterior:
        return Posterior(torch.where(shared, mu, own.mu), torch.where(shared, log_var, own.log_var))

    return SharedPosteriors(chosen(first), chosen(second), shared)


class AdaGVAE(VAE):
    """VAE trained on pairs of records that differ in few, unknown factors.

    Which latent entries the two views of a pair share is decided per pair from their posteriors
    (:func:`share_posteriors`); these entries get one posterior for both. So a factor that does not
    change must not move its entries, and factors come apart. After training it is used like a
    :class:`VAE`, on single records.

    Parameters
    ----------
    encoder, decoder : Module
    latent_dim : int
    **options
        See :class:`~tsvae.models.vae.VAE`.

    References
    ----------
    Locatello et al. 2020 (arXiv 2002.02886), "Weakly-Supervised Disentanglement Without
    Compromises", section 4.

    Examples
    --------
    >>> from tsvae.nn import MLPDecoder, MLPEncoder
    >>> model = AdaGVAE(MLPEncoder(1, 8, (16,)), MLPDecoder(4, 8, 1, (16,)), latent_dim=4)
    >>> x1, x2 = torch.zeros(3, 8, 1), torch.ones(3, 8, 1)
    >>> output = model.build(x1)(x1, x2)
    >>> output.output1.x_hat.shape
    torch.Size([3, 1, 8, 1])
    >>> result = model.compute_loss(x1, x2, output)
    >>> [name for name in sorted(result.diagnostics) if name.startswith("kl_div")]
    ['kl_divergence', 'kl_divergence_x1', 'kl_divergence_x2']
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, latent_dim: int, **options: Any
    ) -> None:
        super().__init__(encoder, decoder, latent_dim, **options)

    def forward(  # type: ignore[override]
        self,
        x1: Tensor,
        x2: Tensor,
        S: int = 1,
        mask1: Tensor | None = None,
        mask2: Tensor | None = None,
    ) -> PairForwardResult:
        """Encode and decode pairs. For single records use ``encode`` and ``decode``.

        Parameters
        ----------
        x1, x2 : Tensor of shape (B, T, F)
            The two views, record by record.
        S : int, default=1
            Codes per record.
        mask1, mask2 : Tensor of bool of shape (B, T, F) or None, default=None

        Returns
        -------
        PairForwardResult
        """
        generator = self.generator if self.training else None
        return self._pass_pair((x1, mask1), (x2, mask2), check_size("S", S), generator)

    def _pass_pair(
        self,
        first: tuple[Tensor, Tensor | None],
        second: tuple[Tensor, Tensor | None],
        n_samples: int,
        generator: torch.Generator | None,
    ) -> PairForwardResult:
        if first[0].shape != second[0].shape:
            raise ValueError(
                "the two views must have one shape, record by record, got "
                f"{tuple(first[0].shape)} and {tuple(second[0].shape)}"
            )
        posteriors = share_posteriors(
            self.posterior(self.features(*first)), self.posterior(self.features(*second))
        )
        outputs = []
        for posterior in (posteriors.first, posteriors.second):
            codes = self.codes_of(posterior, n_samples, generator)
            outputs.append(ForwardResult(self.decode(codes.z).x_hat, *codes))
        return PairForwardResult(outputs[0], outputs[1], posteriors.shared)

    def compute_loss(  # type: ignore[override]
        self,
        x1: Tensor,
        x2: Tensor,
        output: PairForwardResult,
        beta: float = 1.0,
        likelihood: str | Likelihood[Any] | None = None,
        mask1: Tensor | None = None,
        mask2: Tensor | None = None,
        target1: Tensor | None = None,
        target2: Tensor | None = None,
        weight1: Tensor | None = None,
        weight2: Tensor | None = None,
    ) -> LossResult:
        """Mean loss of the two views.

        Parameters
        ----------
        x1, x2 : Tensor of shape (B, T, F)
        output : PairForwardResult
        beta, likelihood
            See :meth:`VAE.compute_loss`.
        mask1, mask2, target1, target2, weight1, weight2
            Of each view; see :meth:`VAE.compute_loss`.

        Returns
        -------
        LossResult
            Diagnostics of :meth:`VAE.compute_loss`, as means and, with the endings ``_x1`` and
            ``_x2``, of each view; ``shared``, the mean number of shared latent entries.
        """
        shared: dict[str, Any] = {"beta": beta, "likelihood": likelihood}
        views = (
            super().compute_loss(
                x1, output.output1, mask=mask1, target=target1, weight=weight1, **shared
            ),
            super().compute_loss(
                x2, output.output2, mask=mask2, target=target2, weight=weight2, **shared
            ),
        )
        one, other = (view.diagnostics for view in views)
        diagnostics = {name: 0.5 * (one[name] + other[name]) for name in one}
        diagnostics["shared"] = output.shared.flatten(1).sum(1).to(x1.dtype).mean()
        for ending, values in (("x1", one), ("x2", other)):
            diagnostics |= {
                f"{name}_{ending}": value
                for name, value in values.items()
                if name not in _PER_BATCH
            }
        return LossResult(0.5 * (views[0].objective + views[1].objective), diagnostics)

    def training_step(self, batch: dict[str, Tensor], step: int) -> LossResult:
        """Loss of one batch of pairs; in eval mode the criterion, free of annealed weights.

        Parameters
        ----------
        batch : dict of Tensor
            ``x`` and ``x_pair`` (B, T, F); everything else that :meth:`VAE.training_step` reads,
            for the second view with the ending ``_pair`` (``mask_pair``, ``visible_pair``, ...).
        step : int

        Returns
        -------
        LossResult

        Raises
        ------
        KeyError
            If there is no ``x_pair``.
        """
        if "x_pair" not in batch:
            raise KeyError(
                "AdaGVAE learns from pairs: the batch needs 'x_pair' (B, T, F), for each record of "
                f"'x' one that shares most of its factors; got {sorted(batch)}"
            )
        self._require_built()
        ending = "_pair"
        pair = {k.removesuffix(ending): v for k, v in batch.items() if k.endswith(ending)}
        one: Asked = self.read_batch(batch)
        other: Asked = self.read_batch(pair)
        # In eval mode the same draws every time, as for every model of the family.
        generator = self.generator if self.training else torch.Generator().manual_seed(0)
        output = self._pass_pair(
            (one.x, one.visible), (other.x, other.visible), self.n_samples, generator
        )
        return self.compute_loss(
            one.x,
            other.x,
            output,
            self._beta(step) if self.training else self._criterion_beta(),
            mask1=one.mask,
            mask2=other.mask,
            target1=one.target,
            target2=other.target,
            weight1=one.weight,
            weight2=other.weight,
        )
