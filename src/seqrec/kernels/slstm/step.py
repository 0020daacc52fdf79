"""One event of the sLSTM: what a live session costs, however long its history is.

Shapes: B rows, H heads, K width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.kernels.slstm.state import EMPTY, SLSTMState


def step(x: Tensor, r: Tensor, state: SLSTMState) -> tuple[Tensor, SLSTMState]:
    """Gates x (B, 4, H, K) before activation, r (4, H, K, K). Returns h (B, H, K) and the state after the event.

    Equations 8-18 of Beck et al., 2024, with a sigmoid forget gate.
    """
    dtype = state.cell.dtype
    mixed = (state.hidden.to(dtype).transpose(0, 1) @ r.to(dtype)).permute(2, 0, 1, 3)
    i, f, z, o = (x.to(dtype) + mixed).unbind(1)
    kept = (F.logsigmoid(f) + state.log_scale).masked_fill(state.normaliser == 0, EMPTY)
    m = torch.maximum(kept, i).detach()  # h does not depend on it
    keep, add = torch.exp(kept - m), torch.exp(i - m)
    cell = torch.addcmul(add * torch.tanh(z), keep, state.cell)
    normaliser = torch.addcmul(add, keep, state.normaliser)
    hidden = torch.sigmoid(o) * cell / normaliser
    return hidden, SLSTMState(hidden, cell, normaliser, m)
