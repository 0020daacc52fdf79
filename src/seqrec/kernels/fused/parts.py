"""Parts of a product's last dimension, whose gradients come back without being stacked first and copied then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def split(x: Tensor, parts: int, *shape: int) -> tuple[Tensor, ...]:
    """As `seqrec.kernels.fused.split`."""
    return _apply(x, parts, shape)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: int, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        ctx.shape = x.shape
        return x.unflatten(-1, (parts, *shape)).unbind(-1 - len(shape))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        first = gradients[0]
        whole = first.new_empty(ctx.shape)
        shape = first.shape[len(ctx.shape) - 1 :]
        for part, gradient in zip(
            whole.unflatten(-1, (len(gradients), *shape)).unbind(-1 - len(shape)), gradients, strict=True
        ):
            part.copy_(gradient)
        return whole, None, None


_apply: Callable[..., Any] = _Function.apply
