r"""Structured variational autoencoder: networks around a graphical model.

.. math::
    \theta \sim p(\theta), \quad z \sim p(z | \theta, u), \quad x_t \sim p(x_t | decoder(z_t)),

with the encoder's Gaussian potentials standing in for the likelihood in the state posterior, which
is exact (Johnson et al. 2016, arXiv 1603.06277, eq. 8; Zhao & Linderman 2023, arXiv 2305.16543;
Bendekgey, Hope & Sudderth 2023, arXiv 2306.08230). The loss per observed value is

.. math::
    w_e \Big( -E_q \log p(x | z) + \beta\, KL_{local} + \beta\, KL(q(\theta) \| p(\theta)) / N \Big)
    + w_f \Big( -\log p(x_{t+1..t+H} | x_{..t}) \Big)

where N is the number of windows that make up the data and the second term hides the future of
random origins t and asks for it: the many-step predictive density, from the same filter pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tsvae.lds import Potentials, chain_lengths, unique_patterns
from tsvae.models.coupling import StateCoupling
from tsvae.models.evidence import evidence_share, evidence_terms
from tsvae.models.future_masking import forecast_loss
from tsvae.models.graphical import DrawnStates, StatePosterior, get_graphical_model
from tsvae.models.smoothing_readout import SmoothingReadout
from tsvae.models.views import Effect, Frame, Window, fold_channels, window_level
from tsvae.nn import DenseNet, SigmaDecoder, SigmaEncoder
from tsvae.nn.masking import all_seen, count_true, zero_where_missing
from tsvae.training import BetaSchedule, LossResult

__all__ = ["SVAE"]


class SVAE(nn.Module):
    """Structured VAE over windows of a panel.

    This is the *structured* VAE of Johnson et al., not the hyperspherical one.

    Parameters
    ----------
    n_features : int
        F, variables of the data.
    n_inputs : int, default=0
        U, known covariates; they act on x directly (a regression) and, unless channel-wise, on the
        state.
    latent_dim : int, default=16
        D; per variable if ``channelwise``.
    graphical_model : str, default="lds"
        Name in the registry of :mod:`tsvae.models.graphical`.
    dynamics : dict, optional
        Options of the graphical model.
    channelwise : bool, default=False
        Treat each variable as a series of its own with shared parameters.
    encoder_sizes, decoder_sizes : sequence of int, default=()
        Hidden layers of the networks beside the linear paths; ``()``: linear.
    covariate_sizes : sequence of int, default=()
        Hidden layers of the covariate effect beside its linear part.
    activation : str, default="gelu"
    residual, layer_norm : bool
        See :class:`~tsvae.nn.DenseNet`.
    spectral_norm : bool or float, default=False
    final_sigmoid : bool, default=False
        For data in (0, 1).
    likelihood : str, default="normal"
    scale : {"learned", "network", "fixed"}, default="learned"
    potential : {"diagonal", "block", "dense"}, default="diagonal"
        Form of the encoder's precision.
    precision : {"learned", "network"}, default="learned"
    skip : bool, default=True
        Linear paths beside the networks.
    precision_start : float or sequence of float, default=0.1
        Precision of a complete observation at the start, in units of the prior's.
    scale_start : float, default=0.4
        Observation noise at the start, in standardised units.
    level_entries : int, default=0
        Entries that define the level of a window; see :func:`window_level`.
    learn_scale : bool, default=False
        Learn one data scale per variable (channel-wise models).
    own_smoothing : bool, default=False
        Read smoothed values out of the states by a matrix of their own, see
        :mod:`tsvae.models.smoothing_readout`: a bank of filters fitted to forecasts asks for that.
    coupled : bool, default=False
        Correct the states from which forecasts start, see :mod:`tsvae.models.coupling`, short gaps
        of histories bridged, see :mod:`tsvae.models.gaps`.
    n_samples : int, default=4
        Posterior samples S where no closed form exists.
    elbo_weight, forecast_weight : float, default=1.0
        Weights of the two parts of the loss.
    elbo_share : float, default=1.0
        Share of each batch that the ELBO is taken over (the smoother costs more than the filter).
    horizon : int, default=24
        Steps of the forecast term.
    n_origins : int, default=8
        Forecast origins per window and step.
    min_history : int, default=1
        First origin: steps that a forecast has seen at least.
    drop_correction : bool, default=False
        Cut the path by which reconstruction and future masking reach the graphical model.
    beta : BetaSchedule, optional
        Weight of the KL terms by step; constant 1 by default.
    n_windows : float, default=1.0
        N, observed steps over window length.
    seed : int, default=0
        Source of all random numbers of initialisation and training.
    """

    def __init__(
        self,
        n_features: int,
        *,
        n_inputs: int = 0,
        latent_dim: int = 16,
        graphical_model: str = "lds",
        dynamics: dict[str, Any] | None = None,
        channelwise: bool = False,
        encoder_sizes: tuple[int, ...] = (),
        decoder_sizes: tuple[int, ...] = (),
        covariate_sizes: tuple[int, ...] = (),
        activation: str = "gelu",
        residual: bool = True,
        layer_norm: bool = False,
        spectral_norm: bool | float = False,
        final_sigmoid: bool = False,
        likelihood: str = "normal",
        scale: Literal["learned", "network", "fixed"] = "learned",
        potential: Literal["diagonal", "block", "dense"] = "diagonal",
        precision: Literal["learned", "network"] = "learned",
        skip: bool = True,
        precision_start: float | Sequence[float] = 0.1,
        scale_start: float = 0.4,
        level_entries: int = 0,
        learn_scale: bool = False,
        own_smoothing: bool = False,
        coupled: bool = False,
        n_samples: int = 4,
        elbo_weight: float = 1.0,
        elbo_share: float = 1.0,
        forecast_weight: float = 1.0,
        horizon: int = 24,
        n_origins: int = 8,
        min_history: int = 1,
        drop_correction: bool = False,
        beta: BetaSchedule | None = None,
        n_windows: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.n_features, self.n_inputs, self.latent_dim = n_features, n_inputs, latent_dim
        self.channelwise, self.level_entries = channelwise, level_entries
        self.n_samples, self.drop_correction = n_samples, drop_correction
        self.elbo_weight, self.elbo_share = elbo_weight, elbo_share
        self.forecast_weight = forecast_weight
        self.horizon, self.n_origins, self.min_history = horizon, n_origins, min_history
        self.beta, self.n_windows, self.seed = beta, n_windows, seed
        width = 1 if channelwise else n_features
        state_inputs = 0 if channelwise else n_inputs
        networks: dict[str, Any] = {
            "activation": activation,
            "residual": residual,
            "layer_norm": layer_norm,
            "spectral_norm": spectral_norm,
            "generator": generator,
        }
        self.dynamics = get_graphical_model(graphical_model)(
            latent_dim, n_inputs=state_inputs, generator=generator, **(dynamics or {})
        )
        self.encoder = SigmaEncoder(
            width,
            latent_dim,
            hidden_sizes=encoder_sizes,
            group_size=self.dynamics.group_size if potential == "block" else None,
            skip=skip,
            precision=precision,
            potential=potential,
            precision_start=precision_start,
            **networks,
        )
        self.decoder = SigmaDecoder(
            latent_dim,
            width,
            hidden_sizes=decoder_sizes,
            likelihood=likelihood,
            scale=scale,
            skip=skip,
            final_sigmoid=final_sigmoid,
            initial_scale=scale_start,
            **networks,
        )
        self.covariate_effect: nn.Module | None = None
        if n_inputs:
            self.covariate_effect = DenseNet(
                n_inputs, n_features, covariate_sizes, zero_last=True, generator=generator
            )
            self.covariate_matrix = nn.Parameter(torch.zeros(n_features, n_inputs))
        self.log_scale = nn.Parameter(torch.zeros(n_features), requires_grad=learn_scale)
        self.smoothing: SmoothingReadout | None = None
        if own_smoothing:
            self.smoothing = SmoothingReadout(latent_dim, width)
        self.coupling: StateCoupling | None = None
        if coupled:
            self.coupling = StateCoupling(latent_dim, n_features)
        linear = skip and not decoder_sizes and scale != "network" and not final_sigmoid
        self.closed_form = linear and likelihood == "normal"

    # -- views -------------------------------------------------------------------------------

    def frame(self, x: Tensor, visible: Tensor, effect: Tensor | float) -> Frame:
        """Level and scale of a batch, from what is visible."""
        level: Tensor | float = 0.0
        if self.level_entries:
            rest = x if isinstance(effect, float) else x - effect
            level = window_level(rest, visible, self.level_entries)
        return Frame(level, self.log_scale.exp() if self._has_scale() else 1.0)

    def _has_scale(self) -> bool:
        """Whether variables are scaled; for all of 1 that never change, none are."""
        return self.log_scale.requires_grad or bool(self.log_scale.any())

    def effect(self, inputs: Tensor | Effect | None) -> Tensor | float:
        """Return what known covariates add to x: ``(B, T, F)``, or 0.0 without covariates."""
        if isinstance(inputs, Effect):
            return inputs.values
        if self.covariate_effect is None or inputs is None:
            return 0.0
        effect: Tensor = inputs @ self.covariate_matrix.T + self.covariate_effect(inputs)
        return effect

    def window(
        self,
        x: Tensor,
        visible: Tensor,
        inputs: Tensor | None,
        frame: Frame,
        effect: Tensor | float,
        target: Tensor | None = None,
    ) -> Window:
        """Bring a batch to residuals, variables folded into the batch if channel-wise."""
        known = visible if target is None or target is visible else visible | target
        residual = x if isinstance(effect, float) else x - effect
        if isinstance(frame.level, Tensor):
            residual = residual - frame.level
        if isinstance(frame.scale, Tensor):
            residual = residual / frame.scale
        complete = known is visible and all_seen(visible)
        if not complete:
            residual = zero_where_missing(residual, known)
        target = visible if target is None else target
        if self.channelwise:
            residual, visible, target = map(fold_channels, (residual, visible, target))
            inputs = None
        if complete:
            lengths = torch.full(visible.shape[:1], visible.shape[1])
        else:
            lengths = chain_lengths(visible)
        return Window(residual, target, visible, inputs, lengths, complete)

    # -- inference ---------------------------------------------------------------------------

    def potentials(self, window: Window) -> Potentials:
        """Encode; series with one missing pattern share their precisions."""
        visible = window.visible
        if window.complete or bool(visible.view(torch.uint8).amin()):  # faster than all()
            patterns, index = visible[:1], None
        else:
            patterns, index = unique_patterns(visible)
        x = window.x
        if self.decoder.likelihood.support == "count":
            x = torch.log1p(x.clamp_min(0.0))  # the decoder's mean is exp of the state
        linear, precision = self.encoder(x, patterns, pattern=index)
        if precision.shape[0] != patterns.shape[0]:
            index = None
        return Potentials(linear, precision, index)

    def infer(self, window: Window, potentials: Potentials | None = None) -> StatePosterior:
        """Exact posterior of the states."""
        if potentials is None:
            potentials = self.potentials(window)
        posterior: StatePosterior = self.dynamics.infer(potentials, window.inputs, window.lengths)
        return posterior

    def natural_parameters(self) -> list[nn.Parameter]:
        """Parameters whose ``grad`` is a natural direction."""
        return list(self.dynamics.natural_parameters())

    def network_modules(self) -> list[nn.Module]:
        """Modules that mixed precision may run in half precision."""
        modules: list[nn.Module] = [self.encoder, self.decoder]
        return modules if self.covariate_effect is None else [*modules, self.covariate_effect]

    # -- the loss ----------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], step: int) -> LossResult:
        """Loss of one batch; in eval mode the beta-free criterion.

        Parameters
        ----------
        batch : dict of Tensor
            ``x, mask, visible (B, T, F)``, optionally ``inputs (B, T, U)`` and
            ``score_from (B,)``.
        step : int

        Returns
        -------
        LossResult
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step * self.training)
        window, log_scale = self._training_window(batch)
        potentials = self.potentials(window)
        beta = 1.0
        if self.training and self.beta is not None:
            beta = self.beta.value(step)
        objective = window.x.new_zeros(())
        diagnostics: dict[str, Tensor] = {"beta": objective + beta}
        filtered = None
        if self.elbo_weight:
            part = evidence_share(self, window, potentials)
            posterior = self._posterior(*part, generator)
            if part[0] is window and isinstance(posterior, StatePosterior):
                filtered = posterior.detail
            terms = evidence_terms(self, part[0], posterior, generator)
            kl = terms.local_kl + terms.prior_kl
            objective = self.elbo_weight * (terms.reconstruction + log_scale + beta * kl)
            diagnostics |= {k: v.detach() for k, v in terms._asdict().items()}
        if self.forecast_weight:
            if filtered is None:
                filtered = self._filter(window, potentials)
            loss = forecast_loss(self, window, potentials, filtered, generator) + log_scale
            objective = objective + self.forecast_weight * loss
            diagnostics["forecast"] = loss.detach()
        diagnostics["weight"] = window.n_values.to(window.x.dtype)
        return LossResult(objective, diagnostics)

    def _training_window(self, batch: dict[str, Tensor]) -> tuple[Window, Tensor | float]:
        x, mask, visible = batch["x"], batch["mask"], batch["visible"]
        inputs = batch.get("inputs")
        effect = self.effect(inputs)
        frame = self.frame(x, visible, effect)
        target = mask
        if "score_from" in batch:
            clock = torch.arange(x.shape[1], device=x.device)
            target = mask & (clock >= batch["score_from"][:, None])[..., None]
        window = self.window(x, visible, inputs, frame, effect, mask)
        if target is not mask:
            folded = fold_channels(target) if self.channelwise else target
            window = window._replace(target=folded, complete=False)
        if isinstance(frame.scale, float):
            return window, 0.0
        count = count_true(target, dim=(0, 1))
        return window, (count * self.log_scale).sum() / count.sum().clamp_min(1)

    def _posterior(
        self, window: Window, potentials: Potentials, generator: torch.Generator
    ) -> StatePosterior | DrawnStates:
        sampled = not (self.closed_form or self.drop_correction)
        name = "infer_and_sample" if self.forecast_weight else "draw"
        together = getattr(self.dynamics, name, None)
        if together is not None and sampled:
            joined: StatePosterior | DrawnStates = together(
                potentials, self.n_samples, generator, window.inputs, window.lengths
            )
            return joined
        if self.drop_correction:
            posterior: StatePosterior = self.dynamics.infer_detached(
                potentials, window.inputs, window.lengths
            )
            return posterior
        return self.infer(window, potentials)

    def _filter(self, window: Window, potentials: Potentials) -> Any:
        """Filter pass for the forecast term alone."""
        if self.drop_correction:
            return self.dynamics.filter_detached(potentials, window.inputs, window.lengths)
        return self.dynamics.filter(potentials, window.inputs, window.lengths)

    def emitted_variance(self, posterior: StatePosterior, matrix: Tensor | None = None) -> Tensor:
        """Diagonal of C S_t C', ``(B or 1, T, F')``; C is the decoder's by default."""
        covariance = posterior.covariance
        matrix = self.decoder.emission_matrix if matrix is None else matrix
        c = matrix.unflatten(-1, covariance.shape[-3:-1])
        variance = torch.einsum("fgk,ptgkl,fgl->ptf", c, covariance, c)
        if posterior.pattern is not None:
            variance = variance.index_select(0, posterior.pattern)
        return variance

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Tensor]) -> Tensor:
        """Smoothed reconstruction of a batch, ``(B, T, F)``, in the units of ``batch["x"]``."""
        from tsvae.models.predictive import smooth_values

        return smooth_values(self, batch["x"], batch["visible"], batch.get("inputs")).mean
