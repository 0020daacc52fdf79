"""BERT4Rec: Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from
Transformer", CIKM 2019.

Trained to fill gaps, of which it sees both sides: see `cloze`. Blocks are pre-norm, which trains more steadily than
the paper's post-norm.

Shapes: B rows, L positions, D width, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from seqrec.config import Switch
from seqrec.data.batches import Batch
from seqrec.kernels.dropout import dropout
from seqrec.kernels.fused import split
from seqrec.models import cloze
from seqrec.models.base import ItemVectors, SequenceModel
from seqrec.models.layers import Dropout, ItemTable


class BERT4RecConfig(cloze.ClozeConfig):
    """What every stack that fills gaps has, and positions."""

    positions: bool = Field(True, description="a learned vector per position; without, a history is a set")

    switches: ClassVar[Mapping[str, Switch]] = {
        "positions": Switch({"positions": False}),
        "feedforward": Switch({"feedforward_factor": 0}),
        "last_masked": Switch({"last_share": 0}),
    }


class BERT4Rec(SequenceModel):
    """Item vectors plus positions, then blocks of attention to both sides, then the paper's projection."""

    Config = BERT4RecConfig
    config: BERT4RecConfig
    bidirectional = True
    reads_ratings = True

    def __init__(self, config: BERT4RecConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        D, self.mask_number = config.embedding_dim, num_items + 1
        self.items = ItemTable(config, num_items)
        self.mask = nn.Parameter(torch.randn(D) * 0.1)
        # One position more than events are read: there stands the MASK that asks for the next one.
        if config.positions:
            self.positions = nn.Parameter(torch.randn(config.max_length + 1, D) * 0.1)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(D)

    def training_batch(self, batch: Batch) -> tuple[Batch, Tensor]:
        """The same rows with MASK in some places, and what stood there as targets (B, L), PAD elsewhere."""
        return cloze.gaps(batch, self.config, self.mask_number)

    def encode(self, batch: Batch) -> Tensor:
        x_BLD, valid_BL = self.embed(batch), batch.valid
        for block in self.blocks:
            x_BLD = block(x_BLD, valid_BL)
        return self.items.query(self.norm(x_BLD))

    def embed(self, batch: Batch) -> Tensor:
        """What enters the first block (B, L, D)."""
        L = batch.items.shape[1]
        if batch.items.shape[1] > self.config.max_length + 1:
            raise ValueError(f"{L} places with MASK; max_length is {self.config.max_length}: cut histories")
        x_BLD = cloze.embed(self.items, self.mask, batch, self.mask_number)
        return self.dropout(x_BLD + self.positions[:L] if self.config.positions else x_BLD)

    def item_vectors(self) -> ItemVectors:
        return self.items.vectors()

    def query(self, batch: Batch) -> Tensor:
        return super().query(self.with_mask(batch))

    def with_mask(self, batch: Batch) -> Batch:
        """Histories with MASK after their last event, and nothing behind it: what scores are read from."""
        return cloze.with_mask(batch, self.mask_number)

    def inspect(self, batch: Batch) -> dict[str, Tensor]:
        """`attention.<block>` (B, H, L+1, L+1): softmax weights over the history and the MASK after it, whose row, at
        the history's length, is what a recommendation rests on."""
        batch = self.with_mask(batch)
        x_BLD, found = self.embed(batch), {}
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            found[f"attention.{number}"] = block.attention.weights(block.attention_norm(x_BLD), batch.valid)
            x_BLD = block(x_BLD, batch.valid)
        return found


class Block(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x))."""

    def __init__(self, config: BERT4RecConfig) -> None:
        super().__init__()
        D, hidden = config.embedding_dim, int(config.embedding_dim * config.feedforward_factor)
        self.attention_norm = nn.LayerNorm(D)
        self.attention = Attention(config)
        self.feedforward: nn.Sequential | None = None
        if hidden:
            self.feedforward_norm = nn.LayerNorm(D)
            self.feedforward = nn.Sequential(
                nn.Linear(D, hidden),
                nn.GELU(),
                nn.Linear(hidden, D),
                Dropout(config.dropout),
            )

    def forward(self, x_BLD: Tensor, valid_BL: Tensor) -> Tensor:
        x_BLD = x_BLD + self.attention(self.attention_norm(x_BLD), valid_BL)
        return x_BLD if self.feedforward is None else x_BLD + self.feedforward(self.feedforward_norm(x_BLD))


class Attention(nn.Module):
    """Each position attends to every event of its row, later ones too. No row of weights is empty: a history has an
    event, and padding looks at events as well, though nobody looks at padding."""

    def __init__(self, config: BERT4RecConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.embedding_dim, 3 * config.embedding_dim)
        self.out = nn.Linear(config.embedding_dim, config.embedding_dim)

    def forward(self, x_BLD: Tensor, valid_BL: Tensor) -> Tensor:
        q, k, v = self._heads(x_BLD)
        share = self.dropout if self.training else 0.0
        y_BHLK = F.scaled_dot_product_attention(q, k, v, attn_mask=valid_BL[:, None, None], dropout_p=share)
        return dropout(self.out(y_BHLK.transpose(1, 2).flatten(2)), share)

    def weights(self, x_BLD: Tensor, valid_BL: Tensor) -> Tensor:
        """The softmax weights (B, H, L, L) that `forward` applies, without dropout."""
        q, k, _ = self._heads(x_BLD)
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        return logits.masked_fill(~valid_BL[:, None, None], -torch.inf).softmax(-1)

    def _heads(self, x_BLD: Tensor) -> tuple[Tensor, ...]:
        """q, k and v (B, H, L, K)."""
        return tuple(part.transpose(1, 2) for part in split(self.qkv(x_BLD), 3, self.num_heads, -1))
