"""eSASRec: Tikhonovich et al., "eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion", RecSys
2025.

SASRec with the blocks of Borisyuk et al., "From Features to Transformers: Redefining Ranking for Scalable Impact"
(LiGR), 2025: what attention and the feed-forward layer add passes a gate, computed from the block's stream before its
norm. Trained with softmax over the target and uniform negatives, whose scores are not corrected for their draws. No
norm stands after the last block, as in the authors' code; there, positions are counted from the last event.

Shapes: B rows, L positions, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from seqrec.config import Choice, Range
from seqrec.data.batches import Batch
from seqrec.kernels.fused import swiglu
from seqrec.models.layers import Dropout, SwiGLU, add_and_norm
from seqrec.models.sasrec import CausalAttention, SASRec, SASRecConfig


class ESASRecConfig(SASRecConfig):
    """As SASRec, scored as published: by dot products without a bias."""

    similarity: Literal["dot", "cosine"] = "dot"
    item_bias: bool = Field(False, description="a learned offset per item, dot scores only")

    space: ClassVar[Mapping[str, Choice | Range]] = {
        "embedding_dim": Choice(64, 128, 256),
        "num_heads": Choice(1, 2, 4, 8),
        "num_blocks": Choice(1, 2, 4),
        "feedforward_factor": Choice(1, 2, 4),
        "dropout": Range(0.1, 0.6),
        "similarity": Choice("dot", "cosine"),
    }


class ESASRec(SASRec):
    """`SASRec` with gated blocks of attention and SwiGLU."""

    Config = ESASRecConfig
    default_loss: ClassVar[Mapping[str, Any]] = {
        "name": "sampled_softmax",
        "num_negatives": 256,
        "sampling": "uniform",
        "logq": False,
    }
    final_norm = False

    def make_block(self, config: SASRecConfig) -> nn.Module:
        return GatedBlock(config)

    def _query(self, x: Tensor, y: Tensor | None) -> Tensor:
        """What items are compared with (..., D), from what the top block leaves and would add."""
        return self.items.query(x if y is None else x + self.dropout(y))


class GatedBlock(nn.Module):
    """x + sigmoid(gate(x)) * attention(norm(x)), then the same with a feed-forward layer; dropout on both branches.

    The second sum is left to who comes next: see `add_and_norm`. An entry is dropped with its gate, which comes to
    the same as dropping it before.
    """

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        D, hidden = config.embedding_dim, int(config.embedding_dim * config.feedforward_factor)
        self.attention_norm = nn.LayerNorm(D)
        self.attention = CausalAttention(config)
        self.attention_gate = nn.Linear(D, D)
        self.feedforward: SwiGLU | None = None
        if hidden:
            self.feedforward_norm = nn.LayerNorm(D)
            self.feedforward = SwiGLU(D, hidden)
            self.feedforward_gate = nn.Linear(D, D)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BLD: Tensor, y_BLD: Tensor | None) -> tuple[Tensor, Tensor]:
        """From the stream and what the block before would add to it to the same after this block."""
        x_BLD, normed_BLD = add_and_norm(x_BLD, y_BLD, self.attention_norm, self.dropout)
        return self._feed(x_BLD, self.attention(normed_BLD))

    def last(self, x_BLD: Tensor, y_BLD: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """What `forward` gives after the last event of each row, (B, D) both."""
        x_BLD, normed_BLD = add_and_norm(x_BLD, y_BLD, self.attention_norm, self.dropout)
        return self._feed(batch.last(x_BLD), self.attention.last(normed_BLD, batch))

    def _feed(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The stream and what to add to it (..., D), from the stream and what attention saw."""
        y = torch.sigmoid(self.attention_gate(x)) * seen
        if self.feedforward is None:
            return x, y
        x, normed = add_and_norm(x, y, self.feedforward_norm, self.dropout)
        hidden = self.dropout(swiglu(self.feedforward.gate_up(normed)))
        return x, torch.sigmoid(self.feedforward_gate(x)) * self.feedforward.down(hidden)
