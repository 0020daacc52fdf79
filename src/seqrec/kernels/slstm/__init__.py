"""The sLSTM cell: one contract, several forms of the same arithmetic, and the choice among them.

`reference` says what is computed and is the oracle of every other form. `native` is torch with a backward pass of
its own, `triton_recurrence` the same on a GPU.

Shapes: B rows, L positions, H heads, K width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqrec.errors import unknown_name
from seqrec.kernels.gpu import fits, has_triton, require_heads
from seqrec.kernels.slstm.native import native
from seqrec.kernels.slstm.reference import recurrent
from seqrec.kernels.slstm.state import SLSTMState, initial_state
from seqrec.kernels.slstm.step import step

__all__ = ["KERNELS", "SLSTMState", "initial_state", "slstm", "slstm_prefill", "slstm_step"]

#: `recurrent` is autograd through one event at a time: slow, and the one form that can be traced and exported.
#: `auto` takes it while a model is traced, else `triton` on a GPU where it can be imported, else `native`.
KERNELS = ("auto", "native", "triton", "recurrent")


def slstm(x: Tensor, r: Tensor, *, starts: Tensor | None = None, kernel: str = "auto") -> Tensor:
    """Hidden states of whole sequences from an empty state.

    Args:
        x: what the input contributes to the gates (B, L, 4, H, K), bias included, before activation, in the order
            input gate, forget gate, cell input, output gate.
        r: (4, H, K, K), what the hidden state before contributes to gate g of head h: hidden @ r[g, h].
        starts: (B, L) bool, true where a position begins a history of its own and sees nothing before it.
        kernel: one of `KERNELS`.

    Returns:
        h (B, L, H, K) in the dtype of `x`. Position t depends on positions up to t only.
    """
    return slstm_prefill(x, r, starts=starts, kernel=kernel)[0]


def slstm_prefill(
    x: Tensor,
    r: Tensor,
    lengths: Tensor | None = None,
    *,
    state: SLSTMState | None = None,
    starts: Tensor | None = None,
    kernel: str = "auto",
) -> tuple[Tensor, SLSTMState]:
    """As `slstm`, from `state` (None: nothing), and with the state after the last event of each row.

    Args:
        lengths: (B,) valid positions per row, 0 to L; None for L. Hidden states beyond them mean nothing. A row
            without events keeps its state.

    Raises:
        ConfigError: `kernel` is "triton" and cannot take heads of this width, or this dtype.
        UnknownNameError: `kernel` is none of `KERNELS`.
        MissingExtraError: `kernel` is "triton" and there is no Triton.
    """
    if kernel not in KERNELS:
        raise unknown_name("sLSTM kernel", kernel, KERNELS)
    if kernel == "auto":
        kernel = _automatic(x)
    if kernel == "triton":
        return _triton(x, r, state, lengths, starts)
    form = recurrent if kernel == "recurrent" else native
    return form(x, r, state, lengths, starts)


def slstm_step(x: Tensor, r: Tensor, state: SLSTMState, *, kernel: str = "auto") -> tuple[Tensor, SLSTMState]:
    """One event: x (B, 4, H, K). Returns h (B, H, K) and the state after it. Every kernel takes the same step.

    Raises:
        UnknownNameError: `kernel` is none of `KERNELS`.
    """
    if kernel not in KERNELS:
        raise unknown_name("sLSTM kernel", kernel, KERNELS)
    return step(x, r, state)


def _automatic(x: Tensor) -> str:
    if torch.compiler.is_compiling():
        return "recurrent"
    return "triton" if x.is_cuda and fits(x) and has_triton() else "native"


def _triton(
    x: Tensor, r: Tensor, state: SLSTMState | None, lengths: Tensor | None, starts: Tensor | None
) -> tuple[Tensor, SLSTMState]:
    require_heads(x)
    from seqrec.kernels.slstm.triton_form import fused  # slow to import, and not everybody has Triton

    return fused(x, r, state, lengths, starts)
