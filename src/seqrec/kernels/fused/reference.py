"""The same in torch operations, differentiated by autograd: what the Triton twins are held against.

Shapes: B rows, L positions, D width, F hidden width, H heads, K head width, W convolution width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.kernels.dropout import dropout as drop

#: Of output gates.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "silu": F.silu}
#: Added to mean squares of heads.
EPSILON = 1e-6


def swiglu(gate_up: Tensor) -> Tensor:
    """As `seqrec.kernels.fused.swiglu`."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def gelu_dropout(x: Tensor, dropout: float) -> Tensor:
    """As `seqrec.kernels.fused.gelu_dropout`."""
    return drop(F.gelu(x), dropout)


def causal_conv_silu(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """As `seqrec.kernels.fused.causal_conv_silu`."""
    padded = F.pad(x, (0, 0, kernel.shape[-1] - 1, 0))
    return F.silu(F.conv1d(padded.mT, kernel, bias, groups=len(kernel))).mT


def gated_head_norm(h: Tensor, weight: Tensor | None, gate: Tensor | None, activation: str | None) -> Tensor:
    """As `seqrec.kernels.fused.gated_head_norm`."""
    y = h.flatten(-2)
    if weight is not None:
        y = F.rms_norm(_precise(h), h.shape[-1:], eps=EPSILON).flatten(-2).to(h.dtype) * weight
    if gate is not None and activation is not None:
        y = y * ACTIVATIONS[activation](gate)
    return y.to(h.dtype)


def capped_gates(gates: Tensor, cap: float | None) -> tuple[Tensor, Tensor]:
    """As `seqrec.kernels.fused.capped_gates`."""
    gates = _precise(gates)
    gates = gates if cap is None else cap * torch.tanh(gates / cap)
    i, f = gates.mT.chunk(2, 1)
    return i, f


def unit(x: Tensor, temperature: float) -> Tensor:
    """As `seqrec.kernels.fused.unit`."""
    return F.normalize(x, dim=-1) / temperature


def split(x: Tensor, parts: int, *shape: int) -> tuple[Tensor, ...]:
    """As `seqrec.kernels.fused.split`."""
    return x.unflatten(-1, (parts, *shape)).unbind(-1 - len(shape))


def _precise(x: Tensor) -> Tensor:
    """In float32 at least: half precision is too coarse for gates and norms."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
