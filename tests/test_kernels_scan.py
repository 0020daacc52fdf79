"""The scans against loops over single numbers, and gradients against finite differences.

Shapes: B rows, L positions, D channels, N numbers that a channel remembers.
"""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import Tensor

from seqrec.errors import ConfigError
from seqrec.kernels.scan import linear_recurrence, selective_scan, selective_step
from seqrec.kernels.scan.native import BLOCK

#: One event, less than a block, a block, and parts of several.
LENGTHS = [1, 2, 3, 5, 16, 17, 2 * BLOCK + 3]
FORMS = ["native", "recurrent"]


def random_linear(L: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    """a (3,) inside the unit circle, and b (2, L, 3)."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((3,), (2, L, 3)))
    return a / a.abs() * torch.tensor([0.99, 0.5, 0.0], dtype=torch.float64), b


def random_selective(L: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x and step (2, L, 5), rate (5, 4), write and read (2, L, 4), in float64."""
    generator = torch.Generator().manual_seed(seed)
    x, step, write, read = (
        torch.randn(2, L, width, generator=generator, dtype=torch.float64) for width in (5, 5, 4, 4)
    )
    rate = -3 * torch.rand(5, 4, generator=generator, dtype=torch.float64)
    return x, step.exp() * 0.3, rate, write, read


@pytest.mark.parametrize("kernel", FORMS)
@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_a_linear_recurrence_is_a_sum_of_faded_inputs(dtype: torch.dtype, L: int, kernel: str) -> None:
    a, b = random_linear(L, dtype)
    found = linear_recurrence(a, b, kernel=kernel)
    for row in range(2):
        for channel in range(3):
            factor = complex(a[channel])
            for t in range(L):
                terms = [factor ** (t - s) * complex(b[row, s, channel]) for s in range(t + 1)]
                expected = complex(math.fsum(z.real for z in terms), math.fsum(z.imag for z in terms))
                assert cmath.isclose(complex(found[row, t, channel]), expected, rel_tol=1e-10, abs_tol=1e-12)


@pytest.mark.parametrize("kernel", FORMS)
@pytest.mark.parametrize("L", LENGTHS)
def test_a_selective_scan_is_that_of_the_paper(L: int, kernel: str) -> None:
    inputs = random_selective(L)
    x, step, rate, write, read = (part.tolist() for part in inputs)
    y, last = selective_scan(*inputs, kernel=kernel)
    for row in range(2):
        for d in range(5):
            state = [0.0] * 4
            for t in range(L):
                delta = step[row][t][d]
                for n in range(4):
                    state[n] = math.exp(delta * rate[d][n]) * state[n] + delta * write[row][t][n] * x[row][t][d]
                expected = math.fsum(read[row][t][n] * state[n] for n in range(4))
                assert float(y[row, t, d]) == pytest.approx(expected, rel=1e-10, abs=1e-12)
            assert last[row, d].tolist() == pytest.approx(state, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("L", [1, 5, 7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_of_the_linear_recurrence(dtype: torch.dtype, L: int) -> None:
    a, b = (part.requires_grad_() for part in random_linear(L, dtype))
    assert torch.autograd.gradcheck(linear_recurrence, (a, b))


def test_gradients_of_the_selective_scan() -> None:
    inputs = [part.requires_grad_() for part in random_selective(4)]
    assert torch.autograd.gradcheck(lambda *parts: selective_scan(*parts)[0], inputs)


@pytest.mark.parametrize("L", LENGTHS)
def test_gradients_of_both_forms_are_the_same_over_several_blocks(L: int) -> None:
    leaves = [part.requires_grad_() for part in random_selective(L)]
    weights = torch.randn(2, L, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    first, second = (
        torch.autograd.grad((selective_scan(*leaves, kernel=kernel)[0] * weights).sum(), leaves) for kernel in FORMS
    )
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("kernel", FORMS)
def test_the_state_is_that_after_the_last_event_of_each_row(kernel: str) -> None:
    x, step, rate, write, read = random_selective(BLOCK + 2)
    _, last = selective_scan(x, step, rate, write, read, torch.tensor([BLOCK + 1, 0]), kernel=kernel)
    _, expected = selective_scan(x[:1, :-1], step[:1, :-1], rate, write[:1, :-1], read[:1, :-1])
    torch.testing.assert_close(last[:1], expected)
    assert not last[1].any()


def test_steps_go_on_from_a_state() -> None:
    x, step, rate, write, read = random_selective(6)
    y, last = selective_scan(x, step, rate, write, read)
    _, state = selective_scan(x[:, :5], step[:, :5], rate, write[:, :5], read[:, :5])
    stepped, state = selective_step(x[:, 5], step[:, 5], rate, write[:, 5], read[:, 5], state)
    torch.testing.assert_close((stepped, state), (y[:, 5], last))


def test_what_has_faded_away_neither_overflows_nor_comes_back() -> None:
    a = torch.tensor([0.0, 1e-30, 1.0], requires_grad=True)
    h = linear_recurrence(a, torch.ones(1, 200, 3))
    assert h[0, -1].tolist() == [1, 1, 200]
    h.sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    x, step, rate, write, read = (part.float() for part in random_selective(40))
    step = (1e4 * step).requires_grad_()
    y, _ = selective_scan(x, step, 100 * rate - 1, write, read)
    alone = step * x * (write * read).sum(-1, keepdim=True)
    torch.testing.assert_close(y, alone, rtol=1e-4, atol=1e-1)
    y.sum().backward()
    assert step.grad is not None
    assert torch.isfinite(step.grad).all()


def test_numbers_are_float32_whatever_autocast_says() -> None:
    inputs = [part.float() for part in random_selective(20)]
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = selective_scan(*inputs)
    torch.testing.assert_close(y, selective_scan(*inputs)[0], rtol=0, atol=0)
    half = [part if number in (1, 2) else part.bfloat16() for number, part in enumerate(inputs)]
    found, state = selective_scan(*half)
    assert (found.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(found.float(), selective_scan(*(part.float() for part in half))[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kernel", ["native", "recurrent"])
def test_no_rows(kernel: str) -> None:
    assert linear_recurrence(torch.rand(3), torch.rand(0, 5, 3), kernel=kernel).shape == (0, 5, 3)
    rest = torch.rand(0, 5, 3), -torch.rand(3, 2), torch.rand(0, 5, 2), torch.rand(0, 5, 2)
    y, state = selective_scan(torch.rand(0, 5, 3), *rest, kernel=kernel)
    assert (y.shape, state.shape) == ((0, 5, 3), (0, 3, 2))


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="recurrent"):
        selective_scan(*random_selective(2), kernel="recurent")
    with pytest.raises(ConfigError, match="has no kernel triton"):
        linear_recurrence(*random_linear(2, torch.float64), kernel="triton")
    with pytest.raises(ConfigError, match="16 or 32 bits"):
        selective_scan(*random_selective(2), kernel="triton")
