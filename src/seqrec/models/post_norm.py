"""What two models share that mix events by a linear recurrence: item vectors, dropout and a norm, then blocks of a
mixer and a position-wise feed-forward layer, each added to the stream and normalised after that (post-norm).

The arrangement is that of Mamba4Rec and LRURec, whose public code agree in it. Order is in the recurrence: there are
no positions. One event costs the same work however long the history is: see `PostNormStack.step`.

Shapes: B rows, L positions, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from seqrec.config import Choice, Range
from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD
from seqrec.kernels.fused import gelu_dropout
from seqrec.models.base import ItemVectors, SequenceModel, SequenceModelConfig
from seqrec.models.layers import Dropout, ItemTable, add_and_norm

#: What a mixer remembers between events: a named tuple of tensors whose first dimension is the row.
MixerState = Any


class PostNormConfig(SequenceModelConfig):
    """How deep and how wide the stack is."""

    num_blocks: int = Field(2, ge=1)
    feedforward_factor: float = Field(4, gt=0, description="width of the feed-forward layer over embedding_dim")

    space: ClassVar[Mapping[str, Choice | Range]] = {
        "embedding_dim": Choice(64, 128, 256),
        "num_blocks": Choice(1, 2, 3),
        "dropout": Range(0.1, 0.6),
    }


class Mixer(nn.Module, ABC):
    """Mixes events along time: whole rows with what they leave behind, or one event after a state."""

    @abstractmethod
    def initial_state(self, batch: int) -> MixerState:
        """The state before any event."""

    @abstractmethod
    def forward(self, x_BLD: Tensor, lengths_B: Tensor | None = None) -> tuple[Tensor, MixerState]:
        """(B, L, D) for every position, and the state after the last event of each row; None: every row has L."""

    @abstractmethod
    def step(self, x_BD: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """(B, D) for one more event per row, and the state after it."""


class PostNormStack(SequenceModel):
    """The model but for what its blocks mix events with.

    Args:
        mixers: one for each block, bottom first.
        residual: whether what a mixer gives is added to the stream, or takes its place.
        eps: added to the variance in norms.
    """

    Config = PostNormConfig
    config: PostNormConfig
    unknown: Tensor

    def __init__(
        self, config: PostNormConfig, num_items: int, mixers: Sequence[Mixer], *, residual: bool, eps: float
    ) -> None:
        super().__init__(config, num_items)
        self.items = ItemTable(config, num_items)
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.embedding_dim, eps)
        self.blocks = nn.ModuleList(Block(config, mixer, residual, eps) for mixer in mixers)
        self.register_buffer("unknown", 1.0 - 2.0 * (torch.arange(config.embedding_dim) % 2), persistent=False)

    def encode(self, batch: Batch) -> Tensor:
        x_BLD = self.embed(batch.items)
        for block in self._blocks():
            x_BLD = block.feed(x_BLD, block.mixer(x_BLD)[0])
        return self.items.query(x_BLD)

    def last_state(self, batch: Batch) -> Tensor:
        """What the top block does to each event by itself, it does to the last one only."""
        x_BLD, (*below, top) = self.embed(batch.items), self._blocks()
        for block in below:
            x_BLD = block.feed(x_BLD, block.mixer(x_BLD)[0])
        return self.items.query(top.feed(batch.last(x_BLD), batch.last(top.mixer(x_BLD)[0])))

    def embed(self, items: Tensor) -> Tensor:
        """What enters the first block (..., D), of items (...).

        An event that is hidden in training gets a vector that is like no item's: a norm of zeros is zero and has no
        direction, and from there its gradient would grow without bound.
        """
        x = self.dropout(self.items(items))
        if self.training:
            x = torch.where((items == PAD)[..., None], self.unknown.to(x.dtype), x)
        return self.norm(x)

    def item_vectors(self) -> ItemVectors:
        return self.items.vectors()

    def initial_state(self, batch: int) -> tuple[MixerState, ...]:
        """What `batch` empty histories leave behind, by block."""
        return tuple(block.mixer.initial_state(batch) for block in self._blocks())

    def prefill(self, batch: Batch) -> tuple[Tensor, tuple[MixerState, ...]]:
        """Read whole histories: hidden states after the last event (B, D), and the state there."""
        x_BLD, states = self.embed(batch.items), []
        for block in self._blocks():
            y_BLD, state = block.mixer(x_BLD, batch.lengths)
            x_BLD = block.feed(x_BLD, y_BLD)
            states.append(state)
        return self.items.query(batch.last(x_BLD)), tuple(states)

    def step(
        self,
        items_B: Tensor,
        state: tuple[MixerState, ...],
        times_B: Tensor | None = None,
        values_B: Tensor | None = None,
    ) -> tuple[Tensor, tuple[MixerState, ...]]:
        """Take one more event per row: hidden states (B, D), and the state after it. Its time and its rating are not
        looked at."""
        x_BD, after = self.embed(items_B), []
        for block, before in zip(self._blocks(), state, strict=True):
            y_BD, block_state = block.mixer.step(x_BD, before)
            x_BD = block.feed(x_BD, y_BD)
            after.append(block_state)
        return self.items.query(x_BD), tuple(after)

    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]


class Block(nn.Module):
    """norm(x + mixer(x)), then norm(x + feedforward(x)), with dropout on both branches and inside the second."""

    def __init__(self, config: PostNormConfig, mixer: Mixer, residual: bool, eps: float) -> None:
        super().__init__()
        D, hidden = config.embedding_dim, int(config.embedding_dim * config.feedforward_factor)
        self.residual = residual
        self.mixer = mixer
        self.mixer_norm = nn.LayerNorm(D, eps)
        self.widen = nn.Linear(D, hidden)
        self.narrow = nn.Linear(hidden, D)
        self.feedforward_norm = nn.LayerNorm(D, eps)
        self.dropout = Dropout(config.dropout)

    def feed(self, x: Tensor, y: Tensor) -> Tensor:
        """What the block gives (..., D), from what it was given and what its mixer made of that."""
        x = self._add(x, y, self.mixer_norm) if self.residual else self.mixer_norm(self.dropout(y)).to(x.dtype)
        y = self.narrow(gelu_dropout(self.widen(x), self.dropout.p if self.training else 0.0))
        return self._add(x, y, self.feedforward_norm)

    def _add(self, x: Tensor, y: Tensor, norm: nn.LayerNorm) -> Tensor:
        """The stream stays in its own precision."""
        return add_and_norm(x, y, norm, self.dropout, x.dtype)[1]
