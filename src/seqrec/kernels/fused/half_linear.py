"""A linear layer in half precision whose weights are float32: the gradients of weights leave their products in float32,
without being rounded and copied in between, and that of the bias is summed at the speed of memory.

Shapes: T rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.kernels.triton_sums import column_sums


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """As `seqrec.kernels.fused.linear`, in `dtype`."""
    return _apply(x, weight, bias, dtype)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        ctx.dtype = x.dtype
        x, weight = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return F.linear(x, weight, None if bias is None else bias.to(dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dy_TN = dy.contiguous().flatten(0, -2)
        dx = (dy_TN @ weight).view(x.shape).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        dweight = torch.mm(dy_TN.T, x.flatten(0, -2), out_dtype=torch.float32)
        return dx, dweight, column_sums(dy_TN) if ctx.has_bias else None, None


_apply: Callable[..., Any] = _Function.apply
