"""PairVAELinker: one measurement of a sample from another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import TransformerMixin

from tsvae._linker.coding import LinkerCoding
from tsvae._linker.fitting import PretrainingWarning
from tsvae._linker.linking import fit_linker
from tsvae._linker.matching import LinkResult
from tsvae._linker.options import check_options
from tsvae._linker.parameters import PARAMETER_CONSTRAINTS
from tsvae._linker.predicting import Band

__all__ = ["Band", "LinkResult", "PairVAELinker", "PretrainingWarning"]


class PairVAELinker(TransformerMixin, LinkerCoding):
    """Two linked variational autoencoders: one measurement of a sample from another.

    X and y are two measurements of the same samples, row by row: spectra, profiles, leads, or
    tables. Each side has an encoder and a decoder, and their codes mean the same, so that either
    predicts the other. Samples with one measurement alone (a row of NaN on the other side) train
    that side too.

    Parameters
    ----------
    latent_dim : int, default=8
        Size of the common code; for each latent step if ``latent="map"``. More than the samples
        have degrees of freedom costs little.
    architecture : {"auto", "mlp", "conv", "resnet"} or pair of these, default="auto"
        Dense layers or convolutions; auto: dense, and convolutions for a map. A pair is (X, y),
        here and below.
    latent : {"vector", "map"}, default="vector"
        One code per record, or a map along time for long records of one length on both sides, such
        as two leads of a recording.
    hidden_sizes : sequence of int, pair of sequences or None, default=None
        Widths of the encoder's layers, mirrored by the decoder; None: (256, 256) if dense, else
        what :class:`VAEDenoiser` has.
    activation : str, default="gelu"
        Of the networks.
    kernel_size : int, default=9
        Odd; of the convolutions.
    batch_norm : bool, default=True
        Batch normalisation after convolutions. Dense layers have layer normalisation.
    spectral_norm : bool or float, default=False
        Bound on the spectral norm of every weight; True is 1.
    likelihood : {"gaussian", "laplace", "student_t", "bernoulli"} or pair, default="gaussian"
        Of the records given the code.
    scale : {"learned", "fixed", "calibrated"}, default="learned"
        Observation noise; see :class:`VAEDenoiser`.
    scaling : {"auto", "profile", "variable", "column"} or pair, default="auto"
        Model units: the mean profile is taken off and what remains is divided by one spread; or
        one mean and spread for each variable, or for each column. auto: profile, and column below
        32 columns.
    log_scale : bool or pair, default=False
        Take logarithms of magnitudes first, linear below the 1 % quantile of those other than
        zero or, where values have both signs, below the noise, so that zero and negative values
        have their place. Predictions are in the units given.
    x_regions, y_regions : dict or array-like, default=None
        Weights of parts of the records in the loss: ``{(low, high): weight}`` in units of the
        axis, or one number for each position.
    input_noise : float, "auto" or pair of these, default="auto"
        Standard deviation of noise on the inputs of each training step, in those of each column;
        reconstructions are compared with the records as given. auto: what other columns do not
        tell of a column, less with many pairs and where one side tells much of the other. Tables
        of a few hundred samples are often better predicted with it; smooth profiles hardly get any.
    weights : sequence of 4 float, default=(1, 1, 1, 1)
        Of the reconstructions of X from X, y from y, y from X and X from y.
    beta : float, default=0.1
        Weight of the divergences from the prior.
    barlow_weight : float, default=1.0
        Weight of the Barlow Twins loss between the codes of both sides.
    barlow_lambda : float, default=0.005
        Of the entries off the diagonal of the cross-correlation; the source's.
    projector : sequence of int or None, default=None
        Widths of a network through which codes are compared; None: the codes themselves.
    cycle_weight : float, default=3.0
        Weight of the difference between codes of unpaired samples and those that come back when
        they are decoded to the other side and encoded there.
    paired_share : float, default=0.5
        Share of each batch that is paired, where there are unpaired samples.
    pretrain_epochs : int, default=0
        Epochs in which each side trains for itself first.
    freeze : {"X", "y", "both"} or None, default=None
        Sides whose networks (all but what makes the code) rest after pre-training.
    unfreeze_epochs : int or None, default=None
        Epochs over which frozen layers are released one by one, from the code outwards; None:
        never.
    max_epochs : int, default=150
        Of the joint training; an epoch is 20 to 80 steps, about one look at the data.
    batch_size : int, default=32
        Samples per step.
    learning_rate : float or "auto", default=0.002
        Peak rate; "auto" runs a range test.
    optimizer : {"adam", "adamw", "adafactor"}, default="adam"
        Of all parameters.
    lr_schedule : {"cosine", "constant", "plateau", "one_cycle"}, default="one_cycle"
        Course of the rate in each stage.
    warmup_steps : int, default=0
        Linear warm-up of the rate.
    clip_norm : float or None, default=10.0
        Largest gradient norm.
    patience : int or None, default=None
        Epochs without a better validation criterion before a stage ends. None: with a rate that
        falls at the end the last epochs are the best.
    min_delta : float, default=0.0
        Smallest decrease that counts as better.
    validation_fraction : float, default=0.1
        Share of the pairs held out, at least 5, to choose the best epoch and to calibrate the
        spread; of fewer than 20 pairs none.
    max_time : float or None, default=None
        Seconds after which a stage ends in good order.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1" ...; "auto" takes a GPU if there is one.
    precision : {"32-true", "bf16-mixed", "16-mixed"}, default="32-true"
        Of training.
    n_threads : int or None, default=1
        CPU threads of torch; results are bit-identical at equal number. None leaves torch's.
    freq : str, offset or int, optional
        Time step of panels, if it cannot be inferred.
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
    model_ : PairVAE
        The torch model, on the CPU; side "a" is X.
    training_log_ : TrainingLog
        Of the joint training.
    pretraining_log_ : TrainingLog or None
    active_units_ : bool ndarray of shape (latent_dim,)
        Code entries that carry information about both sides.
    n_latent_ : int
        Numbers in one code.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if all column labels of X are strings.

    References
    ----------
    Lu & Jayaraman 2023, JACS Au 3, 2510 (PairVAE). Zbontar et al. 2021, arXiv 2103.03230 (Barlow
    Twins).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> size = rng.uniform(1, 2, (80, 1))
    >>> X = np.sin(size * np.linspace(0, 3, 12)) + 0.01 * rng.standard_normal((80, 12))
    >>> y = np.exp(-size * np.linspace(0, 2, 7)) + 0.01 * rng.standard_normal((80, 7))
    >>> y[60:] = np.nan  # measured once
    >>> linker = PairVAELinker(latent_dim=2, max_epochs=5, random_state=0).fit(X, y)
    >>> linker.predict(X).shape, linker.predict_inverse(y[:5]).shape
    ((80, 7), (5, 12))
    >>> linker.sample(X[:3], 50).shape, linker.link(X[:9], y[:9]).best.shape
    ((50, 3, 7), (9, 5))
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = PARAMETER_CONSTRAINTS

    def __init__(
        self,
        latent_dim: int = 8,
        *,
        architecture: Any = "auto",
        latent: str = "vector",
        hidden_sizes: Any = None,
        activation: str = "gelu",
        kernel_size: int = 9,
        batch_norm: bool = True,
        spectral_norm: bool | float = False,
        likelihood: Any = "gaussian",
        scale: str = "learned",
        scaling: Any = "auto",
        log_scale: Any = False,
        x_regions: Any = None,
        y_regions: Any = None,
        input_noise: Any = "auto",
        weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        beta: float = 0.1,
        barlow_weight: float = 1.0,
        barlow_lambda: float = 0.005,
        projector: Sequence[int] | None = None,
        cycle_weight: float = 3.0,
        paired_share: float = 0.5,
        pretrain_epochs: int = 0,
        freeze: str | None = None,
        unfreeze_epochs: int | None = None,
        max_epochs: int = 150,
        batch_size: int = 32,
        learning_rate: float | str = 2e-3,
        optimizer: str = "adam",
        lr_schedule: str = "one_cycle",
        warmup_steps: int = 0,
        clip_norm: float | None = 10.0,
        patience: int | None = None,
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
        self.architecture = architecture
        self.latent = latent
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.kernel_size = kernel_size
        self.batch_norm = batch_norm
        self.spectral_norm = spectral_norm
        self.likelihood = likelihood
        self.scale = scale
        self.scaling = scaling
        self.log_scale = log_scale
        self.x_regions = x_regions
        self.y_regions = y_regions
        self.input_noise = input_noise
        self.weights = weights
        self.beta = beta
        self.barlow_weight = barlow_weight
        self.barlow_lambda = barlow_lambda
        self.projector = projector
        self.cycle_weight = cycle_weight
        self.paired_share = paired_share
        self.pretrain_epochs = pretrain_epochs
        self.freeze = freeze
        self.unfreeze_epochs = unfreeze_epochs
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
        self,
        X: Any,
        y: Any,
        *,
        mask: Any = None,
        y_mask: Any = None,
        sigma: Any = None,
        y_sigma: Any = None,
    ) -> Self:
        """Learn from samples that were measured both ways, or one way.

        Parameters
        ----------
        X : DataFrame, DataArray, Dataset or array
            Rows = records, columns = axis values; or (record, time, variable). NaN = missing, a
            row of NaN = not measured this way.
        y : DataFrame, Series, DataArray, Dataset or array
            The other measurement of the same samples, row by row; its own kind and axis.
        mask, y_mask : same kind and shape as X and y, optional
            True = observed.
        sigma, y_sigma : same kind and shape as X and y, optional
            Error bars: standard deviations in the data's units. Points count by inverse variance.

        Returns
        -------
        PairVAELinker

        Raises
        ------
        ValueError, TypeError
            If data or parameters are of no use; the message names the place and the remedy.
        DivergenceError
            If training becomes infinite.

        Warns
        -----
        PretrainingWarning
            If a side had not settled at the end of its pre-training.
        """
        self._validate_params()
        params = self.get_params(deep=False)
        check_options(params)
        problem = self._problem(X, y, (mask, y_mask), (sigma, y_sigma))
        self._fit = fit_linker(problem, params, self._seed(), tuple(self.callbacks or ()))
        self._y_form = problem.y_form
        self._set_public(self._fit)
        return self

    def transform(self, X: Any, y: Any = None, *, mask: Any = None, y_mask: Any = None) -> Any:
        """Codes of records: means of q(z | x), and of q(z | y).

        Parameters
        ----------
        X : same kind as in fit
        y : same kind as in fit, optional
        mask, y_mask : optional
            True = observed.

        Returns
        -------
        array, DataFrame or DataArray of shape (n_records, n_latent_), or a pair of these
        """
        codes = self._codes(X, mask, "a")
        return codes if y is None else (codes, self._codes(y, y_mask, "b"))

    def fit_transform(
        self,
        X: Any,
        y: Any = None,
        *,
        mask: Any = None,
        y_mask: Any = None,
        sigma: Any = None,
        y_sigma: Any = None,
    ) -> Any:
        """Fit, then return the codes of X.

        Parameters
        ----------
        X, y, mask, y_mask, sigma, y_sigma
            As in :meth:`fit`.

        Returns
        -------
        array, DataFrame or DataArray of shape (n_records, n_latent_)
        """
        fitted = self.fit(X, y, mask=mask, y_mask=y_mask, sigma=sigma, y_sigma=y_sigma)
        return fitted.transform(X, mask=mask)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Labels of the codes.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of object
        """
        self._fitted()
        return np.array([f"z{i}" for i in range(self.n_latent_)], dtype=object)
