"""The residual norm on a GPU: which Triton kernels run on what, and their place in autograd.

Shapes: T rows, D width, G programs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqrec.kernels.residual_norm import triton_kernels
from seqrec.kernels.triton_sums import column_sums

#: Numbers that a program holds of each tensor at a time, and its warps.
FORWARD, BACKWARD = (2048, 4), (2048, 4)
#: Programs of a backward pass at most: about four for each multiprocessor of an H100. A constant, so that sums over
#: rows do not depend on the GPU at hand.
PROGRAMS = 528


def residual_norm(
    x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float, dropout: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As `seqrec.kernels.residual_norm.residual_norm`; D up to 1024, no float64, at least one row."""
    return _apply(x, branch, weight, bias, eps, dropout, dtype)


class _Function(torch.autograd.Function):
    """The stream, which is x where there is no branch, and its norm."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float, dropout: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        seed = None
        if branch is not None and dropout > 0:
            seed = torch.randint(2**62, (1,), device=x.device)  # stays there: the host never waits for it
        stream, normed, mean, scale = _forward(x, branch, weight, bias, seed, eps, dropout, dtype)
        ctx.save_for_backward(stream, weight, bias, seed, mean, scale)
        ctx.set_materialize_grads(False)
        ctx.branch_dtype = None if branch is None else branch.dtype
        ctx.dropout = dropout
        return stream, normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dstream: Tensor | None, dnormed: Tensor | None) -> tuple[Tensor | None, ...]:
        stream, weight, bias, seed, mean, scale = ctx.saved_tensors
        saved = stream, weight, bias, seed, mean, scale
        gradients = _backward(*saved, dstream, dnormed, ctx.branch_dtype, ctx.dropout)
        return *gradients, None, None, None


def _forward(
    x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor | None, seed: Tensor | None, eps: float,
    dropout: float, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:  # fmt: skip
    """Stream and norm, and for the backward pass the mean of each row where there is a bias, and 1 / deviation."""
    D, T = x.shape[-1], x.numel() // x.shape[-1]
    dense = x.contiguous()
    weight, bias = weight.contiguous(), None if bias is None else bias.contiguous()
    stream = x if branch is None else torch.empty_like(dense)
    normed = torch.empty_like(dense, dtype=dtype)
    mean = None if bias is None else torch.empty(T, device=x.device)
    scale = torch.empty(T, device=x.device)
    P, R = _block(D, FORWARD[0])
    triton_kernels.residual_norm_forward[(triton.cdiv(T, R),)](
        dense, None if branch is None else branch.contiguous(), weight, bias, seed, stream, normed, mean, scale,
        T, eps, *_draws(dropout), D=D, P=P, R=R,
        HAS_BRANCH=branch is not None, DROPS=seed is not None, CENTRED=bias is not None, num_warps=FORWARD[1],
    )  # fmt: skip
    return stream, normed, mean, scale


def _backward(
    stream: Tensor, weight: Tensor, bias: Tensor | None, seed: Tensor | None, mean: Tensor | None, scale: Tensor,
    dstream: Tensor | None, dnormed: Tensor | None, branch_dtype: torch.dtype | None, dropout: float,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:  # fmt: skip
    """Gradients of x, branch, weight and bias."""
    D, T = stream.shape[-1], scale.shape[0]
    stream, weight = stream.contiguous(), weight.contiguous()
    dnormed = torch.zeros_like(stream) if dnormed is None else dnormed.contiguous()
    dx = torch.empty_like(stream)
    dbranch = None if branch_dtype is None else torch.empty_like(stream, dtype=branch_dtype)
    P, R = _block(D, BACKWARD[0])
    programs = min(triton.cdiv(T, R), PROGRAMS)
    sums = torch.empty(1 if bias is None else 2, programs, D, device=stream.device)
    triton_kernels.residual_norm_backward[(programs,)](
        stream, weight, seed, mean, scale, None if dstream is None else dstream.contiguous(), dnormed, dx, dbranch,
        sums, T, *_draws(dropout), D=D, P=P, R=R, HAS_DSTREAM=dstream is not None,
        HAS_BRANCH=dbranch is not None, DROPS=seed is not None, CENTRED=bias is not None, num_warps=BACKWARD[1],
    )  # fmt: skip
    dweight, *dbias = map(column_sums, sums)
    return dx, dbranch, dweight.to(weight.dtype), None if bias is None else dbias[0].to(bias.dtype)


def _block(width: int, size: int) -> tuple[int, int]:
    """The width filled up to a power of two, and rows of it that a program holds at a time."""
    filled = max(16, triton.next_power_of_2(width))
    return filled, max(1, size // filled)


def _draws(dropout: float) -> tuple[int, float]:
    """What 24 random bits have to reach for a number to stay, and what it is multiplied with then."""
    return round(dropout * 2**24), 1.0 / (1.0 - dropout)


_apply: Callable[..., Any] = _Function.apply
