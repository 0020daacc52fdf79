"""LSTM: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, over the history, with a gated layer on top.

The cell mixes items along time; a residual SwiGLU layer (Shazeer, "GLU Variants Improve Transformer", 2020) then
works on each position alone. Scored against the item table that events enter by. One event costs the same work
however long the history is: see `step`.

Shapes: B rows, L positions, D width, K layers, G gates times width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from seqrec.config import Choice, Range
from seqrec.data.batches import Batch
from seqrec.models.base import ItemVectors, SequenceModel, SequenceModelConfig
from seqrec.models.layers import Dropout, ItemTable, Recurrence, RecurrentState, SwiGLU


class LSTMConfig(SequenceModelConfig):
    """How deep the recurrence is, and how wide the layer on top."""

    num_layers: int = Field(1, ge=1, description="LSTM layers on top of each other")
    feedforward_factor: float = Field(4, gt=0, description="width of the gated layer over embedding_dim")

    space: ClassVar[Mapping[str, Choice | Range]] = {"num_layers": Choice(1, 2)}


class LSTM(SequenceModel):
    """Item vectors, then LSTM layers, then the gated head. Order is in the recurrence: there are no positions."""

    Config = LSTMConfig
    reads_ratings = True

    def __init__(self, config: LSTMConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        D, between = config.embedding_dim, config.dropout if config.num_layers > 1 else 0.0
        self.items = ItemTable(config, num_items)
        self.dropout = Dropout(config.dropout)
        self.recurrence = Recurrence(nn.LSTM(D, D, config.num_layers, batch_first=True, dropout=between), lstm_cell)
        self.head = GatedHead(config)

    def encode(self, batch: Batch) -> Tensor:
        x_BLD = self.dropout(self.items(batch.items, batch.values))
        return self.items.query(self.head(self.recurrence(x_BLD)))

    def item_vectors(self) -> ItemVectors:
        return self.items.vectors()

    def initial_state(self, batch: int) -> RecurrentState:
        """What `batch` empty histories leave behind: h and c, (B, K, D) each."""
        return self.recurrence.initial_state(batch)

    def prefill(self, batch: Batch) -> tuple[Tensor, RecurrentState]:
        """Read whole histories: hidden states after the last event (B, D), and the state there."""
        state = self.recurrence.prefill(self.items(batch.items, batch.values), batch.lengths)
        return self.items.query(self.head(state[0][:, -1])), state

    def step(
        self,
        items_B: Tensor,
        state: RecurrentState,
        times_B: Tensor | None = None,
        values_B: Tensor | None = None,
    ) -> tuple[Tensor, RecurrentState]:
        """Take one more event per row: hidden states (B, D), and the state after it. Its time is not looked at."""
        y_BD, state = self.recurrence.step(self.items(items_B, values_B), state)
        return self.items.query(self.head(y_BD)), state


class GatedHead(nn.Module):
    """x + feedforward(norm(x)), then a norm."""

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__()
        D = config.embedding_dim
        self.dropout = Dropout(config.dropout)
        self.feedforward_norm = nn.RMSNorm(D, eps=1e-6)
        self.feedforward = SwiGLU(D, int(D * config.feedforward_factor))
        self.norm = nn.RMSNorm(D, eps=1e-6)

    def forward(self, h: Tensor) -> Tensor:
        h = self.dropout(h)
        return self.norm(h + self.dropout(self.feedforward(self.feedforward_norm(h))))


def lstm_cell(input_BG: Tensor, hidden_BG: Tensor, state: RecurrentState) -> RecurrentState:
    """h and c (B, D) after one position, as nn.LSTM computes them."""
    i, f, g, o = (input_BG + hidden_BG).chunk(4, -1)
    c_BD = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c_BD), c_BD
