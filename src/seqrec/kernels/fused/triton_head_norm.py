"""The norm of each head and the output gate, on a GPU.

Zhang and Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019.

Shapes: B rows, L positions, T = B L tokens, H heads, K head width, C >= K a power of two, R tokens of a program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqrec.kernels.fused.reference import EPSILON
from seqrec.kernels.triton_sums import column_sums

#: Entries of the result that one program writes.
TILE = 2048


@triton.jit(do_not_specialize=["T", "L"])
def gated_head_norm_forward(
    h, weight, gate, y, hb, hl, hh, gb, gl, T, L, K, epsilon,
    C: tl.constexpr, R: tl.constexpr, NORM: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """One program per R tokens of one head; ACTIVATION "" stands for no gate."""
    head, at_RC, from_h_RC, from_gate_RC, inside_RC, k_C = _places(hb, hl, hh, gb, gl, T, L, K, C, R)
    y_RC = tl.load(h + from_h_RC, mask=inside_RC, other=0.0).to(tl.float32)
    if NORM:
        y_RC *= _inverse_size(y_RC, K, epsilon)[:, None]
        y_RC *= tl.load(weight + head * K + k_C, mask=k_C < K, other=0.0).to(tl.float32)[None, :]
    if ACTIVATION != "":
        gate_RC = tl.load(gate + from_gate_RC, mask=inside_RC, other=0.0).to(tl.float32)
        y_RC *= _activated(gate_RC, ACTIVATION)[0]
    tl.store(y + at_RC, y_RC.to(y.dtype.element_ty), mask=inside_RC)


@triton.jit(do_not_specialize=["T", "L"])
def gated_head_norm_backward(
    h, weight, gate, dy, dh, dgate, parts, hb, hl, hh, gb, gl, T, L, K, epsilon,
    C: tl.constexpr, R: tl.constexpr, NORM: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """Writes dh and dgate, laid out as dy is, and to `parts` (blocks, H K) what R tokens add to the weights'."""
    head, at_RC, from_h_RC, from_gate_RC, inside_RC, k_C = _places(hb, hl, hh, gb, gl, T, L, K, C, R)
    dy_RC = tl.load(dy + at_RC, mask=inside_RC, other=0.0).to(tl.float32)
    y_RC = tl.load(h + from_h_RC, mask=inside_RC, other=0.0).to(tl.float32)
    if NORM:
        weight_C = tl.load(weight + head * K + k_C, mask=k_C < K, other=0.0).to(tl.float32)
        inverse_R = _inverse_size(y_RC, K, epsilon)
        normed_RC = y_RC * inverse_R[:, None]
        y_RC = normed_RC * weight_C[None, :]
    if ACTIVATION != "":
        gate_RC = tl.load(gate + from_gate_RC, mask=inside_RC, other=0.0).to(tl.float32)
        open_RC, slope_RC = _activated(gate_RC, ACTIVATION)
        tl.store(dgate + at_RC, (dy_RC * y_RC * slope_RC).to(dgate.dtype.element_ty), mask=inside_RC)
        dy_RC *= open_RC
    if NORM:
        blocks_width = tl.num_programs(1) * K
        part_C = tl.sum(dy_RC * normed_RC, 0)
        tl.store(parts + tl.program_id(0).to(tl.int64) * blocks_width + head * K + k_C, part_C, mask=k_C < K)
        dy_RC *= weight_C[None, :]
        along_R = tl.sum(dy_RC * normed_RC, 1) / K
        dy_RC = (dy_RC - normed_RC * along_R[:, None]) * inverse_R[:, None]
    tl.store(dh + at_RC, dy_RC.to(dh.dtype.element_ty), mask=inside_RC)


@triton.jit
def _places(hb, hl, hh, gb, gl, T, L, K, C: tl.constexpr, R: tl.constexpr):
    """The program's head, where its entries stand in the result, in h and in gate, which there are, and columns."""
    head = tl.program_id(1)
    token_R = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    b_R, t_R = token_R // L, token_R % L
    k_C = tl.arange(0, C)
    at_RC = (token_R * tl.num_programs(1) * K + head * K)[:, None] + k_C[None, :]
    from_h_RC = (b_R * hb + t_R * hl + head * hh)[:, None] + k_C[None, :]
    from_gate_RC = (b_R * gb + t_R * gl + head * K)[:, None] + k_C[None, :]
    return head, at_RC, from_h_RC, from_gate_RC, (token_R[:, None] < T) & (k_C[None, :] < K), k_C


@triton.jit
def _inverse_size(h_RC, K, epsilon):
    return tl.rsqrt(tl.sum(h_RC * h_RC, 1) / K + epsilon)


@triton.jit
def _activated(gate_RC, ACTIVATION: tl.constexpr):
    """The activation of the gate, and its slope."""
    open_RC = tl.sigmoid(gate_RC)
    if ACTIVATION == "sigmoid":
        return open_RC, open_RC * (1.0 - open_RC)
    else:  # noqa: RET505 - Triton looks into one branch only
        return gate_RC * open_RC, open_RC + gate_RC * open_RC * (1.0 - open_RC)


def gated_head_norm(h: Tensor, weight: Tensor | None, gate: Tensor | None, activation: str | None) -> Tensor:
    """As `seqrec.kernels.fused.gated_head_norm`, of h (B, L, H, K)."""
    return _apply(h, weight, gate, activation or "")


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor | None, gate: Tensor | None, activation: str) -> Tensor:
        h, gate = _dense(h), None if gate is None else _dense(gate)
        ctx.save_for_backward(h, weight, gate)
        ctx.activation = activation
        y = torch.empty(*h.shape[:2], h.shape[2] * h.shape[3], device=h.device, dtype=h.dtype)
        _run(gated_head_norm_forward, h, weight, gate, y, activation=activation)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, gate = ctx.saved_tensors
        dh = torch.empty(h.shape, device=h.device, dtype=h.dtype)
        dgate = None if gate is None else torch.empty(gate.shape, device=h.device, dtype=gate.dtype)
        parts = None if weight is None else weight.new_empty(_blocks(h), len(weight), dtype=torch.float32)
        _run(gated_head_norm_backward, h, weight, gate, dy.contiguous(), dh, dgate, parts, activation=ctx.activation)
        dweight = None if parts is None else column_sums(parts).to(weight.dtype)
        return dh, dweight, dgate, None


def _run(
    kernel: Any, h: Tensor, weight: Tensor | None, gate: Tensor | None, *tensors: Tensor | None, activation: str
) -> None:
    B, L, H, K = h.shape
    kernel[(_blocks(h), H)](
        h, weight, gate, *tensors, *h.stride()[:3], *(h if gate is None else gate).stride()[:2], B * L, L, K, EPSILON,
        C=triton.next_power_of_2(K), R=_rows(K), NORM=weight is not None, ACTIVATION=activation, num_warps=4,
    )  # fmt: skip


def _rows(K: int) -> int:
    """Tokens of a program."""
    return max(1, TILE // triton.next_power_of_2(K))


def _blocks(h: Tensor) -> int:
    """Programs per head."""
    return triton.cdiv(h.shape[0] * h.shape[1], _rows(h.shape[-1]))


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


_apply: Callable[..., Any] = _Function.apply
