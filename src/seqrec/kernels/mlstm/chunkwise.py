"""The mLSTM a chunk at a time: linear in length.

Shapes: B rows, H heads, L positions, K key width, V value width, N chunks, S positions in a chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.kernels.mlstm.state import CLOSED, MLSTMState, initial_state

CHUNK = 64


def chunkwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState | None = None,
    lengths: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, MLSTMState]:
    """As `mlstm`, a chunk at a time: linear in length, and it starts from and returns a state.

    Args:
        state: what was remembered before position 0; None for nothing.
        lengths: (B,) valid positions per row. The state returned is the one after the last of them.
    """
    (B, H, L, K), V, dtype = q.shape, v.shape[-1], v.dtype
    gates = torch.promote_types(i.dtype, torch.float32)
    i, log_f = i.to(gates), F.logsigmoid(f.to(gates))
    if lengths is not None:
        padded = torch.arange(L, device=q.device) >= lengths[:, None, None]
        i, log_f = i.masked_fill(padded, CLOSED), log_f.masked_fill(padded, 0.0)
    S = min(CHUNK, L)
    fill = -L % S
    q, k, v = (F.pad(x.to(gates), (0, 0, 0, fill)).view(B, H, -1, S, x.shape[-1]) for x in (q * K**-0.5, k, v))
    i = F.pad(i, (0, fill), value=CLOSED).view(B, H, -1, S)
    decay = F.pad(log_f, (0, fill)).view(B, H, -1, S).cumsum(-1)

    before, state = _carry(k, v, i, decay, state or initial_state(B, H, K, V, q))
    weight = decay.unsqueeze(-1) - decay.unsqueeze(-2) + i.unsqueeze(-2)
    weight = weight.masked_fill(~_causal(S, q.device), -torch.inf)
    carried = decay + before.log_scale.unsqueeze(-1)
    m = torch.maximum(weight.amax(-1), carried)
    attention = (q @ k.transpose(-1, -2)) * torch.exp(weight - m.unsqueeze(-1))
    recalled = q * torch.exp(carried - m).unsqueeze(-1)
    normaliser = attention.sum(-1) + (recalled @ before.normaliser.unsqueeze(-1)).squeeze(-1)
    h = (attention @ v + recalled @ before.memory) / normaliser.abs().maximum(torch.exp(-m)).unsqueeze(-1)
    return h.view(B, H, L + fill, V)[:, :, :L].to(dtype), state


def _carry(k: Tensor, v: Tensor, i: Tensor, decay: Tensor, state: MLSTMState) -> tuple[MLSTMState, MLSTMState]:
    """States before every chunk, stacked along dimension 2, and the state after the last."""
    to_end = decay[..., -1:] - decay + i  # (B, H, N, S): log weight of each position at the end of its chunk
    before: list[MLSTMState] = []
    for chunk in range(k.shape[2]):
        before.append(state)
        kept = decay[:, :, chunk, -1] + state.log_scale
        log_scale = torch.maximum(kept, to_end[:, :, chunk].amax(-1))
        keep = torch.exp(kept - log_scale)
        added = k[:, :, chunk] * torch.exp(to_end[:, :, chunk] - log_scale.unsqueeze(-1)).unsqueeze(-1)
        state = MLSTMState(
            keep[..., None, None] * state.memory + added.transpose(-1, -2) @ v[:, :, chunk],
            keep[..., None] * state.normaliser + added.sum(-2),
            log_scale,
        )
    return MLSTMState(*(torch.stack(parts, 2) for parts in zip(*before, strict=True))), state


def _causal(length: int, device: torch.device) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
