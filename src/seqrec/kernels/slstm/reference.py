"""The sLSTM as its paper writes it, one event at a time, differentiated by autograd: the oracle of faster forms.

Shapes: B rows, L positions, H heads, K width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqrec.kernels.slstm.state import SLSTMState, initial_state
from seqrec.kernels.slstm.step import step


def recurrent(
    x: Tensor, r: Tensor, state: SLSTMState | None = None, lengths: Tensor | None = None, starts: Tensor | None = None
) -> tuple[Tensor, SLSTMState]:
    """Hidden states (B, L, H, K) and the state after each row's last event; see `slstm_prefill`."""
    B, _, _, H, K = x.shape
    state = state or initial_state(B, H, K, x)
    hidden = []
    for t, x_t in enumerate(x.unbind(1)):
        before = state
        if starts is not None:
            again = starts[:, t, None, None]
            before = SLSTMState(*(part.masked_fill(again, 0) for part in state))
        h, after = step(x_t, r, before)
        if lengths is not None:
            inside = (t < lengths)[:, None, None]
            after = SLSTMState(*(torch.where(inside, new, old) for new, old in zip(after, state, strict=True)))
        hidden.append(h.to(x.dtype))
        state = after
    return torch.stack(hidden, 1) if hidden else x[:, :, 0], state
