"""Generator coordinates of stable transitions, against the matrix exponential."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from tsvae.lds import LinearDynamicsPosterior, make_parameters
from tsvae.lds.charts import (
    GENERATOR_SIZES,
    coordinates_from_transition,
    transition_from_coordinates,
)

DTYPE = torch.float64


def generator_of(coordinates):
    """Gamma of the module docstring, entry by entry, one row (alpha, omega, p, q) at a time."""
    blocks = []
    for alpha, omega, p, q in coordinates.tolist():
        a = math.exp(alpha)
        b, c = (a * value / math.sqrt(1.0 + p * p + q * q) for value in (p, q))
        blocks.append([[-a + b, c - omega], [c + omega, -a - b]])
    return torch.tensor(blocks, dtype=DTYPE)


def matrices(*rows):
    return torch.tensor(rows, dtype=DTYPE)


def rotation(radius, angle):
    cosine, sine = radius * math.cos(angle), radius * math.sin(angle)
    return [[cosine, -sine], [sine, cosine]]


def radius_of(matrix):
    return torch.linalg.eigvals(matrix).abs().amax(-1)


# -- coordinates -> matrix -------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.01, 1.0, 3.0])
def test_is_the_exponential_of_the_generator(scale):
    generator = torch.Generator().manual_seed(3)
    coordinates = scale * torch.randn(200, 4, dtype=DTYPE, generator=generator)
    expected = torch.linalg.matrix_exp(generator_of(coordinates))
    torch.testing.assert_close(
        transition_from_coordinates(coordinates), expected, rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("gap", [0.0, 1e-12, -1e-12, 9e-5, -9e-5, 1.1e-4, -1.1e-4])
def test_is_smooth_where_the_eigenvalues_meet(gap):
    """At delta^2 = 0 the closed form passes from its series to cosh or cos."""
    rate, p, q = 0.3, 0.7, -0.4
    shear = rate**2 * (p * p + q * q) / (1.0 + p * p + q * q)
    coordinates = matrices([math.log(rate), math.sqrt(shear - gap), p, q])
    expected = torch.linalg.matrix_exp(generator_of(coordinates))
    torch.testing.assert_close(
        transition_from_coordinates(coordinates), expected, rtol=1e-13, atol=1e-13
    )


def test_one_state_decays_at_its_rate():
    half_lives = matrices(1.0, 10.0, 5000.0)
    coordinates = (math.log(2.0) / half_lives).log()[:, None]
    decay = transition_from_coordinates(coordinates)[:, 0, 0]
    torch.testing.assert_close(decay**half_lives, torch.full_like(decay, 0.5))


coordinate = st.floats(-30.0, 30.0, allow_nan=False)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-8.0, 8.0), coordinate, coordinate, coordinate)
def test_any_coordinates_are_stable(alpha, omega, p, q):
    matrix = transition_from_coordinates(matrices([alpha, omega, p, q]))
    assert torch.isfinite(matrix).all()
    # log |A| = -2 a exactly, so the radius cannot hide behind rounding of a defective pair.
    a = math.exp(alpha)
    determinant = torch.linalg.det(matrix).item()
    assert determinant == pytest.approx(math.exp(-2.0 * a), rel=1e-6, abs=1e-12)
    assert radius_of(matrix).item() < 1.0


EXTREMES = [
    pytest.param([-700.0, 0.0, 0.0, 0.0], id="no decay"),
    pytest.param([-30.0, 0.5, 0.0, 0.0], id="undamped rotation"),
    pytest.param([8.0, 0.0, 0.0, 0.0], id="dies at once"),
    pytest.param([80.0, 0.0, 0.0, 0.0], id="dies at once, far"),
    pytest.param([1000.0, 0.0, 0.0, 0.0], id="rate overflows"),
    pytest.param([8.0, 0.0, 50.0, 50.0], id="fast and sheared"),
    pytest.param([0.0, 0.0, 1e6, 0.0], id="shear at its limit"),
    pytest.param([0.0, 0.0, 1e200, 1e200], id="shear overflows"),
    pytest.param([0.0, 1e6, 0.0, 0.0], id="turns many times a step"),
    pytest.param([0.0, 1e200, 0.0, 0.0], id="frequency overflows"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("row", EXTREMES)
def test_extreme_coordinates_stay_finite_and_bounded(row, dtype):
    row = torch.tensor([row], dtype=dtype).clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max)
    row.requires_grad_()
    matrix = transition_from_coordinates(row)
    assert torch.isfinite(matrix).all()
    # A decay below the spacing of numbers around 1 gives a unit root, not more.
    assert radius_of(matrix.detach()).item() <= 1.0 + 4 * torch.finfo(dtype).eps
    matrix.sum().backward()
    assert torch.isfinite(row.grad).all()


# -- matrix -> coordinates -------------------------------------------------------------------------

STABLE = {
    "rotation": rotation(0.99, 2 * math.pi / 12),
    "slow rotation": rotation(0.99995, 2 * math.pi / 365.25),
    "half turn nearly": rotation(0.9, 3.1),
    "half turn": rotation(0.9, math.pi),
    "half turn, slow": rotation(0.9999, math.pi),
    "backwards": rotation(0.9, -1.0),
    "elliptic rotation": [[0.75, -0.5], [0.4, 0.7]],
    "level": rotation(0.999, 0.0),
    "real": [[0.95, 0.0], [0.0, 0.6]],
    "real, mixed": [[0.8, 0.1], [0.15, 0.7]],
    "damped trend": [[0.9, 0.05], [0.0, 0.9]],
    "damped trend, fast": [[0.5, 0.3], [0.0, 0.5]],
    "damped trend, down": [[0.97, -0.02], [0.0, 0.97]],
    "damped trend, transposed": [[0.9, 0.0], [0.05, 0.9]],
}


@pytest.mark.parametrize("name", STABLE)
def test_round_trip_of_stable_matrices(name):
    matrix = matrices(STABLE[name])
    coordinates = coordinates_from_transition(matrix)
    assert coordinates.shape == (1, GENERATOR_SIZES[2])
    torch.testing.assert_close(
        transition_from_coordinates(coordinates), matrix, rtol=1e-7, atol=1e-8
    )


def test_round_trip_of_decays():
    matrix = matrices(0.999, 0.5, 1e-6)[:, None, None]
    coordinates = coordinates_from_transition(matrix)
    assert coordinates.shape == (3, GENERATOR_SIZES[1])
    torch.testing.assert_close(transition_from_coordinates(coordinates), matrix)


def test_round_trip_of_coordinates():
    """The principal logarithm: |Im eigenvalue| < pi, which holds for |omega| < pi."""
    generator = torch.Generator().manual_seed(5)
    coordinates = torch.randn(100, 4, dtype=DTYPE, generator=generator)
    coordinates[:, 0] -= 1.0
    coordinates[:, 1].clamp_(-3.0, 3.0)
    back = coordinates_from_transition(transition_from_coordinates(coordinates))
    torch.testing.assert_close(back, coordinates, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "matrix",
    [
        rotation(1.05, 0.3),
        [[1.0, 1.0], [0.0, 1.0]],
        [[1.2, 0.0], [0.0, 0.9]],
        [[0.9, -0.9], [0.1, 0.7]],
        [[0.99, 0.05], [0.0, 0.99]],
    ],
    ids=["growing rotation", "undamped trend", "one growing state", "long ellipse", "steep trend"],
)
def test_unreachable_matrices_go_to_a_stable_neighbour(matrix):
    """Unstable ones, and those under which a disturbance grows before it dies."""
    coordinates = coordinates_from_transition(matrices(matrix))
    assert torch.isfinite(coordinates).all()
    assert radius_of(transition_from_coordinates(coordinates)).item() <= 1.0


def test_keeps_the_type():
    matrix = torch.tensor([rotation(0.9, 0.5)], dtype=torch.float32)
    coordinates = coordinates_from_transition(matrix)
    assert coordinates.dtype == torch.float32 and not coordinates.requires_grad
    torch.testing.assert_close(transition_from_coordinates(coordinates), matrix)


@pytest.mark.parametrize(
    "matrix",
    [[[-0.5, 0.0], [0.0, -0.4]], [[0.5, 0.0], [0.0, -0.5]], [[0.5, 0.0], [0.0, 0.0]]],
    ids=["two negative", "one negative", "singular"],
)
def test_matrices_without_a_real_logarithm_are_refused(matrix):
    with pytest.raises(ValueError, match=r'no real logarithm; start .* use chart="linear"'):
        coordinates_from_transition(matrices(matrix))


def test_negative_decay_is_refused():
    with pytest.raises(ValueError, match="no real logarithm"):
        coordinates_from_transition(matrices([[-0.5]]))


def test_large_groups_are_refused():
    with pytest.raises(ValueError, match=r"group_size 1 or 2; got 3\. Use chart=\"linear\""):
        coordinates_from_transition(0.5 * torch.eye(3)[None])


# -- gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        [-1.0, 0.5, 0.1, 0.2],  # complex pair
        [-1.0, 0.05, 0.8, -0.6],  # two real eigenvalues
        [-1.0, 0.0, 0.0, 0.0],  # multiple of the identity
        [-2.0, 1e-3, 1e-3, 0.0],  # inside the series
        [-1.2],
    ],
    ids=["turning", "real", "identity", "series", "one state"],
)
def test_gradient(row):
    coordinates = matrices(row).requires_grad_()
    assert gradcheck(transition_from_coordinates, (coordinates,))


# -- as the chart of q(theta) ----------------------------------------------------------------------


def start_of(group_size, n_inputs=1):
    a = (
        matrices(rotation(0.99, 0.5), [[0.9, 0.05], [0.0, 0.9]])
        if group_size == 2
        else matrices([[0.99]], [[0.5]])
    )
    eye = torch.eye(group_size, dtype=DTYPE).expand_as(a)
    return make_parameters(
        a,
        0.1 * eye,
        input_matrix=0.3 * torch.ones(2, group_size, n_inputs, dtype=DTYPE),
        bias=-0.2 * torch.ones(2, group_size, dtype=DTYPE),
    )


def theta_of(posterior, group_size, **settings):
    return LinearDynamicsPosterior(
        2 * group_size,
        group_size=group_size,
        n_inputs=1,
        posterior=posterior,
        chart="generator",
        dtype=DTYPE,
        **settings,
    )


@pytest.mark.parametrize("group_size", [1, 2])
@pytest.mark.parametrize("posterior", ["gradient", "point"])
class TestChartOfThePosterior:
    def test_plug_in_is_the_start(self, posterior, group_size):
        start = start_of(group_size)
        plug_in = theta_of(posterior, group_size, start=start).plug_in()
        for name in ("transition_matrix", "noise_covariance", "input_matrix", "bias"):
            torch.testing.assert_close(
                getattr(plug_in, name), getattr(start, name), rtol=1e-7, atol=1e-8, msg=name
            )

    def test_reset(self, posterior, group_size):
        theta, start = theta_of(posterior, group_size), start_of(group_size)
        theta.reset(start)
        got = theta.plug_in().transition_matrix
        torch.testing.assert_close(got, start.transition_matrix, rtol=1e-7, atol=1e-8)

    def test_kl_agrees_with_the_linear_chart(self, posterior, group_size):
        start = start_of(group_size)
        linear = LinearDynamicsPosterior(
            2 * group_size,
            group_size=group_size,
            n_inputs=1,
            posterior=posterior,
            start=start,
            dtype=DTYPE,
        )
        kl = theta_of(posterior, group_size, start=start).kl()
        torch.testing.assert_close(kl, linear.kl(), rtol=1e-6, atol=1e-6)

    def test_kl_is_differentiable_in_the_coordinates(self, posterior, group_size):
        theta = theta_of(posterior, group_size, start=start_of(group_size))
        theta.kl().backward()
        gradient = theta.transition_coordinates.grad
        assert torch.isfinite(gradient).all() and (gradient != 0).any(dim=1).all()
        # One coordinate against a central difference.
        step = 1e-3
        values = []
        for sign in (1.0, -1.0):
            moved = theta_of(posterior, group_size, start=start_of(group_size))
            with torch.no_grad():
                moved.transition_coordinates[1, 0] += sign * step
            values.append(moved.kl().item())
        difference = (values[0] - values[1]) / (2 * step)
        assert gradient[1, 0].item() == pytest.approx(difference, rel=1e-4)

    def test_state_dict_round_trip(self, posterior, group_size):
        theta = theta_of(posterior, group_size, start=start_of(group_size))
        with torch.no_grad():
            theta.transition_coordinates.add_(0.1)
        other = theta_of(posterior, group_size)
        assert not torch.equal(other.plug_in().transition_matrix, theta.plug_in().transition_matrix)
        other.load_state_dict(theta.state_dict())
        for got, want in zip(other.plug_in(), theta.plug_in(), strict=True):
            assert (got is None and want is None) or torch.equal(got, want)


def test_natural_directions_need_the_linear_chart():
    with pytest.raises(ValueError, match='use chart="linear"'):
        theta_of("natural", 2)


def test_unknown_chart():
    with pytest.raises(ValueError, match=r"chart must be one of .* got 'polar'"):
        LinearDynamicsPosterior(4, group_size=2, posterior="gradient", chart="polar")


def test_groups_of_three_are_refused():
    with pytest.raises(ValueError, match="group_size 1 or 2; got 3"):
        LinearDynamicsPosterior(6, group_size=3, posterior="gradient", chart="generator")
