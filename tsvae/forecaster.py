"""Forecasting with a structured VAE, as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from sklearn.base import RegressorMixin

from tsvae._forecaster.ahead import AheadMixin
from tsvae._forecaster.inside import InsideMixin, LatentDynamics
from tsvae._forecaster.parameters import PARAMETER_CONSTRAINTS
from tsvae.estimation.checking import check_possible, check_settings
from tsvae.estimation.forecasting import masked_r2
from tsvae.estimation.origins import origin_crps
from tsvae.estimation.reading import Problem
from tsvae.estimation.structured import fit_structured

__all__ = ["LatentDynamics", "SVAEForecaster"]


class SVAEForecaster(RegressorMixin, AheadMixin, InsideMixin):
    """Forecast multivariate series with gaps by a structured variational autoencoder.

    A linear dynamical system holds the state; an encoder turns the entries that are present at a
    step into a Gaussian potential on it, a decoder turns states into distributions of the data.
    Inference between the two is exact, so that gaps, irregular ends and any horizon need nothing
    special. (This is the *structured* VAE of Johnson et al. 2016, not the hyperspherical VAE that
    shares the abbreviation.)

    Two forms: ``fit(df)`` models all columns; ``fit(X, y)`` forecasts y with X known, one row of y
    for each row of X. Scaling is internal: a scaler before the forecaster is needless and would
    give scaled forecasts.

    Parameters
    ----------
    horizon : int, default=24
        Steps ahead that training asks for and ``predict`` gives by default; other horizons need
        no new fit, but are best asked for where the data are short.
    context_length : int, default=512
        Rows of history that a forecast reads; three weeks of hourly data. Shorter data use what
        they have.
    latent_dim : int, default=128
        Size of the latent state, per variable if channels are independent. 128 leaves room for
        levels and trends of several memories, two dozen seasonal pairs and free ones. A structural
        start (``start``) has as many as it needs, at most so many.
    hidden_sizes : sequence of int, default=()
        Hidden layers of encoder and decoder networks beside their linear paths. None by default:
        with linear paths all distributions are in closed form, and that was the best on
        validation.
    activation : str, default="gelu"
        Of the networks.
    likelihood : {"normal", "laplace", "student_t", "bernoulli", "poisson", \
"negative_binomial"}, default="normal"
        Distribution of the data given the state. Bernoulli scales data to 0..1; counts are not
        scaled.
    scale : {"learned", "network"}, default="learned"
        Observation noise per variable, or from the decoder network.
    final_sigmoid : bool, default=False
        Decode into 0..1 after min-max scaling.
    layer_norm : bool, default=False
        Layer normalisation in the networks.
    channels : {"auto", "independent", "joint"}, default="auto"
        "independent": each variable has latent chains of its own with shared parameters; "joint":
        one chain explains all. "auto" takes independent up to 32 variables: cross-variable
        relations learned jointly did not hold out of sample on the data we measured.
    group_size : int or None, default=2
        The transition is block-diagonal in groups of this size (2: damped rotations and trends);
        None: dense.
    potential : {"diagonal", "block", "dense"}, default="diagonal"
        Form of the encoder's precision.
    encoder_precision : {"learned", "network"}, default="learned"
        Precision from which entries are present, or also from the network.
    seasonal_periods : "auto", None or sequence of float, default="auto"
        Periods in steps where latent rotations start. "auto": from the calendar of the time
        stamps, or found in the data where there is none.
    seasonal_effect : bool or "auto", default="auto"
        Take a fixed seasonal pattern (Fourier terms at the seasonal periods that the data hold
        twice) off the data before the latent states see them; states then hold what varies. Needs
        time stamps to know the phase. "auto": whole for variables whose steps follow periods that
        the data hold at most 60 times beyond chance; half of the other periods, which states
        learn, too, for variables that follow those.
    window_level : bool or "both", default=True
        Take the level of each window off (its first quarter of entries), so that forecasts follow
        the level of the series. "both": forecasts are moved by a third towards those of a second
        model that keeps levels and brings them back to what the training rows had, where these
        hold five histories with horizons side by side and the start is all the training;
        for long horizons, at 1.8 times the time of a fit.
    start : {"auto", "moments", "roles"}, default="auto"
        Where training begins. "moments": a bank of filters whose forecasts are fitted to the
        second moments of all windows by least squares, shrunk towards persistence as
        cross-validation over blocks of time asks, from states that are coupled where forecasts
        start; gaps of a history are filled from all variables, or bridged by straight lines where
        the data tell too little. For independent channels of groups of two and real data, else
        "roles" is taken. "roles": levels and rotations at the seasonal frequencies, all else left
        to training. "auto": as "moments", but where the data hold fewer than five histories with
        horizons side by side and the start is all the training, a structural model (level, slope,
        season; at most ``latent_dim`` states) is fitted by maximum likelihood, too, and taken
        unless its forecasts missed by clearly more than those of the bank.
    power_transform : {None, "log", "box-cox"}, default=None
        Of positive data, undone on output.
    calendar : bool, default=False
        Add hour, weekday and day-of-year features as known covariates.
    point_estimate : bool, default=False
        Point estimate of the transition instead of a posterior over it.
    natural_gradient : bool, default=True
        Natural-gradient steps for the transition's posterior instead of ordinary gradients in
        well-scaled coordinates.
    natural_learning_rate : float or None, default=None
        In units of the conjugate update: 1 would replace the posterior. None: 0.0001 after a start
        from moments without networks, which larger steps make worse; else 0.1.
    drop_correction : bool, default=False
        Keep reconstruction and forecasts from moving the transition's posterior.
    prior_scale, prior_degrees, prior_precision, prior_mean : float, default=0.1, 2.0, 0.001, 0.9
        Prior of transition and initial state: S_0, nu_0, lam_0, M_0. The source uses S_0 = 1; slow
        states move by far less than 1 per step.
    forecast_weight : float, default=1.0
        Weight of the many-step forecast density in the loss.
    elbo_weight : float or None, default=None
        Weight of the evidence lower bound. The bound rewards one-step fit, the forecast term what
        the forecasts need. None: 0 after a start from moments without networks, else 0.1.
    n_origins : int, default=8
        Forecast origins per training window.
    n_samples : int, default=100
        Sample paths behind forecasts without a closed form; training uses 4.
    mask_fraction : float, default=0.0
        Share of entries hidden from the encoder at random in training, and asked for.
    block_length : int, default=0
        Length of blocks hidden in training, one per window; 0: none.
    noise_scale : float, default=0.0
        Standard deviation of noise added to the encoder's input in training.
    beta : float, default=1.0
        Final weight of the KL terms.
    beta_min : float, default=0.001
        First weight of the KL terms.
    beta_warmup_steps, beta_annealing_steps : int, default=500
        Steps at ``beta_min`` and steps from there to ``beta``; shortened in a short fit.
    max_epochs : int or None, default=None
        An epoch is 20 to 50 steps, about one look at the data. None: 0 after a start from moments
        without networks, which is a fit already; else 10.
    batch_size : int, default=4
        Windows per step, each of all variables.
    learning_rate : float, "auto" or None, default=None
        Peak rate; "auto" runs a range test. None: 0.0001 after a start from moments without
        networks, else 0.03.
    optimizer : {"adam", "adamw", "adafactor"}, default="adam"
        Of everything but natural-gradient parameters.
    lr_schedule : {"cosine", "constant", "plateau", "one_cycle"}, default="cosine"
        Course of the rate.
    warmup_steps : int, default=10
        Linear warm-up of the rate.
    clip_norm : float or None, default=1.0
        Largest gradient norm.
    patience : int or None, default=10
        Epochs without a better validation criterion before training stops.
    min_delta : float, default=0.0
        Smallest decrease that counts as better.
    validation_fraction : float, default=0.0
        Part set aside to choose the best epoch: the last part of the time, or whole series if
        there are many; worth it with networks (``hidden_sizes``). 0: the most recent rows are
        learned from, too, which helps more with linear paths. Data too short to spare a horizon
        are used whole.
    calibrate : bool, default=False
        Fit twice: first on all but the last tenth of the rows, to measure on them how wide
        intervals must be (conformal factors for each level and group of steps), then on all rows.
        Data too short for that are used whole.
    max_time : float or None, default=None
        Seconds after which training ends in good order.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1" ...; "auto" takes a GPU if there is one.
    precision : {"32-true", "bf16-mixed", "16-mixed"}, default="32-true"
        Mixed precision applies to networks only.
    n_threads : int or None, default=1
        CPU threads of torch in fit and predict; the small matrices here gain nothing from more.
        None leaves torch's setting.
    freq : str, offset or int, optional
        Time step, if it cannot be inferred.
    time : hashable, optional
        Column, level or dim that holds the time.
    series : hashable or list, optional
        Columns or dim that tell series apart.
    random_state : int, RandomState or None, default=None
        Seed of everything random.
    verbose : bool, default=False
        Show a progress bar.
    callbacks : list of Callback, optional
        See :mod:`tsvae.training`.

    Attributes
    ----------
    model_ : SVAE
        The torch model, on the CPU.
    training_log_ : TrainingLog
        One row per epoch.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if all column labels are strings.

    References
    ----------
    Johnson et al. 2016, arXiv 1603.06277. Zhao & Linderman 2023, arXiv 2305.16543. Bendekgey, Hope
    & Sudderth 2023, arXiv 2306.08230.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> stamps = pd.date_range("2024-01-01", periods=120, freq="h")
    >>> wave = np.sin(2 * np.pi * np.arange(120) / 24)
    >>> df = pd.DataFrame({"load": 50 + 10 * wave}, index=stamps)
    >>> df.iloc[30:40] = np.nan
    >>> f = SVAEForecaster(horizon=12, max_epochs=2, latent_dim=8, random_state=0).fit(df)
    >>> f.predict().shape, f.predict().index[0]
    ((12, 1), Timestamp('2024-01-06 00:00:00'))
    >>> f.predict_interval(coverage=0.9).columns.tolist()
    [('load', 0.9, 'lower'), ('load', 0.9, 'upper')]
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = PARAMETER_CONSTRAINTS

    def __init__(
        self,
        horizon: int = 24,
        *,
        context_length: int = 512,
        latent_dim: int = 128,
        hidden_sizes: Sequence[int] = (),
        activation: str = "gelu",
        likelihood: str = "normal",
        scale: str = "learned",
        final_sigmoid: bool = False,
        layer_norm: bool = False,
        channels: str = "auto",
        group_size: int | None = 2,
        potential: str = "diagonal",
        encoder_precision: str = "learned",
        seasonal_periods: str | Sequence[float] | None = "auto",
        seasonal_effect: bool | str = "auto",
        window_level: bool | str = True,
        start: str = "auto",
        power_transform: str | None = None,
        calendar: bool = False,
        point_estimate: bool = False,
        natural_gradient: bool = True,
        natural_learning_rate: float | None = None,
        drop_correction: bool = False,
        prior_scale: float = 0.1,
        prior_degrees: float = 2.0,
        prior_precision: float = 0.001,
        prior_mean: float = 0.9,
        forecast_weight: float = 1.0,
        elbo_weight: float | None = None,
        n_origins: int = 8,
        n_samples: int = 100,
        mask_fraction: float = 0.0,
        block_length: int = 0,
        noise_scale: float = 0.0,
        beta: float = 1.0,
        beta_min: float = 0.001,
        beta_warmup_steps: int = 500,
        beta_annealing_steps: int = 500,
        max_epochs: int | None = None,
        batch_size: int = 4,
        learning_rate: float | str | None = None,
        optimizer: str = "adam",
        lr_schedule: str = "cosine",
        warmup_steps: int = 10,
        clip_norm: float | None = 1.0,
        patience: int | None = 10,
        min_delta: float = 0.0,
        validation_fraction: float = 0.0,
        calibrate: bool = False,
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
        self.horizon = horizon
        self.context_length = context_length
        self.latent_dim = latent_dim
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.likelihood = likelihood
        self.scale = scale
        self.final_sigmoid = final_sigmoid
        self.layer_norm = layer_norm
        self.channels = channels
        self.group_size = group_size
        self.potential = potential
        self.encoder_precision = encoder_precision
        self.seasonal_periods = seasonal_periods
        self.seasonal_effect = seasonal_effect
        self.window_level = window_level
        self.start = start
        self.power_transform = power_transform
        self.calendar = calendar
        self.point_estimate = point_estimate
        self.natural_gradient = natural_gradient
        self.natural_learning_rate = natural_learning_rate
        self.drop_correction = drop_correction
        self.prior_scale = prior_scale
        self.prior_degrees = prior_degrees
        self.prior_precision = prior_precision
        self.prior_mean = prior_mean
        self.forecast_weight = forecast_weight
        self.elbo_weight = elbo_weight
        self.n_origins = n_origins
        self.n_samples = n_samples
        self.mask_fraction = mask_fraction
        self.block_length = block_length
        self.noise_scale = noise_scale
        self.beta = beta
        self.beta_min = beta_min
        self.beta_warmup_steps = beta_warmup_steps
        self.beta_annealing_steps = beta_annealing_steps
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
        self.calibrate = calibrate
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

    def fit(self, X: Any, y: Any = None, *, mask: Any = None) -> Self:
        """Fit to a panel, or to a target beside known covariates.

        Parameters
        ----------
        X : DataFrame, Series, DataArray, Dataset or array
            Rows = time, columns = variables; NaN = missing. With ``y``: known covariates, one row
            for each row of y.
        y : same kinds, optional
            Target.
        mask : same kind and shape as X (as y, if given), optional
            True = observed.

        Returns
        -------
        SVAEForecaster

        Raises
        ------
        ValueError, TypeError
            If data or parameters are of no use; the message names the place and the remedy.
        DivergenceError
            If training becomes infinite.
        """
        self._validate_params()
        check_settings(self.get_params(deep=False))
        problem = self._reader().fit_problem(X, y, mask)
        check_possible(problem.target, self.likelihood)
        fitted = fit_structured(
            problem, self.get_params(deep=False), self._seed(), tuple(self.callbacks or ())
        )
        self._fit = fitted
        self._set_public(fitted)
        return self

    def update(self, X: Any, y: Any = None, *, mask: Any = None) -> Self:
        """Append new rows to the history that forecasts start from; parameters stay.

        Parameters
        ----------
        X : same kind as in fit
            Rows that continue the training data (arrays: that follow it).
        y : same kind as in fit, optional
            Target, if the fit had one.
        mask : optional
            Of the target.

        Returns
        -------
        SVAEForecaster

        Raises
        ------
        ValueError
            If the rows do not continue the history.
        """
        fitted = self._fitted()
        if fitted.covariates is None:
            self._refuse_target(y, "update")
            new = Problem(self._history(X, mask), None)
        else:
            new = self._pair(X, y, mask)
        self._fit = fitted.append(new)
        return self

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, *, mask: Any = None) -> float:
        """Forecast skill; greater is better.

        Parameters
        ----------
        X : same kind as in fit
            After ``fit(df)``: rows that continue the training data are forecast from it, others
            are new series whose first rows are history.
        y : optional
            Target, if the fit had one.
        sample_weight : array-like, optional
            Of the rows, in the ``fit(X, y)`` form.
        mask : optional

        Returns
        -------
        float
            ``fit(df)``: minus the mean CRPS over rolling origins in training-standardised units.
            ``fit(X, y)``: R2.
        """
        fitted = self._fitted()
        if fitted.covariates is None:
            self._refuse_target(y, "score")
            if sample_weight is not None:
                raise ValueError("sample_weight is for models fitted by fit(X, y); leave it out.")
            panel = self._inside(X, mask, "score")
            engine = self._engine()
            past = fitted.history.target
            return -origin_crps(engine, past, panel, fitted.sizes.context, self.horizon)
        if y is None:
            raise ValueError("score needs y after fit(X, y): the target at the rows of X.")
        truth = self._pair(X, y, mask).target
        mean = self._predictive(X, None, None, None).mean()
        rows = truth.index.row_positions()
        seen, wanted, got = truth.mask[rows], truth.values[rows], mean[rows]
        return masked_r2(wanted, got, seen, sample_weight)
