"""Rows of one length on a GPU.

Shapes: T rows, D width, P width filled up to a power of two, R rows of a program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Numbers that a program holds.
TILE = 2048
#: Length below which a row has no direction, as in torch.nn.functional.normalize.
SHORTEST = tl.constexpr(1e-12)


@triton.jit(do_not_specialize=["T"])
def unit_forward(x, y, inverse, T, scale, D: tl.constexpr, P: tl.constexpr, R: tl.constexpr):
    """Writes y, and 1 / length of each row (T,)."""
    row_R, at_RP, inside_RP = _places(T, D, P, R)
    x_RP = tl.load(x + at_RP, mask=inside_RP, other=0.0).to(tl.float32)
    inverse_R = 1.0 / tl.maximum(tl.sqrt(tl.sum(x_RP * x_RP, 1)), SHORTEST)
    tl.store(inverse + row_R, inverse_R, mask=row_R < T)
    tl.store(y + at_RP, (x_RP * inverse_R[:, None] * scale).to(y.dtype.element_ty), mask=inside_RP)


@triton.jit(do_not_specialize=["T"])
def unit_backward(x, inverse, dy, dx, T, scale, D: tl.constexpr, P: tl.constexpr, R: tl.constexpr):
    row_R, at_RP, inside_RP = _places(T, D, P, R)
    inverse_R = tl.load(inverse + row_R, mask=row_R < T, other=0.0)
    unit_RP = tl.load(x + at_RP, mask=inside_RP, other=0.0).to(tl.float32) * inverse_R[:, None]
    dy_RP = tl.load(dy + at_RP, mask=inside_RP, other=0.0).to(tl.float32)
    along_R = tl.sum(unit_RP * dy_RP, 1)
    dx_RP = (dy_RP - unit_RP * along_R[:, None]) * (inverse_R * scale)[:, None]
    tl.store(dx + at_RP, dx_RP.to(dx.dtype.element_ty), mask=inside_RP)


@triton.jit
def _places(T, D: tl.constexpr, P: tl.constexpr, R: tl.constexpr):
    """Rows of the program, where their entries stand, and which of them there are."""
    row_R, column_P = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, P)
    inside_RP = (row_R < T)[:, None] & (column_P < D)[None, :]
    return row_R, row_R.to(tl.int64)[:, None] * D + column_P[None, :], inside_RP


def unit(x: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    """As `seqrec.kernels.fused.unit`, in `dtype`."""
    return _apply(x, temperature, dtype)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
        x = x.contiguous()
        y, inverse = torch.empty_like(x, dtype=dtype), torch.empty(x.shape[:-1], device=x.device)
        ctx.save_for_backward(x, inverse)
        ctx.scale = 1.0 / temperature
        _run(unit_forward, x, x, y, inverse, scale=ctx.scale)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        x, inverse = ctx.saved_tensors
        dx = torch.empty_like(x)
        _run(unit_backward, x, x, inverse, dy.contiguous(), dx, scale=ctx.scale)
        return dx, None, None


def _run(kernel: Any, like: Tensor, *tensors: Tensor, scale: float) -> None:
    D = like.shape[-1]
    T, P = like.numel() // D, max(16, triton.next_power_of_2(D))
    R = max(1, TILE // P)
    kernel[(triton.cdiv(T, R),)](*tensors, T, scale, D=D, P=P, R=R, num_warps=4)


_apply: Callable[..., Any] = _Function.apply
