"""SASRec: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018.

Causal self-attention over the history, pre-norm. Trained with softmax over the whole catalogue instead of
the paper's binary loss, after Klenitskiy and Vasilev, "Turning Dross Into Gold Loss", RecSys 2023.

Shapes: B rows, L positions, D width, H heads, K head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.data.batches import Batch
from seqrec.models.base import ItemVectors, SequenceModel
from seqrec.models.layers import ItemTable, StackConfig


class SASRecConfig(StackConfig):
    """Nothing beyond what every stack has."""


class SASRec(SequenceModel):
    """Item vectors plus positions, then blocks of attention and feed-forward layers, then a norm."""

    Config = SASRecConfig

    def __init__(self, config: SASRecConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.items = ItemTable(config, num_items)
        self.positions = nn.Parameter(torch.randn(config.max_length, config.embedding_dim) * 0.1)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(config.embedding_dim)

    def encode(self, batch: Batch) -> Tensor:
        x_BLD = self.embed(batch)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        return self.items.query(self.norm(x_BLD))

    def embed(self, batch: Batch) -> Tensor:
        """What enters the first block (B, L, D)."""
        if batch.items.shape[1] > len(self.positions):
            raise ValueError(
                f"histories of {batch.items.shape[1]} events; max_length is {len(self.positions)}: cut them"
            )
        return self.dropout(self.items(batch.items) + self.positions[: batch.items.shape[1]])

    def item_vectors(self) -> ItemVectors:
        return self.items.vectors()

    def inspect(self, batch: Batch) -> dict[str, Tensor]:
        """`attention.<block>` (B, H, L, L): softmax weights, computed without the fused kernel that hides them."""
        x_BLD, found = self.embed(batch), {}
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            found[f"attention.{number}"] = block.attention.weights(block.attention_norm(x_BLD))
            x_BLD = block(x_BLD)
        return found


class Block(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x))."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        D, hidden = config.embedding_dim, int(config.embedding_dim * config.feedforward_factor)
        self.attention_norm = nn.LayerNorm(D)
        self.attention = CausalAttention(config)
        self.feedforward_norm = nn.LayerNorm(D)
        self.feedforward = nn.Sequential(
            nn.Linear(D, hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, D),
            nn.Dropout(config.dropout),
        )

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD + self.attention(self.attention_norm(x_BLD))
        return x_BLD + self.feedforward(self.feedforward_norm(x_BLD))


class CausalAttention(nn.Module):
    """Each position attends to itself and earlier ones. Padding stands on the right, so no valid position sees it."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.embedding_dim, 3 * config.embedding_dim)
        self.out = nn.Linear(config.embedding_dim, config.embedding_dim)

    def forward(self, x_BLD: Tensor) -> Tensor:
        q, k, v = self._heads(x_BLD)
        dropout = self.dropout if self.training else 0.0
        y_BHLK = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        y_BLD = self.out(y_BHLK.transpose(1, 2).flatten(2))
        return F.dropout(y_BLD, self.dropout, self.training)

    def weights(self, x_BLD: Tensor) -> Tensor:
        """The softmax weights (B, H, L, L) that `forward` applies, without dropout."""
        q, k, _ = self._heads(x_BLD)
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        causal = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
        return logits.masked_fill(~causal, -torch.inf).softmax(-1)

    def _heads(self, x_BLD: Tensor) -> tuple[Tensor, ...]:
        """q, k and v (B, H, L, K)."""
        return self.qkv(x_BLD).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
