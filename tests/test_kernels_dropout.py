"""Dropout from few random bits: its share, its scale, its gradient, and that draws are torch's."""

from __future__ import annotations

import pytest
import torch

from seqrec.kernels.dropout import VALUES, dropout


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_share_goes_and_the_mean_stays(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    y = dropout(torch.ones(400, 1001, dtype=dtype), share).double()
    left = float((y != 0).double().mean())
    assert abs(left - (1 - share)) < 5 * (share * (1 - share) / y.numel()) ** 0.5
    assert float(y.max()) == pytest.approx(1 / (1 - round(share * VALUES) / VALUES), rel=1e-2)
    assert torch.unique(y).numel() == 2


def test_neighbours_do_not_go_together() -> None:
    torch.manual_seed(0)
    gone = (dropout(torch.ones(1_000_000), 0.5) == 0).double() - 0.5
    for distance in (1, 2, 3, 4, 8):
        assert abs(float((gone[distance:] * gone[:-distance]).mean())) * 4 < 0.005


def test_the_gradient_is_the_mask() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 33, dtype=torch.float64, requires_grad=True)
    y = dropout(x, 0.4)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient * x, y)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (2, 3, 7)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert dropout(torch.ones(shape), 0.5).shape == shape


def test_nothing_is_drawn_without_a_share_and_a_seed_repeats_what_is() -> None:
    x = torch.randn(100)
    before = torch.get_rng_state()
    assert dropout(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), before)
    first = dropout(x, 0.5)
    assert not torch.equal(dropout(x, 0.5), first)
    torch.set_rng_state(before)
    assert torch.equal(dropout(x, 0.5), first)
    assert not dropout(x, 1.0).any()
