"""The references of the fused kernels against slow formulas in float64, and what the doors promise anywhere.

Shapes: B rows, L positions, D width, F hidden width, H heads, K head width, W convolution width.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.kernels.dropout import dropout
from seqrec.kernels.fused import (
    ACTIVATIONS,
    capped_gates,
    causal_conv_silu,
    gated_head_norm,
    gelu_dropout,
    split,
    swiglu,
    unit,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_swiglu_gates_its_second_half() -> None:
    x = normal(2, 3, 10)
    y = swiglu(x)
    assert y.shape == (2, 3, 5)
    for at in ((0, 0, 0), (1, 2, 4), (0, 1, 3)):
        gate, up = float(x[at]), float(x[(*at[:2], at[2] + 5)])
        assert float(y[at]) == pytest.approx(gate * sigmoid(gate) * up, abs=1e-14)


def test_gelu_is_exact_and_without_dropout_nothing_is_drawn() -> None:
    x = normal(40)
    before = torch.get_rng_state()
    y = gelu_dropout(x, 0.0)
    assert torch.equal(torch.get_rng_state(), before)
    for value, result in zip(x.tolist(), y.tolist(), strict=True):
        assert result == pytest.approx(value * 0.5 * (1 + math.erf(value / math.sqrt(2))), abs=1e-14)


def test_gelu_dropout_draws_what_dropout_draws() -> None:
    x = normal(5, 7).float()
    torch.manual_seed(3)
    expected = dropout(torch.nn.GELU()(x), 0.3)
    torch.manual_seed(3)
    assert torch.equal(gelu_dropout(x, 0.3), expected)
    assert not gelu_dropout(x, 1.0).any()


@pytest.mark.parametrize(("length", "width"), [(1, 4), (2, 4), (9, 4), (5, 1), (6, 7)])
def test_convolution_sees_a_position_and_those_before_it(length: int, width: int) -> None:
    x, kernel, bias = normal(2, length, 3), normal(3, 1, width, seed=1), normal(3, seed=2)
    y = causal_conv_silu(x, kernel, bias)
    for b in range(2):
        for t in range(length):
            for d in range(3):
                z = float(bias[d])
                for back in range(min(width, t + 1)):
                    z += float(kernel[d, 0, width - 1 - back] * x[b, t - back, d])
                assert float(y[b, t, d]) == pytest.approx(z * sigmoid(z), abs=1e-13)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, None])
@pytest.mark.parametrize("normed", [True, False])
def test_heads_are_normalised_one_by_one(activation: str | None, normed: bool) -> None:
    h, weight, gate = normal(2, 3, 2, 4), normal(8, seed=1), normal(2, 3, 8, seed=2)
    y = gated_head_norm(h, weight if normed else None, gate, activation)
    for b, t, head, k in ((0, 0, 0, 0), (1, 2, 1, 3), (0, 2, 1, 0)):
        value = float(h[b, t, head, k])
        if normed:
            squares = sum(float(part) ** 2 for part in h[b, t, head])
            value *= float(weight[head * 4 + k]) / math.sqrt(squares / 4 + 1e-6)
        opening = float(gate[b, t, head * 4 + k])
        factor = {"sigmoid": sigmoid(opening), "silu": opening * sigmoid(opening), None: 1.0}[activation]
        assert float(y[b, t, head * 4 + k]) == pytest.approx(value * factor, abs=1e-13)


def test_heads_of_one_event_have_no_positions() -> None:
    h, weight = normal(3, 2, 4), normal(8, seed=1)
    assert torch.equal(gated_head_norm(h, weight), gated_head_norm(h[:, None], weight)[:, 0])


@pytest.mark.parametrize("cap", [None, 2.0])
def test_gates_are_capped_and_turned(cap: float | None) -> None:
    gates = 3 * normal(2, 5, 6)
    i, f = capped_gates(gates, cap)
    assert i.shape == f.shape == (2, 3, 5)
    for b, head, t in ((0, 0, 0), (1, 2, 4), (1, 0, 3)):
        for found, given in ((i, gates[b, t, head]), (f, gates[b, t, 3 + head])):
            expected = float(given) if cap is None else cap * math.tanh(float(given) / cap)
            assert float(found[b, head, t]) == pytest.approx(expected, abs=1e-14)
    assert capped_gates(gates.bfloat16(), cap)[0].dtype == torch.float32


def test_gradients_are_those_of_the_values() -> None:
    def check(function: Any, *leaves: Tensor) -> None:
        assert torch.autograd.gradcheck(function, [leaf.requires_grad_() for leaf in leaves])

    check(swiglu, normal(3, 8))
    check(lambda x: gelu_dropout(x, 0.0), normal(3, 8))
    check(causal_conv_silu, normal(2, 5, 3), normal(3, 1, 4, seed=1), normal(3, seed=2))
    check(
        lambda h, weight, gate: gated_head_norm(h, weight, gate, "silu"),
        normal(2, 3, 2, 4), normal(8, seed=1), normal(2, 3, 8, seed=2),
    )  # fmt: skip
    check(lambda gates: capped_gates(gates, 3.0), normal(2, 5, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_are_of_the_type_of_what_came_in(dtype: torch.dtype) -> None:
    x = normal(2, 3, 8).to(dtype)
    assert swiglu(x).dtype == gelu_dropout(x, 0.5).dtype == dtype
    heads = x.unflatten(-1, (2, 4))
    assert gated_head_norm(heads, torch.ones(8), x, "sigmoid").dtype == gated_head_norm(heads).dtype == dtype


def test_a_convolution_is_of_the_type_of_autocast() -> None:
    kernel, bias = normal(8, 1, 3).float(), torch.zeros(8)
    with torch.autocast("cpu", torch.bfloat16):
        assert causal_conv_silu(normal(2, 3, 8).float(), kernel, bias).dtype == torch.bfloat16


def test_nothing_comes_of_nothing() -> None:
    assert swiglu(torch.empty(0, 4, 6)).shape == (0, 4, 3)
    assert gelu_dropout(torch.empty(0, 4), 0.5).shape == (0, 4)
    assert causal_conv_silu(torch.empty(0, 4, 2), torch.ones(2, 1, 3), torch.ones(2)).shape == (0, 4, 2)
    assert gated_head_norm(torch.empty(0, 4, 2, 3), torch.ones(6)).shape == (0, 4, 6)
    assert capped_gates(torch.empty(0, 4, 6), 15.0)[0].shape == (0, 3, 4)


def test_a_traced_model_runs_torch_operations() -> None:
    class Everything(torch.nn.Module):
        def forward(self, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
            i, f = capped_gates(x, 15.0)
            heads = causal_conv_silu(x, kernel, bias).unflatten(-1, (2, -1))
            return swiglu(gelu_dropout(gated_head_norm(heads, bias, x, "silu"), 0.0)).sum() + (i * F.silu(f)).sum()

    given = (normal(2, 5, 8), normal(8, 1, 4, seed=1), normal(8, seed=2))
    exported = torch.export.export(Everything(), given).module()
    torch.testing.assert_close(exported(*given), Everything()(*given))


@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, -1)])
def test_parts_are_those_of_a_plain_split_and_so_are_gradients(shape: tuple[int, ...]) -> None:
    plain, x = (normal(4, 5, 18).requires_grad_() for _ in range(2))
    parts = split(x, 3, *shape)
    expected = [part.unflatten(-1, shape) for part in plain.chunk(3, -1)]
    for found, part in zip(parts, expected, strict=True):
        assert torch.equal(found, part)
        assert found.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    directions = [normal(*part.shape, seed=n) for n, part in enumerate(parts)]
    turned = [d.transpose(0, 1).contiguous().transpose(0, 1) for d in directions]
    (found,) = torch.autograd.grad(parts, x, turned)
    (gradient,) = torch.autograd.grad(expected, plain, directions)
    assert torch.equal(found, gradient)


def test_a_part_that_nobody_uses_has_no_gradient() -> None:
    x = torch.randn(2, 3, 8).requires_grad_()
    first, _ = split(x, 2, -1)
    (gradient,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(gradient[..., :4], torch.ones(2, 3, 4))
    assert not gradient[..., 4:].any()


def test_rows_of_one_length() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(unit(x, 0.5), torch.tensor([[1.2, 1.6], [0.0, 0.0]], dtype=torch.float64))
