"""The mLSTM as its paper writes it, differentiated by autograd: what every faster form is held against.

Beck et al., "xLSTM: Extended Long Short-Term Memory", 2024, equations 19-27. With forget gate
f_t = sigmoid(f~_t), input gate i_t = exp(i~_t), and q scaled by 1/sqrt(K) (the paper scales k; h is the same):

    C_t = f_t C_{t-1} + i_t k_t v_t^T      n_t = f_t n_{t-1} + i_t k_t
    h_t = C_t^T q_t / max(|n_t . q_t|, 1)

Gates are kept as logarithms. Each form subtracts a running maximum m_t before it exponentiates; h does not depend
on m, because max(|n|, 1) turns into max(|n|, exp(-m)).

Shapes: B rows, H heads, L positions, K key width, V value width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.kernels.mlstm.state import MLSTMState, initial_state
from seqrec.kernels.mlstm.step import step


def parallel(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, starts: Tensor | None = None) -> Tensor:
    """h (B, H, L, V) through one (L, L) matrix of decayed attention per head: quadratic in length."""
    return effective_attention(q, k, i, f, starts).to(v.dtype) @ v


def effective_attention(q: Tensor, k: Tensor, i: Tensor, f: Tensor, starts: Tensor | None = None) -> Tensor:
    """The weights (B, H, L, L) with which h_t draws on each v_s, s <= t; signed, and rows need not sum to 1.

    Args:
        starts: (B, L) bool, true where a position begins a history of its own and sees nothing before it.
    """
    gates = torch.promote_types(i.dtype, torch.float32)
    decay = F.logsigmoid(f.to(gates)).cumsum(-1)
    weight = decay.unsqueeze(-1) - decay.unsqueeze(-2) + i.to(gates).unsqueeze(-2)
    visible = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
    if starts is not None:
        history = starts.cumsum(-1)
        visible = visible & (history[:, None, :, None] == history[:, None, None, :])
    weight = weight.masked_fill(~visible, -torch.inf)
    m = weight.amax(-1, keepdim=True)
    attention = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5 * torch.exp(weight - m)
    return attention / attention.sum(-1, keepdim=True).abs().maximum(torch.exp(-m))


def recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState | None = None,
    lengths: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, MLSTMState]:
    """h (B, H, L, V) and the state after each row's last event, one event at a time."""
    (B, H, L, K), V = q.shape, v.shape[-1]
    state = state or initial_state(B, H, K, V, q)
    inside = torch.ones(B, L, dtype=torch.bool, device=q.device)
    if lengths is not None:
        inside = torch.arange(L, device=q.device) < lengths[:, None]
    hidden = []
    for t in range(L):
        if starts is not None:
            state = MLSTMState(*(part.masked_fill(_like(starts[:, t] & inside[:, t], part), 0) for part in state))
        h, after = step(q[:, :, t], k[:, :, t], v[:, :, t], i[:, :, t], f[:, :, t], state)
        after = MLSTMState(*(torch.where(_like(inside[:, t], a), a, b) for a, b in zip(after, state, strict=True)))
        hidden.append(h.to(v.dtype))
        state = after
    return torch.stack(hidden, 2) if hidden else v, state


def _like(rows_B: Tensor, part: Tensor) -> Tensor:
    return rows_B.view(-1, *[1] * (part.dim() - 1))
