"""What an sLSTM cell remembers between events, and the two ways to write it down.

Beck et al., "xLSTM: Extended Long Short-Term Memory", 2024. The paper keeps a cell c and a normaliser n, both times
exp(-m). Only c / n reaches the output, so loops keep u = c / n and the logarithm l = log(n) + m instead.

Shapes: B rows, H heads, K width of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: The logarithm of a normaliser that is zero; finite, so that differences of such logarithms are not NaN.
EMPTY = -1e30


class SLSTMState(NamedTuple):
    """Each (B, H, K). `cell` and `normaliser` are times exp(-`log_scale`).

    Where the normaliser is zero nothing is remembered, whatever the scale. The scale is free: kernels choose it to
    keep numbers in range, and no gradient goes through it.
    """

    hidden: Tensor
    cell: Tensor
    normaliser: Tensor
    log_scale: Tensor


class Mean(NamedTuple):
    """The same state, each (B, H, K): `hidden`, the weighted `mean` u = c / n of past cell inputs, in [-1, 1], and
    the logarithm `log_weight` l of the sum of their weights, `EMPTY` where there are none."""

    hidden: Tensor
    mean: Tensor
    log_weight: Tensor


def initial_state(batch: int, heads: int, width: int, like: Tensor) -> SLSTMState:
    """The state before any event, on the device of `like` and in float32 (float64 if `like` is)."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    zero = torch.zeros(batch, heads, width, device=like.device, dtype=dtype)
    return SLSTMState(zero, zero.clone(), zero.clone(), zero.clone())


def to_mean(state: SLSTMState) -> Mean:
    """Differentiable in all but the scale."""
    empty = state.normaliser == 0
    normaliser = state.normaliser.masked_fill(empty, 1)
    log_weight = normaliser.log() + state.log_scale.detach()
    return Mean(state.hidden, state.cell / normaliser, log_weight.masked_fill(empty, EMPTY))


def after_rows(mean: Mean, before: SLSTMState, lengths: Tensor) -> SLSTMState:
    """The state after rows of these lengths (B,): that of `mean`, or where a row has no event the one before it.

    The scale makes every normaliser 1; the normaliser carries the gradient of its logarithm.
    """
    log_scale = mean.log_weight.detach()
    normaliser = torch.exp(mean.log_weight - log_scale)
    after = SLSTMState(mean.hidden, mean.mean * normaliser, normaliser, log_scale)
    read = (lengths > 0)[:, None, None]
    return SLSTMState(*(torch.where(read, new, old) for new, old in zip(after, before, strict=True)))
