"""What a block of a model does between two matrix products, each in one pass over memory.

Such steps are bound by memory: written as torch operations they read and write the same numbers several times over,
which on a GPU takes longer than the products. `reference` says what is computed, and runs on CPUs, in float64 and
where a model is traced; elsewhere on a GPU runs a Triton twin, `triton_*`, which computes in float32 whatever it
reads and writes, and keeps for the backward pass its inputs only.

Shapes: B rows, L positions, D width, F hidden width, H heads, K head width, W convolution width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqrec.kernels.fused import parts as apart
from seqrec.kernels.fused import reference
from seqrec.kernels.fused.reference import ACTIVATIONS
from seqrec.kernels.gpu import has_triton, product_dtype

__all__ = [
    "ACTIVATIONS",
    "capped_gates",
    "causal_conv_silu",
    "gated_head_norm",
    "gelu_dropout",
    "split",
    "swiglu",
    "unit",
]

#: The widest convolution whose inputs a program keeps in registers.
WIDEST = 8
#: The longest row that a program holds.
LONGEST = 1024


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up (..., F) in the dtype of `gate_up` (..., 2 F), of which gate is the first half.

    Shazeer, "GLU Variants Improve Transformer", 2020.
    """
    if not _on_gpu(gate_up):
        return reference.swiglu(gate_up)
    from seqrec.kernels.fused import triton_swiglu

    return triton_swiglu.swiglu(gate_up)


def gelu_dropout(x: Tensor, dropout: float) -> Tensor:
    """dropout(gelu(x)) in the dtype of `x` (...), with the exact GELU.

    Args:
        dropout: the probability with which an entry becomes zero now, 0 outside of training; others are divided by
            1 - dropout. Draws are of torch's generator, on a GPU one number per call: the seed of the mask. A CUDA
            graph that has recorded the call draws again each time it is replayed.
    """
    if not _on_gpu(x):
        return reference.gelu_dropout(x, dropout)
    from seqrec.kernels.fused import triton_gelu_dropout

    return triton_gelu_dropout.gelu_dropout(x, dropout)


def causal_conv_silu(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """silu of each channel's convolution along positions, every one with the W-1 before it (zeros before the first).

    Args:
        x: (B, L, D). kernel: (D, 1, W), the last tap for the position itself. bias: (D,).

    Returns:
        (B, L, D) in the dtype of `x`; in that of autocast where it is on, as all convolutions.
    """
    if not _on_gpu(x) or kernel.shape[-1] > WIDEST:
        return reference.causal_conv_silu(x, kernel, bias)
    from seqrec.kernels.fused import triton_convolution

    return triton_convolution.causal_conv_silu(x, kernel, bias)


def gated_head_norm(
    h: Tensor, weight: Tensor | None = None, gate: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """rms_norm(h) * weight * activation(gate), each head normalised by itself.

    Args:
        h: (..., H, K), what heads give.
        weight: (H K,), or None to leave heads as they are.
        gate: (..., H K), for instance half of a wider tensor; None for none.
        activation: one of `ACTIVATIONS`, of the gate; None to leave the gate out.

    Returns:
        (..., H K) in the dtype of `h`.
    """
    gate = None if activation is None else gate
    if (weight is None and gate is None) or h.dim() != 4 or not _on_gpu(h):
        return reference.gated_head_norm(h, weight, gate, activation)
    from seqrec.kernels.fused import triton_head_norm

    return triton_head_norm.gated_head_norm(h, weight, gate, activation)


def capped_gates(gates: Tensor, cap: float | None) -> tuple[Tensor, Tensor]:
    """Input and forget gates (B, H, L), in float32 at least, from both side by side (B, L, 2 H).

    Args:
        cap: what they saturate at smoothly, cap * tanh(gates / cap); None for no such limit.
    """
    if not _on_gpu(gates):
        return reference.capped_gates(gates, cap)
    from seqrec.kernels.fused import triton_gates

    return triton_gates.capped_gates(gates, cap)


def unit(x: Tensor, temperature: float) -> Tensor:
    """Rows of `x` (..., D) divided by their length and by a temperature.

    Returns:
        (..., D) in the dtype of `x`; on a GPU in that of matrix products, which is autocast's where it is on.
    """
    if not _on_gpu(x) or x.shape[-1] > LONGEST:
        return reference.unit(x, temperature)
    from seqrec.kernels.fused import triton_unit

    return triton_unit.unit(x, temperature, product_dtype(x))


def split(x: Tensor, parts: int, *shape: int) -> tuple[Tensor, ...]:
    """`parts` views (..., *shape) of the last dimension of `x` (..., parts * D), where D is the product of `shape`."""
    if torch.compiler.is_compiling() or not x.requires_grad:
        return reference.split(x, parts, *shape)
    return apart.split(x, parts, *shape)


def _on_gpu(x: Tensor) -> bool:
    """Whether a Triton twin can take it."""
    compiling = torch.compiler.is_compiling()
    return not compiling and x.is_cuda and x.dtype != torch.float64 and x.numel() > 0 and has_triton()
