"""What every mixer of an xLSTM is asked for, and what those with a cell share.

Shapes: B rows, L positions, D width, H heads, K head width, W convolution width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.data.batches import NO_TIME, Batch
from seqrec.kernels.fused import causal_conv_silu
from seqrec.models.xlstm.config import XLSTMConfig
from seqrec.models.xlstm.facts import PLACE_FACTS, TIME_FACTS, Facts, elapsed, events_before

#: A named tuple of tensors, and of named tuples of tensors, whose first dimension is the row.
MixerState = Any


@dataclass(frozen=True)
class Rows:
    """A batch as a block reads it.

    Attributes:
        lengths: (B,) events per row.
        valid: (B, L) bool, where there is an event, if attention may look at both sides of a position.
        facts: what forget gates see of each position (B, L, ...): the time since the event read before, where the model
            uses times and they are known, and how many were read.
        order: (B, L) the position that is read at each place, if rows are read backwards. It undoes itself.
    """

    lengths: Tensor
    valid: Tensor | None = None
    facts: Facts = field(default_factory=Facts)
    order: Tensor | None = None

    @classmethod
    def forwards(cls, batch: Batch, config: XLSTMConfig) -> Self:
        """Oldest event first."""
        return cls(batch.lengths, batch.valid if config.bidirectional else None, _facts(batch, batch.times, config))

    @classmethod
    def backwards(cls, batch: Batch, config: XLSTMConfig) -> Self:
        """Newest event first, padding still behind the last one read."""
        places_L = torch.arange(batch.items.shape[1], device=batch.items.device)
        order_BL = torch.where(batch.valid, batch.lengths[:, None] - 1 - places_L, places_L)
        times_BL = None if batch.times is None else batch.times.gather(1, order_BL)
        return cls(batch.lengths, batch.valid, _facts(batch, times_BL, config), order_BL)

    def last(self, x: Tensor) -> Tensor:
        """`x` (B, L, ...) at the last event of each row, read forwards."""
        return x[torch.arange(len(x), device=x.device), self.lengths - 1]

    def turn(self, x: Tensor, dim: int = 1) -> Tensor:
        """`x` (B, ...), positions along `dim`, from the order of events to that of reading, or back."""
        if self.order is None:
            return x
        shape = [1] * x.dim()
        shape[0], shape[dim] = self.order.shape
        return x.gather(dim, self.order.view(shape).expand_as(x))


class Mixer(nn.Module, ABC):
    """Mixes events along time: whole rows, whole rows with what they leave behind, or one event after a state."""

    @abstractmethod
    def forward(self, x_BLD: Tensor, rows: Rows) -> Tensor:
        """(B, L, D) for every position."""

    @abstractmethod
    def initial_state(self, batch: int) -> MixerState:
        """The state before any event."""

    @abstractmethod
    def prefill(self, x_BLD: Tensor, rows: Rows) -> tuple[Tensor, MixerState]:
        """As `forward`, and the state after each row's last event."""

    @abstractmethod
    def step(self, x_BD: Tensor, state: MixerState, facts: Facts) -> tuple[Tensor, MixerState]:
        """(B, D) for one more event per row, and the state after it."""

    @abstractmethod
    def inspect(self, x_BLD: Tensor, rows: Rows) -> dict[str, Tensor]:
        """`attention` (B, H, L, L), and gates (B, H, L) where there are any."""


class CellState(NamedTuple):
    """What the cell remembers, and the inputs (B, W-1, D) the convolution still needs."""

    cell: Any
    recent: Tensor


class CellMixer(Mixer):
    """A mixer with a cell of `width`: a causal convolution before it, gates that may see facts, a norm per head."""

    def __init__(self, config: XLSTMConfig, width: int) -> None:
        super().__init__()
        self.width, self.num_heads = width, config.num_heads
        self.conv_width = max(config.conv_width, 1)
        self.conv_kernel: nn.Parameter | None = None
        self.conv_bias: nn.Parameter | None = None
        if self.conv_width > 1:
            self.conv_kernel = nn.Parameter(torch.randn(width, 1, self.conv_width) * self.conv_width**-0.5)
            self.conv_bias = nn.Parameter(torch.zeros(width))
        self.taps = self.conv_kernel, self.conv_bias
        self.head_norm = nn.Parameter(torch.ones(width)) if config.head_norm else None
        # They start at zero: a model that knows the time starts as the one that does not.
        heads = self.num_heads
        self.time_gate = nn.Parameter(torch.zeros(heads, TIME_FACTS)) if config.time_gate else None
        self.position_gate = nn.Parameter(torch.zeros(heads, PLACE_FACTS)) if config.position_gate else None

    def share_convolution(self, other: CellMixer) -> None:
        """Use that of `other` from now on."""
        self.conv_kernel, self.conv_bias = self.taps = other.taps

    def convolve(self, x_BLD: Tensor) -> Tensor:
        """Each position with the W-1 before it."""
        if self.conv_kernel is None or self.conv_bias is None:
            return x_BLD
        return causal_conv_silu(x_BLD, self.conv_kernel, self.conv_bias)

    def convolve_step(self, x_BD: Tensor, recent: Tensor) -> tuple[Tensor, Tensor]:
        """One more event, and the inputs still needed after it. One sum costs less than a convolution is set up for."""
        kernel, bias = self.taps
        if kernel is None or bias is None:
            return x_BD, recent
        window_BWD = torch.cat([recent, x_BD.unsqueeze(1)], 1)
        return F.silu((window_BWD * kernel.squeeze(1).mT).sum(1) + bias), window_BWD[:, 1:]

    def recent(self, x_BLD: Tensor, lengths: Tensor) -> Tensor:
        """The inputs (B, W-1, D) that the convolution needs after each row's last event."""
        window = lengths[:, None] + torch.arange(self.conv_width - 1, device=x_BLD.device)
        padded = F.pad(x_BLD, (0, 0, self.conv_width - 1, 0))
        return padded.gather(1, window[..., None].expand(-1, -1, x_BLD.shape[-1]))

    def no_recent(self, batch: int, like: Tensor) -> Tensor:
        """What `recent` is before any event."""
        return like.new_zeros(batch, self.conv_width - 1, self.width)

    def forget_shift(self, facts: Facts) -> Tensor | None:
        """(..., H) from the facts there are, to be added to forget gates before their activation."""
        pairs = zip(facts, (self.time_gate, self.position_gate), strict=True)
        shifts = [F.linear(x.to(weight.dtype), weight) for x, weight in pairs if x is not None and weight is not None]
        return torch.stack(shifts).sum(0) if shifts else None


def _facts(batch: Batch, times_BL: Tensor | None, config: XLSTMConfig) -> Facts:
    """Of each position, in the order of reading."""
    since = None if times_BL is None else elapsed(F.pad(times_BL[:, :-1], (1, 0), value=NO_TIME), times_BL)
    places = torch.arange(batch.items.shape[1], device=batch.items.device)
    return Facts(since, events_before(places).expand(len(batch), -1, -1) if config.position_gate else None)
