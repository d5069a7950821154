"""States from which forecasts start: filtered, coupled, carried to the origin."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.models.gaps import Bridged, bridge_gaps
from tsvae.models.graphical import State
from tsvae.models.last_states import can_filter_last, last_states
from tsvae.models.linear_dynamics import LinearDynamics
from tsvae.models.svae import SVAE
from tsvae.models.views import Effect, Frame, Window
from tsvae.models.window_response import has_linear_response, window_response

__all__ = ["Origins", "states_at_origins"]

_STATES_AT_ONCE = 6_000_000  # entries of latent states (chains x steps x D)
_FEWEST_ALIKE = 16  # chains that are worth the response of one: it costs about two filter passes


class Origins(NamedTuple):
    """Where forecasts start: N chains, B series.

    Attributes
    ----------
    frame : Frame
        What was taken off the histories.
    state : State
        N = B, or B * F if channel-wise.
    """

    frame: Frame
    state: State


def states_at_origins(
    model: SVAE,
    x: Tensor,
    visible: Tensor,
    inputs: Tensor | Effect | None,
    lengths: Tensor | None,
) -> Origins:
    """States after the first ``lengths`` rows; complete windows share one response.

    Before a coupling, short gaps are bridged. It acts on the state after the last row in which
    something was seen, as in the windows that it was fitted to; the rows that follow are forecast.

    Parameters
    ----------
    model : SVAE
    x : Tensor (B, T, F)
    visible : Tensor of bool (B, T, F)
    inputs : Tensor (B, T, U) or Effect, optional
        Channel-wise models may be given the effect of inputs instead.
    lengths : Tensor (B,) long, optional
        T by default.

    Returns
    -------
    Origins
    """
    effect = model.effect(inputs)
    if model.coupling is not None:
        x, visible = _bridged(x, visible, effect, model.coupling.bridged)
    frame = model.frame(x, visible, effect)
    moving = None if isinstance(inputs, Effect) else inputs
    window = model.window(x, visible, moving, frame, effect)
    if lengths is None:
        lengths = torch.full((x.shape[0],), x.shape[1])
    lengths = lengths.to(x.device)
    if model.channelwise:
        lengths = lengths.repeat_interleave(model.n_features)
    if model.coupling is None:
        return Origins(frame, _states_after(model, window, lengths))
    seen = torch.minimum(window.lengths, lengths).clamp_min(1)
    state = _states_after(model, window, seen)
    state = state._replace(mean=model.coupling(state.mean))
    return Origins(frame, model.dynamics.advance(state, lengths - seen))


def _bridged(x: Tensor, visible: Tensor, effect: Tensor | float, variables: Tensor) -> Bridged:
    """Bridge gaps of what covariates leave over, of variables marked True."""
    bridged = bridge_gaps(x - effect, visible)
    known = torch.where(variables, bridged.known, visible)
    return Bridged(torch.where(known & ~visible, bridged.x + effect, x), known)


def _states_after(model: SVAE, window: Window, rows: Tensor) -> State:
    """Filter each chain to the state after its first ``rows`` (N,)."""
    n_steps = window.x.shape[1]
    complete = window.visible.flatten(1).all(1) & (rows == n_steps)
    if int(complete.sum()) < _FEWEST_ALIKE or not has_linear_response(model):
        complete = torch.zeros_like(complete)
    where, states = [], []
    if bool(complete.any()):
        response = window_response(model, n_steps, window.x)
        where.append(complete.nonzero().squeeze(1))
        states.append(State(response.mean(window.x[complete]), response.covariance))
    others = (~complete).nonzero().squeeze(1)
    at_once = max(1, _STATES_AT_ONCE // (n_steps * model.latent_dim))
    for part in others.split(at_once) if len(others) else ():
        where.append(part)
        states.append(_filtered_states(model, window, part, rows))
    return _in_order(where, states)


def _filtered_states(model: SVAE, window: Window, chains: Tensor, rows: Tensor) -> State:
    """States of some chains by a filter pass."""
    inputs = window.inputs
    part = Window(
        window.x[chains],
        window.target[chains],
        window.visible[chains],
        None if inputs is None else inputs[chains],
        window.lengths[chains],
    )
    potentials = model.potentials(part)
    if len(chains) >= _FEWEST_ALIKE and isinstance(model.dynamics, LinearDynamics):
        params = model.dynamics.theta.parameters_for_inference()
        if can_filter_last(params, potentials):
            return last_states(params, potentials, part.lengths, rows[chains])
    filtered = model.dynamics.filter(potentials, part.inputs, part.lengths)
    state: State = model.dynamics.state_after(filtered, rows[chains])
    return state


def _in_order(where: list[Tensor], states: list[State]) -> State:
    """Put the states of parts of the chains where the chains are."""
    if len(states) == 1:
        return states[0]
    order = torch.cat(where).argsort()
    covariance = [s.covariance.expand(len(s.mean), -1, -1, -1) for s in states]
    return State(torch.cat([s.mean for s in states])[order], torch.cat(covariance)[order])
