r"""From q(theta) to the parameters inference runs with.

Mean-field inference of q(z) needs :math:`E_{q(\theta)}\log p(z | \theta)`, which is a plug-in
linear dynamical system at :math:`(M, E[Q^{-1}]^{-1})` plus an excess (module ``filtering``;
Zhao & Linderman 2023, section 3).
"""

from __future__ import annotations

from tsvae.lds.natural import Expectations, expectations_from_standard
from tsvae.lds.parameters import Excess, LDSParameters
from tsvae.lds.priors import MNIW, NIW


def parameters_from_expectations(initial: Expectations, transition: Expectations) -> LDSParameters:
    """Assemble expected parameters (with excess) from phi of the two factors.

    Parameters
    ----------
    initial : Expectations
        Of the initial state's factor (L = 1).
    transition : Expectations
        Of the transition's factor (L = K + U + 1: state, inputs, bias).

    Returns
    -------
    LDSParameters
        With ``excess`` set; ``_replace(excess=None)`` gives the plug-in ones.
    """
    size = transition.mean.shape[-2]
    return LDSParameters(
        initial_mean=initial.mean.squeeze(-1),
        initial_covariance=initial.noise_covariance,
        transition_matrix=transition.mean[..., :size],
        noise_covariance=transition.noise_covariance,
        input_matrix=transition.mean[..., size:-1],
        bias=transition.mean[..., -1],
        excess=Excess(
            precision=transition.excess,
            transition_constant=transition.log_det_excess,
            initial_constant=initial.log_det_excess - 0.5 * initial.excess[..., 0, 0],
        ),
    )


def expected_parameters(initial: NIW, transition: MNIW) -> LDSParameters:
    """Compute expected parameters under q(theta) = NIW x MNIW, with ordinary gradients.

    Parameters
    ----------
    initial : NIW
        q(mu0, Sigma0).
    transition : MNIW
        q([A B b], Q).

    Returns
    -------
    LDSParameters
        With ``excess`` set.
    """
    return parameters_from_expectations(
        expectations_from_standard(initial.as_mniw()), expectations_from_standard(transition)
    )
