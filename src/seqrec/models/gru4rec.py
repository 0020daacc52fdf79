"""GRU4Rec: Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016.

A gated recurrent unit over the history and a dense layer on top, scored against the item table that events enter by
("constrained embedding" in the authors' later code). Trained with softmax over the whole catalogue instead of the
paper's ranking losses over a few items. One event costs the same work however long the history is: see `step`.

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
from seqrec.models.layers import Dropout, ItemTable, Recurrence, RecurrentState


class GRU4RecConfig(SequenceModelConfig):
    """How deep the recurrence is."""

    num_layers: int = Field(1, ge=1, description="GRU layers on top of each other")

    space: ClassVar[Mapping[str, Choice | Range]] = {"num_layers": Choice(1, 2)}


class GRU4Rec(SequenceModel):
    """Item vectors, then GRU layers, then a dense layer. Order is in the recurrence: there are no positions."""

    Config = GRU4RecConfig
    reads_ratings = True

    def __init__(self, config: GRU4RecConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        D, between = config.embedding_dim, config.dropout if config.num_layers > 1 else 0.0
        self.items = ItemTable(config, num_items)
        self.dropout = Dropout(config.dropout)
        self.recurrence = Recurrence(nn.GRU(D, D, config.num_layers, batch_first=True, dropout=between), gru_cell)
        self.out = nn.Linear(D, D)

    def encode(self, batch: Batch) -> Tensor:
        return self._query(self.recurrence(self.dropout(self.items(batch.items, batch.values))))

    def item_vectors(self) -> ItemVectors:
        return self.items.vectors()

    def initial_state(self, batch: int) -> RecurrentState:
        """What `batch` empty histories leave behind: h alone, (B, K, D)."""
        return self.recurrence.initial_state(batch)

    def prefill(self, batch: Batch) -> tuple[Tensor, RecurrentState]:
        """Read whole histories: hidden states after the last event (B, D), and the state there."""
        state = self.recurrence.prefill(self.items(batch.items, batch.values), batch.lengths)
        return self._query(state[0][:, -1]), state

    def step(
        self,
        items_B: Tensor,
        state: RecurrentState,
        times_B: Tensor | None = None,
        values_B: Tensor | None = None,
    ) -> tuple[Tensor, RecurrentState]:
        """Take one more event per row: hidden states (B, D), and the state after it. Its time is not looked at."""
        y_BD, state = self.recurrence.step(self.items(items_B, values_B), state)
        return self._query(y_BD), state

    def _query(self, h: Tensor) -> Tensor:
        return self.items.query(self.out(self.dropout(h)))


def gru_cell(input_BG: Tensor, hidden_BG: Tensor, state: RecurrentState) -> RecurrentState:
    """h (B, D) after one position, as nn.GRU computes it."""
    (r, z, n), (hidden_r, hidden_z, hidden_n) = input_BG.chunk(3, -1), hidden_BG.chunk(3, -1)
    update = torch.sigmoid(z + hidden_z)
    candidate = torch.tanh(n + torch.sigmoid(r + hidden_r) * hidden_n)
    return ((1 - update) * candidate + update * state[0],)
