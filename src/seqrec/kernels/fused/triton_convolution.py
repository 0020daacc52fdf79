"""A causal convolution of each channel by itself, and SiLU, on a GPU.

A program walks along S positions of a row with its inputs in registers, so that each is loaded once and serves W
positions; G such walks stand side by side. What stands before SiLU is not kept: the backward pass computes it again,
and walks on over the W-1 positions behind, whose gradients are those of its own inputs too.

Shapes: B rows, L positions, D width, W convolution width, S positions of a walk, G walks and C channels of a program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqrec.kernels.gpu import product_dtype
from seqrec.kernels.triton_sums import column_sums

#: Positions of a walk, walks and, at most, channels of a program.
STEPS, WALKS, CHANNELS = 16, 2, 128


@triton.jit(do_not_specialize=["L", "blocks"])
def causal_conv_silu_forward(
    x, kernel, bias, y, xb, xl, L, D, blocks, W: tl.constexpr, S: tl.constexpr, G: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """One program per G S positions of a row and C channels."""
    b, t_G, d_C = _places(blocks, S, G, C)
    taps, bias_C = _weights(kernel, bias, d_C, D, W)
    inputs = _rows(x + b * xb, xl, t_G - (W - 1), d_C, L, D, S + W - 1)
    y += b * L * D
    for step in tl.static_range(S):
        z_GC = _convolved(inputs, step, taps, bias_C, W)
        _store_row(y, t_G + step, d_C, L, D, z_GC * tl.sigmoid(z_GC))


@triton.jit(do_not_specialize=["L", "blocks"])
def causal_conv_silu_backward(
    x, kernel, bias, dy, dx, parts, xb, xl, L, D, blocks,
    W: tl.constexpr, S: tl.constexpr, G: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Writes dx, and to `parts` (B blocks, D W + D) what its positions add to the gradients of kernel and bias."""
    b, t_G, d_C = _places(blocks, S, G, C)
    taps, bias_C = _weights(kernel, bias, d_C, D, W)
    inputs = _rows(x + b * xb, xl, t_G - (W - 1), d_C, L, D, S + 2 * (W - 1))
    above = _rows(dy + b * L * D, D, t_G, d_C, L, D, S + W - 1)
    gradients = (above[0] * _slope(_convolved(inputs, 0, taps, bias_C, W)),)
    for step in tl.static_range(1, S + W - 1):
        gradients += (above[step] * _slope(_convolved(inputs, step, taps, bias_C, W)),)  # type: ignore[assignment]
    dx += b * L * D
    for step in tl.static_range(S):
        dx_GC = gradients[step] * taps[W - 1]
        for ahead in tl.static_range(1, W):
            dx_GC += gradients[step + ahead] * taps[W - 1 - ahead]
        _store_row(dx, t_G + step, d_C, L, D, dx_GC)

    parts += tl.program_id(0).to(tl.int64) * (D * W + D)
    for tap in tl.static_range(W):
        part_GC = gradients[0] * inputs[tap]
        for step in tl.static_range(1, S):
            part_GC += gradients[step] * inputs[step + tap]
        tl.store(parts + d_C * W + tap, tl.sum(part_GC, 0), mask=d_C < D)
    part_GC = gradients[0]
    for step in tl.static_range(1, S):
        part_GC += gradients[step]
    tl.store(parts + D * W + d_C, tl.sum(part_GC, 0), mask=d_C < D)


@triton.jit
def _places(blocks, S: tl.constexpr, G: tl.constexpr, C: tl.constexpr):
    """The program's row, the first position of each walk, and channels."""
    t_G = (tl.program_id(0) % blocks * G + tl.arange(0, G)) * S
    return (tl.program_id(0) // blocks).to(tl.int64), t_G, tl.program_id(1) * C + tl.arange(0, C)


@triton.jit
def _weights(kernel, bias, d_C, D, W: tl.constexpr):
    """The taps, W times (1, C), and the bias (1, C)."""
    taps = (tl.load(kernel + d_C * W, mask=d_C < D, other=0.0).to(tl.float32)[None, :],)
    for tap in tl.static_range(1, W):
        taps += (tl.load(kernel + d_C * W + tap, mask=d_C < D, other=0.0).to(tl.float32)[None, :],)  # type: ignore[assignment]
    return taps, tl.load(bias + d_C, mask=d_C < D, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _rows(x, stride, t_G, d_C, L, D, count: tl.constexpr):
    """x (G, C) at `t_G`, at the next position, and so on, `count` times; zero outside of the row."""
    rows = (_row(x, stride, t_G, d_C, L, D),)
    for step in tl.static_range(1, count):
        rows += (_row(x, stride, t_G + step, d_C, L, D),)  # type: ignore[assignment]
    return rows


@triton.jit
def _row(x, stride, t_G, d_C, L, D):
    inside_GC = (t_G >= 0)[:, None] & (t_G < L)[:, None] & (d_C < D)[None, :]
    return tl.load(x + t_G[:, None] * stride + d_C[None, :], mask=inside_GC, other=0.0).to(tl.float32)


@triton.jit
def _store_row(x, t_G, d_C, L, D, value_GC):
    inside_GC = (t_G < L)[:, None] & (d_C < D)[None, :]
    tl.store(x + t_G[:, None] * D + d_C[None, :], value_GC.to(x.dtype.element_ty), mask=inside_GC)


@triton.jit
def _convolved(inputs, step: tl.constexpr, taps, bias_C, W: tl.constexpr):
    """What stands before SiLU (G, C), from W inputs in turn."""
    z_GC = bias_C
    for tap in tl.static_range(W):
        z_GC = z_GC + inputs[step + tap] * taps[tap]
    return z_GC


@triton.jit
def _slope(z_GC):
    """Of SiLU."""
    open_GC = tl.sigmoid(z_GC)
    return open_GC + z_GC * open_GC * (1.0 - open_GC)


def causal_conv_silu(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """As `seqrec.kernels.fused.causal_conv_silu`."""
    return _apply(x, kernel, bias, product_dtype(x))


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
        x, kernel, bias = x if x.stride(-1) == 1 else x.contiguous(), kernel.contiguous(), bias.contiguous()
        ctx.save_for_backward(x, kernel, bias)
        y = torch.empty(x.shape, device=x.device, dtype=dtype)
        _run(causal_conv_silu_forward, x, kernel, bias, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, kernel, bias = ctx.saved_tensors
        dx = torch.empty(x.shape, device=x.device, dtype=x.dtype)
        parts = x.new_empty(len(x) * _blocks(x), kernel.numel() + bias.numel(), dtype=torch.float32)
        _run(causal_conv_silu_backward, x, kernel, bias, dy.contiguous(), dx, parts)
        dkernel, dbias = column_sums(parts).split((kernel.numel(), bias.numel()))
        return dx, dkernel.view(kernel.shape).to(kernel.dtype), dbias.to(bias.dtype), None


def _run(program: Any, x: Tensor, kernel: Tensor, *tensors: Tensor) -> None:
    B, L, D = x.shape
    C = min(CHANNELS, triton.next_power_of_2(D))
    program[(B * _blocks(x), triton.cdiv(D, C))](
        x, kernel, *tensors, *x.stride()[:2], L, D, _blocks(x),
        W=kernel.shape[-1], S=STEPS, G=WALKS, C=C, num_warps=4,
    )  # fmt: skip


def _blocks(x: Tensor) -> int:
    """Programs along the positions of a row."""
    return triton.cdiv(x.shape[1], STEPS * WALKS)


_apply: Callable[..., Any] = _Function.apply
