"""The mLSTM by the optional package `mlstm_kernels`: pip install "seqrec[nxai]".

Its licence, the NXAI Community License, is not an open-source licence: read it before you ship anything with it. Here
it stands for comparison; nothing in seqrec needs it. On a GPU its Triton kernels run, elsewhere its torch form.
The former use block pointers: Triton 3.6 has them, 3.9 no longer does.

Hidden states are ours. Gradients are ours behind a norm over each head, as in every model here: its backward passes
leave out the gradient through the normaliser, which such a norm removes.

Shapes: B rows, H heads, L positions, K key width, V value width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.errors import ConfigError, MissingExtraError
from seqrec.kernels.mlstm.state import CLOSED, MLSTMState, initial_state

#: Positions that its kernels take at a time.
CHUNK, CUDA_CHUNK = 32, 128
#: Below one chunk, its Triton kernels take lengths that are a power of two from here on.
LEAST = 16
#: A forget gate before its activation that keeps everything: sigmoid is 1 in float64 too.
KEPT = 100.0


def nxai(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState | None = None,
    lengths: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, MLSTMState]:
    """h (B, H, L, V) and the state after each row's last event; see `mlstm_prefill`.

    Raises:
        ConfigError: `starts` is given (its kernels know no resets), or on a GPU K or V is not a power of two from 16.
        MissingExtraError: mlstm_kernels is not installed.
    """
    (B, H, L, K), V, on_gpu = q.shape, v.shape[-1], q.device.type == "cuda"
    if starts is not None:
        raise ConfigError("kernel nxai cannot pack several histories into one row: choose native or triton.")
    if on_gpu and not all(width >= LEAST and width & (width - 1) == 0 for width in (K, V)):
        raise ConfigError(f"kernel nxai takes heads whose width is a power of two from {LEAST} on, not {K} and {V}.")
    kernel = _package().get_mlstm_kernel("chunkwise--triton_xl_chunk" if on_gpu else "chunkwise--native_custbw")
    single = torch.promote_types(v.dtype, torch.float32)
    i, f = i.to(single), f.to(single)
    if lengths is not None:
        padded = torch.arange(L, device=q.device) >= lengths[:, None, None]
        i, f = i.masked_fill(padded, CLOSED), f.masked_fill(padded, KEPT)
    chunk = cuda_chunk(L) if on_gpu else max(1, min(CHUNK, L))
    fill = -L % chunk
    wide = (F.pad(x.to(v.dtype if on_gpu else single), (0, 0, 0, fill)) for x in (q, k, v))
    gates = F.pad(i, (0, fill), value=CLOSED), F.pad(f, (0, fill), value=KEPT)
    memory, normaliser, log_scale = state or initial_state(B, H, K, V, q)
    before = memory, normaliser, log_scale.unsqueeze(-1)
    with torch.autocast(q.device.type, enabled=False):  # it would turn gates to half precision too
        h, after = kernel(*wide, *gates, *before, return_last_states=True, eps=0.0, chunk_size=chunk)
    return h[:, :, :L].to(v.dtype), MLSTMState(after[0], after[1], after[2].squeeze(-1))


def step(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState) -> tuple[Tensor, MLSTMState]:
    """q, k (B, H, K), v (B, H, V), gates before activation i, f (B, H). Returns h (B, H, V) and the state after it.

    Raises:
        MissingExtraError: mlstm_kernels is not installed.
    """
    if state.memory.dtype not in (torch.float32, torch.float64):
        raise ConfigError("kernel nxai steps a float32 state: choose native, or widen the memory.")
    kernel = _package().get_mlstm_step_kernel("triton" if q.device.type == "cuda" else "native")
    dtype, (memory, normaliser, log_scale) = state.memory.dtype, state
    event = (x.to(dtype) for x in (q, k, v, i.unsqueeze(-1), f.unsqueeze(-1)))
    h, after = kernel(*event, memory, normaliser, log_scale.unsqueeze(-1), eps=0.0, dtype_state=dtype)
    return h.to(v.dtype), MLSTMState(after[0], after[1], after[2].squeeze(-1))


def cuda_chunk(length: int) -> int:
    """The chunk size with which its Triton kernels take that many positions, rounded up to a multiple of it."""
    return min(CUDA_CHUNK, max(LEAST, 1 << (length - 1).bit_length()))


def _package() -> Any:
    try:
        import mlstm_kernels.torch
    except ImportError as missing:
        raise MissingExtraError("mlstm_kernels (NXAI Community License, not open source)", "nxai") from missing
    return mlstm_kernels.torch
