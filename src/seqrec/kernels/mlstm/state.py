"""What an mLSTM cell remembers between events.

Shapes: B rows, H heads, K key width, V value width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Log of an input gate that lets nothing in; finite, so that differences of such logs are not NaN.
CLOSED = -1e30


class MLSTMState(NamedTuple):
    """`memory` (B, H, K, V) and `normaliser` (B, H, K), both times exp(-`log_scale`) (B, H).

    The scale is free: kernels choose it to keep numbers in range, and no gradient goes through it.
    """

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
