"""Vector quantisation against slow loops and hand calculations."""

from __future__ import annotations

import math
import pickle

import pytest
import torch

from tsvae.models.codebook import Codebook, code_perplexity


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def outputs(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def test_nearest_equals_a_loop_over_all_distances():
    book = Codebook(7, 3).double()
    z = outputs(5, 4, 3)
    expected = [
        [min(range(7), key=lambda k: float(((v - book.vectors[k]) ** 2).sum())) for v in row]
        for row in z
    ]
    quantized = book(z)
    assert quantized.codes.tolist() == expected
    torch.testing.assert_close(quantized.z, book.vectors[quantized.codes])
    distance = ((z - book.vectors[quantized.codes]) ** 2).sum(-1)
    torch.testing.assert_close(quantized.commitment, distance)


def test_straight_through_gradient_equals_finite_differences_of_the_surrogate():
    """Surrogate: f(z + e - z0) + w |z - e|^2 with codes e and the shift held at z0."""
    book = Codebook(5, 2).double()
    z = outputs(6, 2).requires_grad_()
    target, weight = outputs(6, 2, seed=3), 0.25

    def loss(value, commitment):
        return ((value.sin() - target) ** 2).sum() + weight * commitment.sum()

    quantized = book(z)
    loss(quantized.z, quantized.commitment).backward()
    codes = book.vectors[quantized.codes]

    def surrogate(point):
        return loss(codes + (point - z.detach()), ((point - codes) ** 2).sum(-1))

    step, expected = 1e-6, torch.zeros_like(z)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            shift = torch.zeros_like(z)
            shift[i, j] = step
            with torch.no_grad():
                up, down = surrogate(z + shift), surrogate(z - shift)
            expected[i, j] = (up - down) / (2 * step)
    torch.testing.assert_close(z.grad, expected, rtol=1e-6, atol=1e-7)


def test_moving_averages_equal_a_slow_loop():
    decay, epsilon, k = 0.9, 1e-3, 4
    book = Codebook(k, 2, decay=decay, epsilon=epsilon, restart_after=float("inf")).double()
    counts, sums = book.counts.tolist(), book.sums.tolist()
    for step in range(5):
        z = outputs(3, 6, 2, seed=step)
        codes = book(z).codes
        book.update(z, codes, generator())
        flat, flat_codes = z.reshape(-1, 2).tolist(), codes.flatten().tolist()
        for i in range(k):
            mine = [row for row, code in zip(flat, flat_codes, strict=True) if code == i]
            counts[i] = decay * counts[i] + (1 - decay) * len(mine)
            for d in range(2):
                sums[i][d] = decay * sums[i][d] + (1 - decay) * sum(row[d] for row in mine)
        total = sum(counts)
        vectors = [
            [s / ((counts[i] + epsilon) / (total + k * epsilon) * total) for s in sums[i]]
            for i in range(k)
        ]
        torch.testing.assert_close(book.vectors, torch.tensor(vectors, dtype=torch.float64))
        torch.testing.assert_close(book.counts, torch.tensor(counts, dtype=torch.float64))


def test_codes_converge_to_the_means_of_clusters():
    book = Codebook(3, 1, decay=0.5).double()
    centres = torch.tensor([[-5.0], [0.0], [5.0]], dtype=torch.float64)
    data = (centres + 0.1 * outputs(20, 3, 1)).flatten(0, 1)
    book.start(data, generator(1))
    for _ in range(40):
        book.update(data, book(data).codes, generator())
    means = data.reshape(20, 3, 1).mean(0)
    torch.testing.assert_close(book.vectors.sort(0).values, means, atol=1e-4, rtol=0)


def test_dead_codes_restart_on_outputs_of_the_batch_and_live_ones_stay():
    book = Codebook(4, 2, decay=0.5, restart_after=50.0).double()
    book.vectors[2:] = 1e3  # never the nearest
    book.vectors[:2] = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    book.sums.copy_(book.vectors)
    z = outputs(50, 2)
    codes = book(z).codes
    assert set(codes.tolist()) == {0, 1}
    far = book.vectors[2:].clone()
    for step in range(4):  # 50 outputs over 4 codes: 12.5 uses of an average code each time
        torch.testing.assert_close(book.vectors[2:], far, rtol=1e-4, atol=0)
        assert (book.idle == torch.tensor([0.0, 0.0, 12.5 * step, 12.5 * step])).all()
        book.update(z, codes, generator())
    rows = {tuple(row) for row in z.tolist()}
    assert all(tuple(row) in rows for row in book.vectors[2:].tolist())
    assert not any(tuple(row) in rows for row in book.vectors[:2].tolist())
    torch.testing.assert_close(book.vectors[0], z[codes == 0].mean(0), atol=0.1, rtol=0)
    assert len(set(book(z).codes.tolist())) == 4


def test_start_places_codes_on_distinct_outputs():
    book = Codebook(8, 2).double()
    z = outputs(4, 5, 2)
    book.start(z, generator())
    rows = {tuple(row) for row in z.flatten(0, 1).tolist()}
    vectors = [tuple(row) for row in book.vectors.tolist()]
    assert set(vectors) <= rows
    assert len(set(vectors)) == 8
    assert bool(book.started)


def test_fewer_outputs_than_codes():
    book = Codebook(8, 2).double()
    z = outputs(3, 2)
    book.start(z, generator())
    book.update(z, book(z).codes, generator())
    assert torch.isfinite(book.vectors).all()


def test_perplexity_by_hand():
    codes = torch.tensor([[0, 0], [0, 1]])
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert float(code_perplexity(codes, 10)) == pytest.approx(expected, rel=1e-6)
    assert float(code_perplexity(torch.zeros(5).long(), 10)) == 1.0


def test_quantising_changes_nothing_and_pickles():
    book = Codebook(4, 2)
    before = {name: value.clone() for name, value in book.state_dict().items()}
    book(torch.randn(3, 2, generator=generator()))
    copy = pickle.loads(pickle.dumps(book))
    for name, value in copy.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "options",
    [{"decay": 1.0}, {"epsilon": 0.0}, {"restart_after": 0.0}, {"decay": float("nan")}],
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Codebook(4, 2, **options)
