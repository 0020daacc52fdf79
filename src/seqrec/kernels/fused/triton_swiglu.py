"""SwiGLU on a GPU.

Shapes: T rows, F hidden width, R rows and C columns of a program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Entries of the result that one program writes.
TILE = 2048


@triton.jit(do_not_specialize=["T"])
def swiglu_forward(gate_up, y, T, F, C: tl.constexpr, R: tl.constexpr):
    """One program per R rows and C columns of the result."""
    at_RC, above_RC, inside_RC = _places(T, F, C, R)
    gate_RC = tl.load(gate_up + above_RC, mask=inside_RC, other=0.0).to(tl.float32)
    up_RC = tl.load(gate_up + above_RC + F, mask=inside_RC, other=0.0).to(tl.float32)
    y_RC = gate_RC * tl.sigmoid(gate_RC) * up_RC
    tl.store(y + at_RC, y_RC.to(y.dtype.element_ty), mask=inside_RC)


@triton.jit(do_not_specialize=["T"])
def swiglu_backward(gate_up, dy, dgate_up, T, F, C: tl.constexpr, R: tl.constexpr):
    at_RC, above_RC, inside_RC = _places(T, F, C, R)
    gate_RC = tl.load(gate_up + above_RC, mask=inside_RC, other=0.0).to(tl.float32)
    up_RC = tl.load(gate_up + above_RC + F, mask=inside_RC, other=0.0).to(tl.float32)
    dy_RC = tl.load(dy + at_RC, mask=inside_RC, other=0.0).to(tl.float32)
    open_RC = tl.sigmoid(gate_RC)
    silu_RC = gate_RC * open_RC
    dgate_RC = dy_RC * up_RC * (open_RC + silu_RC * (1.0 - open_RC))
    tl.store(dgate_up + above_RC, dgate_RC.to(dgate_up.dtype.element_ty), mask=inside_RC)
    tl.store(dgate_up + above_RC + F, (dy_RC * silu_RC).to(dgate_up.dtype.element_ty), mask=inside_RC)


@triton.jit
def _places(T, F, C: tl.constexpr, R: tl.constexpr):
    """Where the program's entries stand in the result, where their gates stand, and which of them there are."""
    row_R = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    column_C = tl.program_id(1) * C + tl.arange(0, C)
    inside_RC = (row_R[:, None] < T) & (column_C[None, :] < F)
    return row_R[:, None] * F + column_C[None, :], row_R[:, None] * (2 * F) + column_C[None, :], inside_RC


def swiglu(gate_up: Tensor) -> Tensor:
    """As `seqrec.kernels.fused.swiglu`."""
    return _apply(gate_up)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate_up = gate_up.contiguous()
        ctx.save_for_backward(gate_up)
        y = gate_up.new_empty(*gate_up.shape[:-1], gate_up.shape[-1] // 2)
        _run(swiglu_forward, y, gate_up, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        dgate_up = torch.empty_like(gate_up)
        _run(swiglu_backward, dy, gate_up, dy.contiguous(), dgate_up)
        return dgate_up


def _run(kernel: Any, y: Tensor, *tensors: Tensor) -> None:
    """`kernel` on `tensors`, for a result like `y`."""
    F = y.shape[-1]
    T, C = y.numel() // F, min(1024, triton.next_power_of_2(F))
    R = TILE // C
    kernel[(triton.cdiv(T, R), triton.cdiv(F, C))](*tensors, T, F, C=C, R=R, num_warps=4)


_apply: Callable[..., Any] = _Function.apply
