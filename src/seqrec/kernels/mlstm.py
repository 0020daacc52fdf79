"""The mLSTM cell in its three exact forms: parallel, chunkwise, and one step at a time.

Beck et al., "xLSTM: Extended Long Short-Term Memory", 2024, equations 19-27. With forget gate
f_t = sigmoid(f~_t), input gate i_t = exp(i~_t), and q scaled by 1/sqrt(K) (the paper scales k; h is the same):

    C_t = f_t C_{t-1} + i_t k_t v_t^T      n_t = f_t n_{t-1} + i_t k_t
    h_t = C_t^T q_t / max(|n_t . q_t|, 1)

All gates are kept as logarithms. Each form subtracts a running maximum m_t before it exponentiates;
h does not depend on m, because max(|n|, 1) turns into max(|n|, exp(-m)). Input gates below about -80 would
overflow that exponential in float32; the model caps its gates long before.

Shapes: B rows, H heads, L positions, K key width, V value width, N chunks, S positions in a chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

#: Up to this length one L x L matrix per head is cheaper than carrying a state from chunk to chunk. Beyond it
#: the matrix also loses digits: its decays are differences of a sum over the whole sequence.
PARALLEL_UP_TO = {"cpu": 64, "cuda": 256}
CHUNK = 64
#: Log of an input gate that lets nothing in; finite, so that differences of such logs are not NaN.
CLOSED = -1e30


class MLSTMState(NamedTuple):
    """What the cell remembers: `memory` (B, H, K, V) and `normaliser` (B, H, K), times exp(-`log_scale`) (B, H)."""

    memory: Tensor
    normaliser: Tensor
    log_scale: Tensor


def initial_state(batch: int, heads: int, key: int, value: int, like: Tensor) -> MLSTMState:
    """The state before any event, in the device of `like` and float32 (float64 if `like` is)."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return MLSTMState(
        torch.zeros(batch, heads, key, value, device=like.device, dtype=dtype),
        torch.zeros(batch, heads, key, device=like.device, dtype=dtype),
        torch.zeros(batch, heads, device=like.device, dtype=dtype),
    )


def mlstm(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
    """Hidden states of whole sequences from an empty state, by whichever form is fastest here.

    Args:
        q, k: queries and keys (B, H, L, K). v: values (B, H, L, V).
        i, f: input and forget gates before their activation (B, H, L).

    Returns:
        h (B, H, L, V) in the dtype of `v`. Position t depends on positions up to t only.
    """
    if q.shape[2] <= PARALLEL_UP_TO.get(q.device.type, 64):
        return mlstm_parallel(q, k, v, i, f)
    return mlstm_chunkwise(q, k, v, i, f)[0]


def mlstm_parallel(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
    """As `mlstm`, through one (L, L) matrix of decayed attention per head: quadratic in length."""
    return mlstm_effective_attention(q, k, i, f).to(v.dtype) @ v


def mlstm_effective_attention(q: Tensor, k: Tensor, i: Tensor, f: Tensor) -> Tensor:
    """The weights (B, H, L, L) with which h_t draws on each v_s, s <= t; signed, and rows need not sum to 1."""
    gates = torch.promote_types(i.dtype, torch.float32)
    decay = F.logsigmoid(f.to(gates)).cumsum(-1)
    weight = decay.unsqueeze(-1) - decay.unsqueeze(-2) + i.to(gates).unsqueeze(-2)
    weight = weight.masked_fill(~_causal(q.shape[2], q.device), -torch.inf)
    m = weight.amax(-1, keepdim=True)
    attention = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5 * torch.exp(weight - m)
    return attention / attention.sum(-1, keepdim=True).abs().maximum(torch.exp(-m))


def mlstm_chunkwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState | None = None,
    lengths: Tensor | None = None,
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


def mlstm_step(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState) -> tuple[Tensor, MLSTMState]:
    """One event: q, k (B, H, K), v (B, H, V), i, f (B, H). Returns h (B, H, V) and the state after it."""
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


def _causal(length: int, device: torch.device) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
