"""Linear recurrences one event at a time, differentiated by autograd: the oracle of faster forms.

Shapes: B rows, L positions, D channels, N numbers that a channel remembers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def linear_recurrence(a: Tensor, b: Tensor) -> Tensor:
    """h (B, L, D); see `seqrec.kernels.scan.linear_recurrence`."""
    h, found = torch.zeros_like(b[:, 0]), []
    for b_BD in b.unbind(1):
        h = a * h + b_BD
        found.append(h)
    return torch.stack(found, 1)


def selective_scan(x: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the last state (B, D, N); see `seqrec.kernels.scan.selective_scan`."""
    state, found = x.new_zeros(len(x), *rate.shape), []
    for x_BD, step_BD, write_BN, read_BN in zip(*(part.unbind(1) for part in (x, step, write, read)), strict=True):
        y_BD, state = selective_step(x_BD, step_BD, rate, write_BN, read_BN, state)
        found.append(y_BD)
    return torch.stack(found, 1), state


def selective_step(
    x: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One event: x and step (B, D), write and read (B, N), state (B, D, N). Returns y (B, D) and the state after it."""
    decay = torch.exp(step[..., None] * rate)
    state = torch.addcmul((step * x)[..., None] * write[:, None], decay, state)
    return (state @ read[..., None])[..., 0], state
