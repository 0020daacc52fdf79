"""The Triton form of the selective scan against the native one in float64: on a GPU, or interpreted on a CPU.

Shapes: B rows, L positions, D channels, N numbers that a channel remembers.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from seqrec.errors import ConfigError
from seqrec.kernels.scan import MOST_NUMBERS, selective_scan

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and TRITON_INTERPRET is not 1", allow_module_level=True)
pytest.importorskip("triton")

DEVICE = "cpu" if INTERPRETED else "cuda"
#: Largest error allowed, relative to the largest entry of its tensor.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
#: B, L, D, N: one event; parts of a stretch; more channels than a program has, and numbers that are no power of 2.
SIZES = [(2, 1, 5, 4), (1, 19, 3, 3), (2, 9, 40, 32)]
if not INTERPRETED:
    SIZES += [(33, 200, 128, 32), (3, 70, 600, 16), (2, 50, 20, MOST_NUMBERS)]


def everything(size: tuple[int, int, int, int], dtype: torch.dtype, kernel: str, exact: bool) -> list[Tensor]:
    """y, the last state, and all gradients, of numbers that `dtype` has, held in float64 if `exact`."""
    B, L, D, N = size
    generator = torch.Generator().manual_seed(0)

    def leaf(rounded: torch.dtype, *shape: int, scale: float = 1.0) -> Tensor:
        given = (torch.randn(*shape, generator=generator) * scale).to(rounded)
        return given.to(DEVICE, torch.float64 if exact else rounded).requires_grad_()

    x, write_read = leaf(dtype, B, L, D), leaf(dtype, B, L, 2 * N)
    step, rate = leaf(torch.float32, B, L, D), leaf(torch.float32, D, N)
    weights = leaf(dtype, B, L, D).detach()
    lengths = torch.randint(0, L + 1, (B,), generator=generator).to(DEVICE)
    write, read = write_read.chunk(2, -1)
    y, last = selective_scan(x, step.exp(), -rate.exp(), write, read, lengths, kernel=kernel)
    return [y.detach(), last, *torch.autograd.grad((y * weights).sum(), (x, step, rate, write_read))]


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_is_the_native_form(size: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    expected = everything(size, dtype, "native", exact=True)
    for found, right in zip(everything(size, dtype, "triton", exact=False), expected, strict=True):
        error = (found.double() - right).abs().max() / right.abs().max().clamp(min=1e-9)
        assert float(error) < TOLERANCE[dtype]


def test_nothing_is_kept_where_nothing_is_learnt() -> None:
    size = (2, 9, 5, 4)
    with torch.no_grad():
        x, step, write, read = (torch.rand(2, 9, width, device=DEVICE) for width in (5, 5, 4, 4))
        rate = -torch.rand(size[2], size[3], device=DEVICE)
        found = selective_scan(x, step, rate, write, read, kernel="triton")
        torch.testing.assert_close(found, selective_scan(x, step, rate, write, read, kernel="native"))


def test_too_many_numbers_are_refused() -> None:
    x, write = torch.rand(1, 2, 3, device=DEVICE), torch.rand(1, 2, MOST_NUMBERS + 1, device=DEVICE)
    with pytest.raises(ConfigError, match=f"up to {MOST_NUMBERS} numbers"):
        selective_scan(x, x, -write[0, :1].expand(3, -1), write, write, kernel="triton")
