"""The kernels of `triton_kernels` as a differentiable function.

Shapes: B rows, L positions, D channels, N numbers that a channel remembers, G programs of a row.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqrec.kernels.scan import triton_kernels as kernels

#: Positions of a stretch, before each of which states are kept.
STRETCH = 8
#: Numbers of the state of a program, all in registers, and its warps. One warp sums over channels, which it does at
#: every event, without shared memory.
NUMBERS, WARPS = 512, 1


def selective_scan(x: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """As `seqrec.kernels.scan.selective_scan`, on a GPU, in 16 or 32 bits: y (B, L, D) and the last state (B, D, N)."""
    inputs = _lined_up(x), _lined_up(step), rate.float().contiguous(), _lined_up(write), _lined_up(read)
    if torch.is_grad_enabled() and any(part.requires_grad for part in inputs):
        y, state = _Selective.apply(*inputs)  # type: ignore[no-untyped-call]
        return y, state
    y, state, _ = _forward(*inputs, keep=False)
    return y, state


def _lined_up(x: Tensor) -> Tensor:
    """With neighbours of the last dimension side by side; rows and positions may lie anywhere."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _forward(
    x: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and if `keep` the states (B, K, D, N) before each stretch."""
    (B, L, D), N = x.shape, rate.shape[1]
    y, last = x.new_empty(B, L, D), rate.new_empty(B, D, N)
    between = rate.new_empty(B, triton.cdiv(L, STRETCH), D, N) if keep else rate
    plan = _plan(N)
    kernels.walk[(B, triton.cdiv(D, plan["C"]))](
        x, step, rate, write, read, y, between, last, L, D, N, *_strides(x, step, write, read), **plan, KEEP=keep
    )
    return y, last, between


class _Selective(torch.autograd.Function):
    """`_forward` with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        y, last, between = _forward(x, step, rate, write, read, keep=True)
        ctx.save_for_backward(x, step, rate, write, read, between)
        ctx.mark_non_differentiable(last)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        x, step, rate, write, read, between = ctx.saved_tensors
        (B, L, D), N, plan = x.shape, rate.shape[1], _plan(rate.shape[1])
        G = triton.cdiv(D, plan["C"])
        dx, dstep = x.new_empty(B, L, D), step.new_empty(B, L, D)
        drate, shares = rate.new_empty(B, D, N), rate.new_empty(2, G, B, L, N)
        scratch = rate.new_empty(B, G, STRETCH, plan["C"], plan["P"])
        kernels.walk_back[(B, G)](
            x, step, rate, write, read, between, dy.contiguous(), scratch, dx, dstep, drate, *shares,
            L, D, N, *_strides(x, step, write, read), **plan,
        )  # fmt: skip
        dwrite, dread = shares.sum(1)
        return dx, dstep, drate.sum(0), dwrite.to(write.dtype), dread.to(read.dtype)


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for part in tensors for stride in part.stride()[:2]]


def _plan(numbers: int) -> dict[str, int]:
    P = triton.next_power_of_2(numbers)
    return {"C": max(NUMBERS // P, 1), "P": P, "S": STRETCH, "num_warps": WARPS}
