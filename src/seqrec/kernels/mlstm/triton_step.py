"""One event of the mLSTM on a GPU: a session's memory is read once and written once.

Shapes: B rows, H heads, K key width, V value width.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqrec.kernels.mlstm.state import MLSTMState


@triton.jit
def _step(
    q, k, v, i, f, memory, normaliser, log_scale, h, new_memory, new_normaliser, new_scale, scale,
    K: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """One program per row and head."""
    row = tl.program_id(0).to(tl.int64)
    columns_K, columns_V = row * K + tl.arange(0, K), row * V + tl.arange(0, V)
    places_KV = columns_K[:, None] * V + tl.arange(0, V)[None, :]
    q_K = tl.load(q + columns_K).to(tl.float32) * scale
    k_K, v_V = tl.load(k + columns_K).to(tl.float32), tl.load(v + columns_V).to(tl.float32)
    i_, f_ = tl.load(i + row).to(tl.float32), tl.load(f + row).to(tl.float32)
    kept = tl.minimum(f_, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(f_))) + tl.load(log_scale + row)
    m = tl.maximum(kept, i_)
    keep, k_K = tl.exp(kept - m), k_K * tl.exp(i_ - m)
    memory_KV = tl.load(memory + places_KV) * keep + k_K[:, None] * v_V[None, :]
    normaliser_K = tl.load(normaliser + columns_K) * keep + k_K
    bound = tl.maximum(tl.abs(tl.sum(normaliser_K * q_K, 0)), tl.exp(-m))
    h_V = tl.sum(memory_KV * q_K[:, None], 0) / bound
    tl.store(h + columns_V, h_V.to(h.dtype.element_ty))
    tl.store(new_memory + places_KV, memory_KV)
    tl.store(new_normaliser + columns_K, normaliser_K)
    tl.store(new_scale + row, m)


def step(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState) -> tuple[Tensor, MLSTMState]:
    """As `seqrec.kernels.mlstm.mlstm_step`, of a float32 state; no gradient goes through it."""
    (B, H, K), V = q.shape, v.shape[-1]
    inputs = [x.detach().contiguous() for x in (q, k, v, i, f, *state)]
    after = MLSTMState(*(torch.empty_like(x) for x in inputs[5:]))
    h = torch.empty_like(inputs[2])
    _step[(B * H,)](*inputs, h, *after, K**-0.5, K=K, V=V)
    return h, after
