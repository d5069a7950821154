"""VAEDenoiser: clean, compress, generate and score signals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.metaestimators import available_if

from tsvae._denoiser.denoising import fit_denoiser
from tsvae._denoiser.health import PosteriorCollapseWarning
from tsvae._denoiser.parameters import PARAMETER_CONSTRAINTS
from tsvae._denoiser.scoring import DenoiserScoring
from tsvae._records.design import check_parameters
from tsvae.panel import RecordIndex

__all__ = ["PosteriorCollapseWarning", "VAEDenoiser"]


def _has_columns(self: VAEDenoiser) -> bool:
    """Whether the output has two axes, so that its columns can be named; before fit it may."""
    if self.output == "latent" or not hasattr(self, "model_"):
        return True
    index = self._fitted().index
    if isinstance(index, RecordIndex):
        return index.is_table
    return index.layout.kind == "frame" or (index.layout.kind == "array" and index.n_series == 1)


class VAEDenoiser(TransformerMixin, DenoiserScoring):
    """Variational autoencoder that cleans, compresses, generates and scores signals.

    Rows are records (signals, spectra, profiles) or, with ``window=``, time. Noise is removed and
    gaps are filled by a code that holds what the records have in common. Clean targets make it
    better (``fit(X, clean=...)``, or ``fit(X, y)`` with y of X's shape) and are not needed:
    without them entries are hidden and predicted from their surroundings, which leaves out
    whatever is independent from entry to entry.

    Parameters
    ----------
    latent_dim : int, default=16
        Size of the code; for each latent step if the code is a map along time, so that it grows
        with the record's length.
    model : {"ae", "vae", "conditional", "hierarchical", "vq"}, default="vae"
        Autoencoder; variational autoencoder; one that is told conditions of each record; one with
        latent levels from coarse to fine; one with discrete codes.
    architecture : {"auto", "conv", "resnet", "mlp"} or (encoder, decoder), default="auto"
        Convolutions (plain, or residual at three times the cost) or dense layers; auto: plain,
        and dense below 32 steps.
        Own modules: the encoder gets (B, T, 2 F), values and mask, the decoder codes
        (B, latent_dim).
    latent : {"auto", "vector", "map"}, default="auto"
        One code per record, or a map along time with a code for each 16 steps (fewer in records
        below 128 steps), which fine detail needs. auto: a map with convolutions.
    window : int or None, default=None
        None: rows are records. Else rows are time, cut into overlapping windows of this length.
    output : {"signal", "latent"}, default="signal"
        What ``transform`` returns: denoised signals with gaps filled, or codes.
    hidden_sizes : sequence of int or None, default=None
        Channels of each stage of stride 2, or widths of dense layers; the decoder mirrors them.
        None: (32, 64, 128, 128), fewer stages for short records and more for vectors of long
        ones; (128, 64) if dense.
    activation : str, default="gelu"
        Of the networks.
    kernel_size : int, default=9
        Odd; of the convolutions. Wide kernels average more noise away.
    batch_norm : bool, default=True
        Batch normalisation after convolutions.
    spectral_norm : bool or float, default=False
        Bound on the spectral norm of every weight; True is 1.
    final_sigmoid : bool, default=False
        Decode into 0..1 after min-max scaling: outputs stay in the training range.
    likelihood : {"gaussian", "laplace", "student_t", "bernoulli"}, default="gaussian"
        Of the signals given the code. Laplace keeps edges, Student-t shrugs off outliers, Bernoulli
        is for values in 0..1 (min-max scaled).
    scale : {"learned", "fixed", "calibrated"}, default="learned"
        Observation noise per variable: a parameter, 0.5 of the standardised signals, or the
        residuals' own.
    scaling : {"auto", "variable", "column"}, default="auto"
        Signals are centred and scaled by the training data: one pair of numbers for each
        variable, or for each column of a table. auto: by column below 32 steps.
    self_supervision : {"blind_spot"} or None, default="blind_spot"
        Without clean targets: hide entries from the encoder and ask for these alone. What is
        independent from entry to entry, noise, cannot be predicted and so is not learned. None:
        reconstruct what is seen (compression of clean signals).
    mask_fraction : float, default=0.25
        Share of entries hidden. With dense layers that is a mean: each record has its own share,
        from half of it to three halves.
    block_length : int, default=0
        Hide blocks of so many steps instead of single entries, for noise that lasts.
    noise_scale : float, default=0.0
        Noise added to the encoder's input in training, in standardised units: smoother codes.
    resample_noise : bool, default=True
        With clean targets: in training, exchange the noise (signal minus target) among records.
        Many times the data; False where noise depends on the signal.
    residual_filter : bool, default=True
        Whether ``transform`` gives back what the model leaves out of a record and is more than
        noise: residuals that stand out along time. Of use where records differ from those of
        training; False returns what the code holds. Records of 32 steps or more; not with
        ``self_supervision=None`` or values in 0..1.
    beta : float, default=0.01
        Weight of the divergence from the prior. 1 is the evidence lower bound, and smooths; less
        keeps more detail (on an electrocardiogram 0.01 was 0.6 dB ahead of 0.1, and 4 dB ahead of
        1 without clean targets), more disentangles.
    annealing_steps : int, default=10_000
        Steps over which beta grows from 0; at most half of the fit.
    free_bits : float, default=0.0
        Nats per code entry that cost nothing; 0.5 against posterior collapse.
    mmd_weight : float, default=0.0
        Weight of the maximum mean discrepancy between codes and prior (InfoVAE).
    spectral_weight : float, default=0.0
        Weight of the difference between the amplitude spectra of signal and reconstruction, against
        lost detail; 1 weighs as much as the likelihood. For clean signals or targets: from noisy
        signals alone it learns the noise's spectrum as well.
    objective : {"elbo", "iwae"}, default="elbo"
        Evidence lower bound or importance-weighted bound.
    n_samples : int or None, default=None
        Codes per record in training; None: 1, or 5 for "iwae".
    n_levels : int, default=2
        Latent levels of the hierarchical model.
    n_codes : int, default=128
        Vectors in the codebook of the vq model.
    n_importance_samples : int, default=50
        Codes per record in ``score`` and ``score_samples``.
    max_epochs : int, default=20
        An epoch is 20 to 50 steps, about one look at the data.
    batch_size : int, default=32
        Records per step.
    learning_rate : float or "auto", default=0.002
        Peak rate; "auto" runs a range test.
    optimizer : {"adam", "adamw", "adafactor"}, default="adam"
        Of all parameters.
    lr_schedule : {"cosine", "constant", "plateau", "one_cycle"}, default="one_cycle"
        Course of the rate; rising and falling once was the quickest to a good fit.
    warmup_steps : int, default=0
        Linear warm-up of the rate.
    clip_norm : float or None, default=1.0
        Largest gradient norm.
    patience : int or None, default=10
        Epochs without a better validation criterion before training stops.
    min_delta : float, default=0.0
        Smallest decrease that counts as better.
    validation_fraction : float, default=0.1
        Share of the records (of the time, for few long series) set aside to choose the best epoch;
        below 20 records none.
    max_time : float or None, default=None
        Seconds after which training ends in good order.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1" ...; "auto" takes a GPU if there is one.
    precision : {"32-true", "bf16-mixed", "16-mixed"}, default="32-true"
        Of training.
    n_threads : int or None, default=1
        CPU threads of torch in fit and transform; results are bit-identical at equal number. None
        leaves torch's setting.
    freq : str, offset or int, optional
        Time step, if it cannot be inferred.
    time : hashable, optional
        Column, level or dim that holds the time (the axis of the records).
    series : hashable or list, optional
        Columns or dim that tell records apart.
    random_state : int, RandomState or None, default=None
        Seed of everything random.
    verbose : bool, default=False
        Show a progress bar.
    callbacks : list of Callback, optional
        See :mod:`tsvae.training`.

    Attributes
    ----------
    model_ : BaseAutoencoder
        The torch model, on the CPU.
    training_log_ : TrainingLog
        One row per epoch; ``rate`` and ``distortion`` in nats per record, ``active_units``; up to
        ``latent_dim=64`` the KL of each channel of the code, ``kl_0``, ``kl_1``, ...
        (hierarchical: ``kl_level_1_0``, ...).
    n_latent_ : int
        Numbers in one code.
    active_units_ : int
        Code entries that carry information.
    kl_per_dimension_ : ndarray of shape (n_latent_,) or None
        Nats, mean over training records.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if all column labels are strings.

    Notes
    -----
    Blind spots: Batson & Royer 2019, arXiv 1901.11365 (Noise2Self); Krull et al. 2019, arXiv
    1811.10980 (Noise2Void). Noise that is correlated along time needs ``block_length``.

    References
    ----------
    Kingma & Welling 2014, arXiv 1312.6114. Higgins et al. 2017 (beta-VAE). Burda et al. 2016,
    arXiv 1509.00519. Sonderby et al. 2016, arXiv 1602.02282 (ladder). van den Oord et al. 2017,
    arXiv 1711.00937 (VQ-VAE).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> phase = rng.uniform(0, 6, size=(60, 1))
    >>> clean = np.sin(np.linspace(0, 6, 20) + phase)
    >>> noisy = clean + 0.5 * rng.standard_normal(clean.shape)
    >>> noisy[0, 5] = np.nan
    >>> d = VAEDenoiser(latent_dim=4, max_epochs=5, random_state=0).fit(noisy)
    >>> d.transform(noisy).shape, d.encode(noisy).shape, d.sample(3).shape
    ((60, 20), (60, 4), (3, 20))
    >>> bool(np.isnan(d.transform(noisy)).any())
    False
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = PARAMETER_CONSTRAINTS

    def __init__(
        self,
        latent_dim: int = 16,
        *,
        model: str = "vae",
        architecture: Any = "auto",
        latent: str = "auto",
        window: int | None = None,
        output: str = "signal",
        hidden_sizes: Sequence[int] | None = None,
        activation: str = "gelu",
        kernel_size: int = 9,
        batch_norm: bool = True,
        spectral_norm: bool | float = False,
        final_sigmoid: bool = False,
        likelihood: str = "gaussian",
        scale: str = "learned",
        scaling: str = "auto",
        self_supervision: str | None = "blind_spot",
        mask_fraction: float = 0.25,
        block_length: int = 0,
        noise_scale: float = 0.0,
        resample_noise: bool = True,
        residual_filter: bool = True,
        beta: float = 0.01,
        annealing_steps: int = 10_000,
        free_bits: float = 0.0,
        mmd_weight: float = 0.0,
        spectral_weight: float = 0.0,
        objective: str = "elbo",
        n_samples: int | None = None,
        n_levels: int = 2,
        n_codes: int = 128,
        n_importance_samples: int = 50,
        max_epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float | str = 2e-3,
        optimizer: str = "adam",
        lr_schedule: str = "one_cycle",
        warmup_steps: int = 0,
        clip_norm: float | None = 1.0,
        patience: int | None = 10,
        min_delta: float = 0.0,
        validation_fraction: float = 0.1,
        max_time: float | None = None,
        device: str = "auto",
        precision: str = "32-true",
        n_threads: int | None = 1,
        freq: Any = None,
        time: Any = None,
        series: Any = None,
        random_state: Any = None,
        verbose: bool | int = False,
        callbacks: Sequence[Any] | None = None,
    ) -> None:
        self.latent_dim = latent_dim
        self.model = model
        self.architecture = architecture
        self.latent = latent
        self.window = window
        self.output = output
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.kernel_size = kernel_size
        self.batch_norm = batch_norm
        self.spectral_norm = spectral_norm
        self.final_sigmoid = final_sigmoid
        self.likelihood = likelihood
        self.scale = scale
        self.scaling = scaling
        self.self_supervision = self_supervision
        self.mask_fraction = mask_fraction
        self.block_length = block_length
        self.noise_scale = noise_scale
        self.resample_noise = resample_noise
        self.residual_filter = residual_filter
        self.beta = beta
        self.annealing_steps = annealing_steps
        self.free_bits = free_bits
        self.mmd_weight = mmd_weight
        self.spectral_weight = spectral_weight
        self.objective = objective
        self.n_samples = n_samples
        self.n_levels = n_levels
        self.n_codes = n_codes
        self.n_importance_samples = n_importance_samples
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.warmup_steps = warmup_steps
        self.clip_norm = clip_norm
        self.patience = patience
        self.min_delta = min_delta
        self.validation_fraction = validation_fraction
        self.max_time = max_time
        self.device = device
        self.precision = precision
        self.n_threads = n_threads
        self.freq = freq
        self.time = time
        self.series = series
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks

    def fit(
        self, X: Any, y: Any = None, *, clean: Any = None, condition: Any = None, mask: Any = None
    ) -> Self:
        """Learn from records.

        Parameters
        ----------
        X : DataFrame, DataArray, Dataset or array
            Rows = records, columns = axis values; or (record, time, variable); with ``window=``
            rows = time. NaN = missing.
        y : optional
            Clean targets if it has the shape of X; anything else (labels for a later step of a
            pipeline) is ignored.
        clean : same kind and shape as X, optional
            Clean targets, said outright.
        condition : DataFrame or array of shape (n_records,) or (n_records, n_conditions), optional
            For ``model="conditional"``: numbers, or categories (strings, booleans).
        mask : same kind and shape as X, optional
            True = observed.

        Returns
        -------
        VAEDenoiser

        Raises
        ------
        ValueError, TypeError
            If data or parameters are of no use; the message names the place and the remedy.
        DivergenceError
            If training becomes infinite.

        Warns
        -----
        PosteriorCollapseWarning
            If the codes carry no information.
        UserWarning
            If fine detail is lost, or the codes form clusters.
        """
        self._validate_params()
        check_parameters(self.get_params(deep=False))
        problem = self._problem(X, y, clean, condition, mask)
        self._fit = fit_denoiser(
            problem,
            self.get_params(deep=False),
            self._own_networks(),
            self._seed(),
            tuple(self.callbacks or ()),
        )
        signals = problem.signals
        self._set_public(self._fit, signals.n_features_in, signals.feature_names)
        return self

    def fit_transform(
        self, X: Any, y: Any = None, *, clean: Any = None, condition: Any = None, mask: Any = None
    ) -> Any:
        """Fit, then transform the same records.

        Parameters
        ----------
        X, y, clean, condition, mask
            As in :meth:`fit`.

        Returns
        -------
        As :meth:`transform`.
        """
        fitted = self.fit(X, y, clean=clean, condition=condition, mask=mask)
        return fitted.transform(X, mask=mask, condition=condition)

    def transform(self, X: Any, *, mask: Any = None, condition: Any = None) -> Any:
        """Denoise and fill gaps, or encode, as ``output`` says.

        Parameters
        ----------
        X : same kind as in fit
        mask : optional
            True = observed.
        condition : optional
            One row for each record, for ``model="conditional"``.

        Returns
        -------
        same kind as X, or its codes as :meth:`encode` gives them
        """
        if self.output == "latent":
            return self.encode(X, mask=mask, condition=condition)
        signals = self._signals(X, mask)
        given = self._given_for(condition, signals)
        return signals.write(self._reconstructed(signals, given, filtered=True))

    def inverse_transform(self, X: Any, *, condition: Any = None) -> Any:
        """Signals of codes, as :meth:`decode`; for ``output="latent"``.

        Parameters
        ----------
        X : array, DataFrame or DataArray of shape (n_records, n_latent_)
        condition : optional

        Returns
        -------
        same kind as in fit
        """
        return self.decode(X, condition=condition)

    @available_if(_has_columns)
    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Labels of the columns that ``transform`` returns.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of object
        """
        index = self._fitted().index
        if self.output == "latent":
            return np.array(self._code_names(), dtype=object)
        if not isinstance(index, RecordIndex):
            labels = list(index.variables)
        elif index.axis is None:
            labels = [f"x{i}" for i in range(self.n_features_in_)]
        elif index.n_features == 1:
            labels = list(index.axis)
        else:
            labels = [(v, a) for v in index.variables for a in index.axis]
        names = np.empty(len(labels), dtype=object)
        names[:] = labels
        return names
