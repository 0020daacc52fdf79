"""The Triton twins of the fused kernels against their references: on a GPU, or with TRITON_INTERPRET=1 on a CPU.

Shapes: B rows, L positions, D width, H heads, K head width, W convolution width.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from seqrec.kernels.fused import reference

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and TRITON_INTERPRET is not 1", allow_module_level=True)

from seqrec.kernels.fused import (  # noqa: E402
    triton_convolution,
    triton_gates,
    triton_gelu_dropout,
    triton_head_norm,
    triton_swiglu,
    triton_unit,
)
from seqrec.kernels.triton_sums import column_sums  # noqa: E402

DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
#: Largest error allowed of results and gradients, relative to the largest entry of their tensor, or 0.1.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
# exp overflows where a sigmoid is zero, which is what is meant.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

Outputs = Tensor | tuple[Tensor, Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everything(function: Callable[..., Outputs], leaves: list[Tensor | None]) -> list[Tensor]:
    """Outputs, and gradients of those leaves that are there under a random weight for each output."""
    given = [leaf if leaf is None else leaf.requires_grad_() for leaf in leaves]
    outputs = function(*given)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    directions = [normal(*y.shape, seed=7 + n).to(y.device, y.dtype) for n, y in enumerate(outputs)]
    gradients = torch.autograd.grad(outputs, [leaf for leaf in given if leaf is not None], directions)
    return [part.detach().double().cpu() for part in (*outputs, *gradients)]


def assert_alike(
    twin: Callable[..., Outputs], expected: Callable[..., Outputs], leaves: list[Tensor | None], tolerance: float
) -> None:
    """`twin` of `leaves` against `expected` of the same numbers in float64; strides are kept."""

    def copied(leaf: Tensor | None, dtype: torch.dtype | None, device: str) -> Tensor | None:
        return None if leaf is None else leaf.detach().to(device, dtype or leaf.dtype)

    found = everything(twin, [copied(leaf, None, DEVICE) for leaf in leaves])
    exact = everything(expected, [copied(leaf, torch.float64, "cpu") for leaf in leaves])
    for x, ref in zip(found, exact, strict=True):
        assert x.shape == ref.shape
        assert float((x - ref).abs().max()) <= tolerance * max(float(ref.abs().max()), 0.1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 14), (70, 64), (1, 2060)])
def test_swiglu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = 3 * normal(*shape)
    x[0, ..., 0] = -200.0
    assert_alike(triton_swiglu.swiglu, reference.swiglu, [x.to(dtype)], TOLERANCE[dtype])
    turned = normal(*reversed(shape)).to(dtype).permute(*reversed(range(len(shape))))
    assert_alike(triton_swiglu.swiglu, reference.swiglu, [turned], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3,), (5, 7, 11), (2, 3000)])
def test_gelu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    def without(form: Any) -> Callable[..., Tensor]:
        return lambda x: form.gelu_dropout(x, 0.0)

    x = 2 * normal(*shape)
    x.view(-1)[0] = -30.0
    assert_alike(without(triton_gelu_dropout), without(reference), [x.to(dtype)], TOLERANCE[dtype])


def masks(x: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
    """Where entries of the result, and of the gradient, are not zero; none of `x` is zero or where GELU is flat."""
    leaf = x.to(DEVICE).requires_grad_()
    y = triton_gelu_dropout.gelu_dropout(leaf, dropout)
    (gradient,) = torch.autograd.grad(y.sum(), leaf)
    kept = y != 0
    factor = 1 / (1 - dropout) if dropout < 1 else 0.0
    inputs = x.detach().double().requires_grad_()
    exact = reference.gelu_dropout(inputs, 0.0)
    (slope,) = torch.autograd.grad(exact.sum(), inputs)
    expected = exact.detach() * kept.cpu() * factor
    torch.testing.assert_close(y.detach().double().cpu(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double().cpu(), slope * kept.cpu() * factor, rtol=1e-5, atol=1e-6)
    return kept.cpu(), (gradient != 0).cpu()


@pytest.mark.parametrize("dropout", [0.2, 0.9])
def test_dropout_keeps_its_share_and_tells_the_gradient(dropout: float) -> None:
    x = 1 + normal(3, 5003).abs().float()
    torch.manual_seed(0)
    forward, backward = masks(x, dropout)
    assert torch.equal(forward, backward)
    share, spread = float(forward.double().mean()), (dropout * (1 - dropout) / x.numel()) ** 0.5
    assert abs(share - (1 - dropout)) < 5 * spread
    flat = forward.flatten().double()
    for lag in (1, 1024, 4096):  # neighbours, quarters and programs have nothing to do with each other
        together = float((flat[lag:] * flat[:-lag]).mean())
        assert abs(together - (1 - dropout) ** 2) < 5 * 2 * spread


def test_every_call_draws_a_mask_and_a_seed_repeats_it() -> None:
    x = 1 + normal(4, 1100).abs().float()
    torch.manual_seed(0)
    first, second = masks(x, 0.5)[0], masks(x, 0.5)[0]
    assert 0.4 < float((first == second).double().mean()) < 0.6
    torch.manual_seed(0)
    assert torch.equal(masks(x, 0.5)[0], first)
    assert not masks(x, 1.0)[0].any()


@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
def test_a_recorded_call_draws_anew_when_it_is_replayed() -> None:
    x = 1 + normal(4, 1100).abs().float().to(DEVICE)
    triton_gelu_dropout.gelu_dropout(x, 0.5)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = triton_gelu_dropout.gelu_dropout(x, 0.5)
    graph.replay()
    first = y.clone()
    graph.replay()
    assert 0.4 < float(((first == 0) == (y == 0)).double().mean()) < 0.6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "width"), [((2, 1, 5), 4), ((2, 3, 5), 4), ((3, 70, 5), 4), ((1, 33, 80), 2), ((2, 40, 6), 8)]
)
def test_convolution(shape: tuple[int, int, int], width: int, dtype: torch.dtype) -> None:
    taps = normal(shape[2], 1, width, seed=1).to(dtype), normal(shape[2], seed=2).to(dtype)
    alike = triton_convolution.causal_conv_silu, reference.causal_conv_silu
    assert_alike(*alike, [normal(*shape).to(dtype), *taps], TOLERANCE[dtype])


def test_convolution_of_half_a_tensor_and_of_turned_ones() -> None:
    taps = normal(6, 1, 4, seed=1).float(), normal(6, seed=2).float()
    for x in (normal(2, 9, 12)[..., 6:], normal(2, 6, 9).mT, normal(9, 2, 6).transpose(0, 1)):
        alike = triton_convolution.causal_conv_silu, reference.causal_conv_silu
        assert_alike(*alike, [x.float(), *taps], TOLERANCE[torch.float32])


def test_convolution_under_autocast_reads_what_is_there_and_writes_its_type() -> None:
    x, kernel, bias = normal(2, 9, 6).float(), normal(6, 1, 4, seed=1).float(), normal(6, seed=2).float()
    leaves = [part.to(DEVICE).requires_grad_() for part in (x, kernel, bias)]
    with torch.autocast(DEVICE, torch.bfloat16):
        y = triton_convolution.causal_conv_silu(*leaves)
    assert y.dtype == torch.bfloat16
    gradients = torch.autograd.grad(y.float().sum(), leaves)
    assert [part.dtype for part in gradients] == [torch.float32] * 3
    exact = reference.causal_conv_silu(x.double(), kernel.double(), bias.double())
    torch.testing.assert_close(y.double().cpu(), exact, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 2, 16), (1, 1, 1, 8), (3, 23, 3, 20)])
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("activation", ["sigmoid", "silu", None])
def test_head_norm(
    shape: tuple[int, int, int, int], normed: bool, activation: str | None, dtype: torch.dtype
) -> None:  # fmt: skip
    B, L, H, K = shape
    weight, gate = normal(H * K, seed=1).float(), normal(B, L, H * K, seed=2).to(dtype)
    given = weight if normed else None, gate if activation else None

    def of(form: Any) -> Callable[..., Tensor]:
        return lambda h, weight, gate: form.gated_head_norm(h, weight, gate, activation)

    assert_alike(of(triton_head_norm), of(reference), [normal(*shape).to(dtype), *given], TOLERANCE[dtype])


def test_head_norm_of_views_as_models_have_them() -> None:
    B, L, H, K = 2, 5, 2, 8
    weight, gate = normal(H * K, seed=1).float(), normal(B, L, 2 * H * K, seed=2).float()[..., H * K :]

    def of(form: Any) -> Callable[..., Tensor]:
        return lambda h, weight, gate: form.gated_head_norm(h, weight, gate, "sigmoid")

    for h in (normal(B, H, L, K).transpose(1, 2), normal(B, L, H, 2 * K)[..., K:], normal(B, L, K, H).mT):
        assert_alike(of(triton_head_norm), of(reference), [h.float(), weight, gate], TOLERANCE[torch.float32])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cap", [15.0, 2.0, None])
@pytest.mark.parametrize("shape", [(2, 70, 4), (3, 1, 2), (1, 5, 6)])
def test_gates(shape: tuple[int, int, int], cap: float | None, dtype: torch.dtype) -> None:
    def of(form: Any) -> Callable[..., tuple[Tensor, Tensor]]:
        return lambda gates: form.capped_gates(gates, cap)

    gates = (10 * normal(*shape)).to(dtype)
    i, f = triton_gates.capped_gates(gates.to(DEVICE), cap)
    assert i.dtype == f.dtype == torch.float32
    assert_alike(of(triton_gates), of(reference), [gates], TOLERANCE[dtype])
    assert_alike(of(triton_gates), of(reference), [normal(shape[0], shape[2], shape[1]).to(dtype).mT], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 16), (3, 7, 48), (70, 100), (2, 1024)])
def test_unit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = normal(*shape).to(dtype)
    assert_alike(lambda x: triton_unit.unit(x, 0.07, dtype), lambda x: reference.unit(x, 0.07), [x], TOLERANCE[dtype])


def test_a_row_of_zeros_has_no_direction() -> None:
    x = torch.zeros(2, 16, device=DEVICE, requires_grad=True)
    y = triton_unit.unit(x, 0.07, torch.float32)
    assert not y.any()
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (63, 33), (64, 32), (528, 256), (200, 1280), (3000, 70)])
def test_sums_of_columns(rows: int, columns: int) -> None:
    parts = normal(rows, columns).float()
    found = column_sums(parts.to(DEVICE)).cpu()
    torch.testing.assert_close(found, parts.double().sum(0).float(), rtol=1e-5, atol=1e-5)
