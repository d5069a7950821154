"""Fresh memory for large arrays."""

from __future__ import annotations

import pytest
import torch

from tsvae.lds.memory import ALIGNMENT, LARGE, empty


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0, 3), (5, 2, 2), (3, LARGE // 16, 2), (LARGE,)])
def test_it_is_like_a_tensor_of_torch(shape, dtype):
    found = empty(shape, torch.empty(1, dtype=dtype))
    assert found.shape == shape
    assert found.dtype == dtype
    assert found.is_contiguous()
    assert found.data_ptr() % ALIGNMENT == 0
    assert bool((found.fill_(2.0) == 2.0).all())


def test_arrays_do_not_share_memory():
    like = torch.empty(1)
    first, second = empty((LARGE,), like).fill_(1.0), empty((LARGE,), like).fill_(2.0)
    assert bool((first == 1.0).all())
    assert bool((second == 2.0).all())
