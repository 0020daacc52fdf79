"""One event of the mLSTM: what a live session costs, however long its history is.

Shapes: B rows, H heads, K key width, V value width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.kernels.mlstm.state import MLSTMState


def step(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState) -> tuple[Tensor, MLSTMState]:
    """q, k (B, H, K), v (B, H, V), gates before activation i, f (B, H). Returns h (B, H, V) and the state after it."""
    dtype = state.memory.dtype
    q, k, v, i = q.to(dtype) * q.shape[-1] ** -0.5, k.to(dtype), v.to(dtype), i.to(dtype)
    kept = F.logsigmoid(f.to(dtype)) + state.log_scale
    m = torch.maximum(kept, i)
    keep, add = torch.exp(kept - m).unsqueeze(-1), torch.exp(i - m).unsqueeze(-1)
    memory = keep.unsqueeze(-1) * state.memory + (add * k).unsqueeze(-1) * v.unsqueeze(-2)
    normaliser = keep * state.normaliser + add * k
    scale = (normaliser * q).sum(-1).abs().maximum(torch.exp(-m))
    h = (q.unsqueeze(-2) @ memory).squeeze(-2) / scale.unsqueeze(-1)
    return h, MLSTMState(memory, normaliser, m)
