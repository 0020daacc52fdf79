"""SASRec: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018.

Causal self-attention over the history, pre-norm. Trained with softmax over the whole catalogue instead of
the paper's binary loss, after Klenitskiy and Vasilev, "Turning Dross Into Gold Loss", RecSys 2023.

Shapes: B rows, L positions, D width, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from seqrec.config import Switch
from seqrec.data.batches import Batch
from seqrec.kernels.dropout import dropout
from seqrec.kernels.fused import gelu_dropout, split
from seqrec.models.base import ItemVectors, SequenceModel
from seqrec.models.layers import Dropout, ItemTable, StackConfig, add_and_norm


class SASRecConfig(StackConfig):
    """What every stack has, and positions."""

    positions: bool = Field(True, description="a learned vector per position; without, only the causal mask has order")

    switches: ClassVar[Mapping[str, Switch]] = {
        "positions": Switch({"positions": False}),
        "feedforward": Switch({"feedforward_factor": 0}),
    }


class SASRec(SequenceModel):
    """Item vectors plus positions, then blocks of attention and feed-forward layers, then a norm."""

    Config = SASRecConfig
    reads_ratings = True
    config: SASRecConfig
    #: Whether a norm stands after the last block.
    final_norm: ClassVar[bool] = True

    def __init__(self, config: SASRecConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.items = ItemTable(config, num_items)
        if config.positions:
            self.positions = nn.Parameter(torch.randn(config.max_length, config.embedding_dim) * 0.1)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(self.make_block(config) for _ in range(config.num_blocks))
        if self.final_norm:
            self.norm = nn.LayerNorm(config.embedding_dim)

    def make_block(self, config: SASRecConfig) -> nn.Module:
        """One of the stack: what `Block` has, with other layers inside where a model is made so."""
        return Block(config)

    def encode(self, batch: Batch) -> Tensor:
        x_BLD, y_BLD = self.embed(batch), None
        for block in self.blocks:
            x_BLD, y_BLD = block(x_BLD, y_BLD)
        return self._query(x_BLD, y_BLD)

    def last_state(self, batch: Batch) -> Tensor:
        """In the top block, positions before the last are only looked at: they need keys and values there, no more."""
        *below, top = self._blocks()
        x_BLD, y_BLD = self.embed(batch), None
        for block in below:
            x_BLD, y_BLD = block(x_BLD, y_BLD)
        return self._query(*top.last(x_BLD, y_BLD, batch))

    def embed(self, batch: Batch) -> Tensor:
        """What enters the first block (B, L, D)."""
        L = batch.items.shape[1]
        if self.config.max_length < L:
            raise ValueError(f"histories of {L} events; max_length is {self.config.max_length}: cut them")
        x_BLD = self.items(batch.items, batch.values)
        return self.dropout(x_BLD + self.positions[:L] if self.config.positions else x_BLD)

    def item_vectors(self) -> ItemVectors:
        return self.items.vectors()

    def inspect(self, batch: Batch) -> dict[str, Tensor]:
        """`attention.<block>` (B, H, L, L): softmax weights, computed without the fused kernel that hides them."""
        x_BLD, y_BLD, found = self.embed(batch), None, {}
        for number, block in enumerate(self._blocks()):
            x_BLD, seen_BLD = add_and_norm(x_BLD, y_BLD, block.attention_norm, self.dropout)
            found[f"attention.{number}"] = block.attention.weights(seen_BLD)
            x_BLD, y_BLD = block(x_BLD, None)
        return found

    def _blocks(self) -> list[Any]:
        return list(self.blocks)

    def _query(self, x: Tensor, y: Tensor | None) -> Tensor:
        """What items are compared with (..., D), from what the top block leaves and would add."""
        return self.items.query(add_and_norm(x, y, self.norm, self.dropout, x.dtype)[1])


class Block(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x)), with dropout on both branches.

    The second sum is left to who comes next: see `add_and_norm`.
    """

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        D, hidden = config.embedding_dim, int(config.embedding_dim * config.feedforward_factor)
        self.attention_norm = nn.LayerNorm(D)
        self.attention = CausalAttention(config)
        self.feedforward: nn.Sequential | None = None
        if hidden:
            self.feedforward_norm = nn.LayerNorm(D)
            self.feedforward = nn.Sequential(
                nn.Linear(D, hidden),
                nn.GELU(),
                Dropout(config.dropout),
                nn.Linear(hidden, D),
            )
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BLD: Tensor, y_BLD: Tensor | None) -> tuple[Tensor, Tensor]:
        """From the stream and what the block before would add to it to the same after this block."""
        x_BLD, y_BLD = add_and_norm(x_BLD, y_BLD, self.attention_norm, self.dropout)
        return self._feed(x_BLD, self.attention(y_BLD))

    def last(self, x_BLD: Tensor, y_BLD: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """What `forward` gives after the last event of each row, (B, D) both."""
        x_BLD, y_BLD = add_and_norm(x_BLD, y_BLD, self.attention_norm, self.dropout)
        return self._feed(batch.last(x_BLD), self.attention.last(y_BLD, batch))

    def _feed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The feed-forward layer, where there is one; GELU and dropout in it are one pass over memory."""
        if self.feedforward is None:
            return x, y
        x, y = add_and_norm(x, y, self.feedforward_norm, self.dropout)
        widen, _, _, narrow = self.feedforward
        return x, narrow(gelu_dropout(widen(y), self.dropout.p if self.training else 0.0))


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
        share = self.dropout if self.training else 0.0
        if share and x_BLD.device.type == "cpu":  # torch has no fused kernel for this either
            y_BHLK = dropout(_softmax(q, k), share) @ v
        else:
            y_BHLK = F.scaled_dot_product_attention(q, k, v, dropout_p=share, is_causal=True)
        return self.out(y_BHLK.transpose(1, 2).flatten(2))

    def last(self, x_BLD: Tensor, batch: Batch) -> Tensor:
        """What `forward` gives after the last event of each row (B, D)."""
        D = x_BLD.shape[-1]
        (to_q, to_kv), (q_bias, kv_bias) = (part.tensor_split((D,)) for part in (self.qkv.weight, self.qkv.bias))
        q_BHK = F.linear(batch.last(x_BLD), to_q, q_bias).unflatten(-1, (self.num_heads, -1))
        kv_BL2HK = F.linear(x_BLD, to_kv, kv_bias).unflatten(-1, (2, self.num_heads, -1))
        k_BHLK, v_BHLK = kv_BL2HK.permute(2, 0, 3, 1, 4).unbind(0)
        share = self.dropout if self.training else 0.0
        shown_B11L = batch.valid[:, None, None]
        y_BH1K = F.scaled_dot_product_attention(q_BHK[:, :, None], k_BHLK, v_BHLK, shown_B11L, dropout_p=share)
        return self.out(y_BH1K.flatten(1))

    def weights(self, x_BLD: Tensor) -> Tensor:
        """The softmax weights (B, H, L, L) that `forward` applies, without dropout."""
        q, k, _ = self._heads(x_BLD)
        return _softmax(q, k)

    def _heads(self, x_BLD: Tensor) -> tuple[Tensor, ...]:
        """q, k and v (B, H, L, K)."""
        return tuple(part.transpose(1, 2) for part in split(self.qkv(x_BLD), 3, self.num_heads, -1))


def _softmax(q: Tensor, k: Tensor) -> Tensor:
    """Causal weights (B, H, L, L) of queries and keys (B, H, L, K)."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
    return logits.masked_fill_(later, -torch.inf).softmax(-1)
