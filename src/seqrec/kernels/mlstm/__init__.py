"""The mLSTM cell: one contract, several forms of the same arithmetic, and the choice among them.

`reference` says what is computed and is the oracle of every other form. `native` is torch with a backward pass of
its own, `triton_*` the same on a GPU, `nxai` the optional package mlstm_kernels.

Shapes: B rows, H heads, L positions, K key width, V value width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqrec.kernels.mlstm import chunkwise, reference
from seqrec.kernels.mlstm.reference import effective_attention
from seqrec.kernels.mlstm.state import MLSTMState, initial_state
from seqrec.kernels.mlstm.step import step

__all__ = ["MLSTMState", "effective_attention", "initial_state", "mlstm", "mlstm_prefill", "mlstm_step"]


def mlstm(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *, starts: Tensor | None = None, kernel: str = "auto"
) -> Tensor:
    """Hidden states of whole sequences from an empty state.

    Args:
        q, k: queries and keys (B, H, L, K). v: values (B, H, L, V).
        i, f: input and forget gates before their activation (B, H, L).
        starts: (B, L) bool, true where a position begins a history of its own and sees nothing before it.
        kernel: see `KERNELS`.

    Returns:
        h (B, H, L, V) in the dtype of `v`. Position t depends on positions up to t only.
    """
    if kernel == "parallel":
        return reference.parallel(q, k, v, i, f, starts)
    if kernel == "recurrent":
        return reference.recurrent(q, k, v, i, f, starts=starts)[0]
    return chunkwise.chunkwise(q, k, v, i, f, starts=starts)[0]


def mlstm_prefill(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    lengths: Tensor | None = None,
    *,
    state: MLSTMState | None = None,
    starts: Tensor | None = None,
    kernel: str = "auto",
) -> tuple[Tensor, MLSTMState]:
    """As `mlstm`, from `state` (None: nothing), and with the state after the last event of each row.

    Args:
        lengths: (B,) valid positions per row, 0 to L; None for L.
    """
    form = reference.recurrent if kernel == "recurrent" else chunkwise.chunkwise
    return form(q, k, v, i, f, state, lengths, starts)


def mlstm_step(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState, *, kernel: str = "auto"
) -> tuple[Tensor, MLSTMState]:
    """One event: q, k (B, H, K), v (B, H, V), i, f (B, H). Returns h (B, H, V) and the state after it."""
    return step(q, k, v, i, f, state)
