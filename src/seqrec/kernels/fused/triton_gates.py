"""The gates of the mLSTM on a GPU: in float32, capped, and positions last, as the cell reads them.

Shapes: B rows, L positions, H heads, S positions of a program, C >= H a power of two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

POSITIONS = 64


@triton.jit(do_not_specialize=["L"])
def capped_gates_forward(
    gates, i, f, gb, gl, L, H, cap, S: tl.constexpr, C: tl.constexpr, CAPPED: tl.constexpr
):  # fmt: skip
    """One program per S positions of a row."""
    from_SC, to_SC, inside_SC = _places(gb, gl, L, H, S, C)
    i_SC = tl.load(gates + from_SC, mask=inside_SC, other=0.0).to(tl.float32)
    f_SC = tl.load(gates + from_SC + H, mask=inside_SC, other=0.0).to(tl.float32)
    if CAPPED:
        i_SC, f_SC = _capped(i_SC, cap), _capped(f_SC, cap)
    tl.store(i + to_SC, i_SC, mask=inside_SC)
    tl.store(f + to_SC, f_SC, mask=inside_SC)


@triton.jit(do_not_specialize=["L"])
def capped_gates_backward(
    i, f, di, df, dgates, gb, gl, L, H, cap, S: tl.constexpr, C: tl.constexpr, CAPPED: tl.constexpr
):  # fmt: skip
    """d tanh(x) is 1 - tanh(x)^2, so what came out says enough."""
    to_SC, from_SC, inside_SC = _places(gb, gl, L, H, S, C)
    di_SC = tl.load(di + from_SC, mask=inside_SC, other=0.0)
    df_SC = tl.load(df + from_SC, mask=inside_SC, other=0.0)
    if CAPPED:
        i_SC = tl.load(i + from_SC, mask=inside_SC, other=0.0) / cap
        f_SC = tl.load(f + from_SC, mask=inside_SC, other=0.0) / cap
        di_SC, df_SC = di_SC * (1.0 - i_SC * i_SC), df_SC * (1.0 - f_SC * f_SC)
    tl.store(dgates + to_SC, di_SC.to(dgates.dtype.element_ty), mask=inside_SC)
    tl.store(dgates + to_SC + H, df_SC.to(dgates.dtype.element_ty), mask=inside_SC)


@triton.jit
def _places(gb, gl, L, H, S: tl.constexpr, C: tl.constexpr):
    """Where the program's input gates stand in (B, L, 2 H), where in (B, H, L), and which there are."""
    b, head_C = tl.program_id(0).to(tl.int64), tl.arange(0, C)
    t_S = tl.program_id(1) * S + tl.arange(0, S)
    side_SC = b * gb + t_S[:, None] * gl + head_C[None, :]
    return side_SC, (b * H + head_C[None, :]) * L + t_S[:, None], (t_S[:, None] < L) & (head_C[None, :] < H)


@triton.jit
def _capped(x_SC, cap):
    """cap * tanh(x / cap)."""
    return cap * (2.0 * tl.sigmoid(2.0 * x_SC / cap) - 1.0)


def capped_gates(gates: Tensor, cap: float | None) -> tuple[Tensor, Tensor]:
    """As `seqrec.kernels.fused.capped_gates`."""
    return _apply(gates, cap)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, cap: float | None) -> tuple[Tensor, Tensor]:
        gates = gates if gates.stride(-1) == 1 else gates.contiguous()
        B, L, H = gates.shape[0], gates.shape[1], gates.shape[2] // 2
        i, f = (torch.empty(B, H, L, device=gates.device) for _ in range(2))
        _run(capped_gates_forward, gates, gates, i, f, cap=cap)
        ctx.save_for_backward(i, f)
        ctx.cap, ctx.dtype = cap, gates.dtype
        return i, f

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, di: Tensor, df: Tensor) -> tuple[Tensor, None]:
        i, f = ctx.saved_tensors
        B, H, L = i.shape
        dgates = torch.empty(B, L, 2 * H, device=i.device, dtype=ctx.dtype)
        _run(capped_gates_backward, dgates, i, f, di.contiguous(), df.contiguous(), dgates, cap=ctx.cap)
        return dgates, None


def _run(kernel: Any, gates: Tensor, *tensors: Tensor, cap: float | None) -> None:
    """`kernel` on `tensors`, where `gates` are the ones side by side."""
    B, L, H = gates.shape[0], gates.shape[1], gates.shape[2] // 2
    kernel[(B, triton.cdiv(L, POSITIONS))](
        *tensors, *gates.stride()[:2], L, H, float(cap or 1.0), S=POSITIONS, C=triton.next_power_of_2(H),
        CAPPED=cap is not None, num_warps=1,
    )  # fmt: skip


_apply: Callable[..., Any] = _Function.apply
