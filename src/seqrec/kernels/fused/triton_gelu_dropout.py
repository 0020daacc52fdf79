"""GELU and dropout on a GPU. The mask is no tensor: both passes draw it anew from its seed.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox, here as Triton has it).

Shapes: N entries, S entries in a quarter of a program's share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Entries per quarter of a program's share: 8 of 16 bits, what one load can bring, for each of 128 threads.
QUARTER = 1024
HALF_ROOT = tl.constexpr(0.7071067811865476)  # 1 / sqrt(2)
ROUNDS = tl.constexpr(7)  # of Philox: as few as its authors found to pass every test of randomness
PEAK = tl.constexpr(0.3989422804014327)  # 1 / sqrt(2 pi), the density of a standard normal at 0


@triton.jit(do_not_specialize=["threshold"])
def gelu_dropout_forward(x, y, seed, N, threshold, scale, S: tl.constexpr, DROPS: tl.constexpr):
    """One program per 4 S entries, for Philox gives four numbers at a time."""
    start = tl.program_id(0).to(tl.int64) * (4 * S)
    factors = _factors(seed, threshold, scale, S, DROPS)
    for quarter in tl.static_range(4):
        at_S = start + quarter * S + tl.arange(0, S)
        x_S = tl.load(x + at_S, mask=at_S < N, other=0.0).to(tl.float32)
        y_S = x_S * _below(x_S) * factors[quarter]
        tl.store(y + at_S, y_S.to(y.dtype.element_ty), mask=at_S < N)


@triton.jit(do_not_specialize=["threshold"])
def gelu_dropout_backward(x, dy, dx, seed, N, threshold, scale, S: tl.constexpr, DROPS: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * (4 * S)
    factors = _factors(seed, threshold, scale, S, DROPS)
    for quarter in tl.static_range(4):
        at_S = start + quarter * S + tl.arange(0, S)
        x_S = tl.load(x + at_S, mask=at_S < N, other=0.0).to(tl.float32)
        dy_S = tl.load(dy + at_S, mask=at_S < N, other=0.0).to(tl.float32)
        slope_S = _below(x_S) + x_S * PEAK * tl.exp(-0.5 * x_S * x_S)
        tl.store(dx + at_S, (dy_S * slope_S * factors[quarter]).to(dx.dtype.element_ty), mask=at_S < N)


@triton.jit
def _below(x_S):
    """The probability that a standard normal number is below x."""
    return 0.5 + 0.5 * tl.erf(x_S * HALF_ROOT)


@triton.jit
def _factors(seed, threshold, scale, S: tl.constexpr, DROPS: tl.constexpr):
    """What dropout multiplies the four quarters with: 0 or `scale`."""
    if DROPS:
        counter_S = tl.program_id(0) * S + tl.arange(0, S)
        a_S, b_S, c_S, d_S = tl.randint4x(tl.load(seed), counter_S, ROUNDS)
        return (
            tl.where((a_S >> 8).to(tl.int32) < threshold, 0.0, scale),
            tl.where((b_S >> 8).to(tl.int32) < threshold, 0.0, scale),
            tl.where((c_S >> 8).to(tl.int32) < threshold, 0.0, scale),
            tl.where((d_S >> 8).to(tl.int32) < threshold, 0.0, scale),
        )
    else:  # noqa: RET505 - Triton looks into one branch only
        return 1.0, 1.0, 1.0, 1.0


def gelu_dropout(x: Tensor, dropout: float) -> Tensor:
    """As `seqrec.kernels.fused.gelu_dropout`."""
    seed = torch.empty((), device=x.device, dtype=torch.int64).random_() if dropout else None
    return _apply(x, seed, dropout)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: Tensor | None, dropout: float) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, seed)
        ctx.dropout = dropout
        y = torch.empty_like(x)
        _run(gelu_dropout_forward, x, y, seed=seed, dropout=dropout)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        x, seed = ctx.saved_tensors
        dx = torch.empty_like(x)
        _run(gelu_dropout_backward, x, dy.contiguous(), dx, seed=seed, dropout=ctx.dropout)
        return dx, None, None


def _run(kernel: Any, x: Tensor, *tensors: Tensor, seed: Tensor | None, dropout: float) -> None:
    """`threshold` is what 24 random bits have to reach for an entry to stay, which is then multiplied with `scale`."""
    threshold, scale = round(dropout * 2**24), 1 / (1 - dropout) if dropout < 1 else 0.0
    kernel[(triton.cdiv(x.numel(), 4 * QUARTER),)](
        x, *tensors, seed, x.numel(), threshold, scale, S=QUARTER, DROPS=seed is not None, num_warps=4
    )  # fmt: skip


_apply: Callable[..., Any] = _Function.apply
