"""The mLSTM cell: one contract, several forms of the same arithmetic, and the choice among them.

`reference` says what is computed and is the oracle of every other form. `native` is torch with a backward pass of
its own, `triton_*` the same on a GPU, `nxai` the optional package mlstm_kernels.

Shapes: B rows, H heads, L positions, K key width, V value width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqrec.errors import ConfigError, unknown_name
from seqrec.kernels.gpu import fits, has_triton, require_heads
from seqrec.kernels.mlstm import reference
from seqrec.kernels.mlstm.native import native, native_hidden
from seqrec.kernels.mlstm.reference import effective_attention
from seqrec.kernels.mlstm.state import MLSTMState, initial_state
from seqrec.kernels.mlstm.step import step

__all__ = ["KERNELS", "MLSTMState", "effective_attention", "initial_state", "mlstm", "mlstm_prefill", "mlstm_step"]

#: `auto` is `triton` on a GPU where it takes such heads, else `native`. `parallel` is `native` with one chunk,
#: `recurrent` autograd through one event at a time. Traced or exported, `mlstm` runs the reference instead.
KERNELS = ("auto", "native", "triton", "nxai", "parallel", "recurrent")


def mlstm(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *, starts: Tensor | None = None, kernel: str = "auto"
) -> Tensor:
    """Hidden states of whole sequences from an empty state.

    Args:
        q, k: queries and keys (B, H, L, K). v: values (B, H, L, V).
        i, f: input and forget gates before their activation (B, H, L).
        starts: (B, L) bool, true where a position begins a history of its own and sees nothing before it.
        kernel: one of `KERNELS`.

    Returns:
        h (B, H, L, V) in the dtype of `v`. Position t depends on positions up to t only.

    Raises:
        ConfigError: no such kernel, or it cannot do what is asked.
        MissingExtraError: the package behind the kernel is not installed.
    """
    if torch.compiler.is_compiling():
        return reference.parallel(q, k, v, i, f, starts)
    chosen = _choose(kernel, q, v)
    if chosen == "triton":
        from seqrec.kernels.mlstm import triton_form

        return triton_form.hidden_states(q, k, v, i, f, starts)
    if chosen in ("native", "parallel"):
        return native_hidden(q, k, v, i, f, starts, chunk=q.shape[2] if chosen == "parallel" else None)
    return mlstm_prefill(q, k, v, i, f, starts=starts, kernel=kernel)[0]


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
        lengths: (B,) valid positions per row, 0 to L; None for L. Hidden states beyond them mean nothing, and what
            stands there has to be finite.
    """
    chosen = _choose(kernel, q, v)
    if chosen == "triton":
        from seqrec.kernels.mlstm import triton_form

        return triton_form.prefill(q, k, v, i, f, state, lengths, starts)
    if chosen == "nxai":
        from seqrec.kernels.mlstm.nxai import nxai

        return nxai(q, k, v, i, f, state, lengths, starts)
    if chosen == "recurrent":
        return reference.recurrent(q, k, v, i, f, state, lengths, starts)
    return native(q, k, v, i, f, state, lengths, starts, chunk=q.shape[2] if chosen == "parallel" else None)


def mlstm_step(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState, *, kernel: str = "auto"
) -> tuple[Tensor, MLSTMState]:
    """One event: q, k (B, H, K), v (B, H, V), i, f (B, H). Returns h (B, H, V) and the state after it.

    The state given stays as it is. Only `native` and `recurrent`, which is the same here, can be differentiated.

    Raises:
        ConfigError: no such kernel, or `triton` with a state that is not float32 or with gradients wanted.
    """
    if kernel == "triton" and (state.memory.dtype != torch.float32 or _wants_gradients(q, k, v, i, f, *state)):
        raise ConfigError("kernel triton steps a float32 state without gradients: choose native or auto.")
    if kernel == "nxai":
        from seqrec.kernels.mlstm import nxai

        return nxai.step(q, k, v, i, f, state)
    auto = kernel == "auto" and q.is_cuda and state.memory.dtype == torch.float32 and not torch.is_grad_enabled()
    if _choose("native" if kernel == "auto" and not auto else kernel, q, v) == "triton":
        from seqrec.kernels.mlstm import triton_step

        return triton_step.step(q, k, v, i, f, state)
    return step(q, k, v, i, f, state)


def _choose(kernel: str, q: Tensor, v: Tensor) -> str:
    """The form that `kernel` means here."""
    if kernel == "auto":
        return "triton" if q.is_cuda and fits(q, v) and q.numel() > 0 and has_triton() else "native"
    if kernel not in KERNELS:
        raise unknown_name("mLSTM kernel", kernel, KERNELS)
    if kernel == "triton":
        require_heads(q, v)
        return "triton" if q.numel() > 0 else "native"
    return kernel


def _wants_gradients(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
