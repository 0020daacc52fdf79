"""The attention mixer of hybrid stacks: softmax attention that knows how far apart events are.

The bias per head and distance is that of Raffel et al., "Exploring the Limits of Transfer Learning with a Unified
Text-to-Text Transformer" (T5), 2020: near distances have one of their own, far ones share theirs by logarithm.

Its state is a ring of the keys and values of the last `max_length` events, so that rows of any age fit one batch:
event number e lies at e mod max_length. Work per event is bounded by `max_length`; nothing looks back further.

Shapes: B rows, L positions, D width, H heads, K head width, M = max_length, N buckets of distance.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.kernels.fused import split
from seqrec.models.xlstm.config import XLSTMConfig
from seqrec.models.xlstm.facts import Facts
from seqrec.models.xlstm.mixers import Mixer, Rows

#: Buckets of distance to one side; the first half holds one distance each.
BUCKETS = 32


class AttentionState(NamedTuple):
    """`keys` and `values` (B, H, M, K) by event number mod M, and how many events there were (B,)."""

    keys: Tensor
    values: Tensor
    events: Tensor


class AttentionMixer(Mixer):
    """Each position attends to itself and the M-1 before it; in a bidirectional model to every event of its row."""

    buckets: Tensor

    def __init__(self, config: XLSTMConfig) -> None:
        super().__init__()
        D, self.num_heads, self.reach = config.embedding_dim, config.num_heads, config.max_length
        self.qkv = nn.Linear(D, 3 * D, bias=False)
        self.out = nn.Linear(D, D, bias=False)
        self.distance_bias = nn.Parameter(torch.zeros(BUCKETS * (2 if config.bidirectional else 1), self.num_heads))
        self.register_buffer("buckets", distance_buckets(self.reach), persistent=False)

    def forward(self, x_BLD: Tensor, rows: Rows) -> Tensor:
        q, k, v = self._heads(x_BLD)
        return self._attend(q, k, v, self._bias(x_BLD.shape[1], rows))

    def initial_state(self, batch: int) -> AttentionState:
        weight = self.out.weight
        ring = weight.new_zeros(batch, self.num_heads, self.reach, len(weight) // self.num_heads)
        return AttentionState(ring, ring.clone(), torch.zeros(batch, dtype=torch.int64, device=weight.device))

    def prefill(self, x_BLD: Tensor, rows: Rows) -> tuple[Tensor, AttentionState]:
        q, k, v = self._heads(x_BLD)
        newest_B1 = rows.lengths[:, None] - 1
        places_M = torch.arange(self.reach, device=x_BLD.device)
        event_BM = newest_B1 - (newest_B1 - places_M) % self.reach  # the newest event that belongs at each place
        index = event_BM.clamp(min=0)[:, None, :, None].expand(-1, self.num_heads, -1, k.shape[-1])
        keys, values = (part.gather(2, index).masked_fill(event_BM[:, None, :, None] < 0, 0) for part in (k, v))
        return self._attend(q, k, v, self._bias(x_BLD.shape[1], rows)), AttentionState(
            keys, values, rows.lengths.clone()
        )

    def step(self, x_BD: Tensor, state: AttentionState, facts: Facts) -> tuple[Tensor, AttentionState]:
        q, k, v = self._heads(x_BD[:, None])
        distance_BM = (state.events[:, None] - torch.arange(self.reach, device=x_BD.device)) % self.reach
        new = (distance_BM == 0)[:, None, :, None]
        keys, values = torch.where(new, k, state.keys), torch.where(new, v, state.values)
        bias_BMH = F.embedding(self.buckets[distance_BM], self.distance_bias)
        bias_BMH = bias_BMH.masked_fill((distance_BM > state.events[:, None])[..., None], -torch.inf)
        y_BLD = self._attend(q, keys, values, bias_BMH.mT[:, :, None])
        return y_BLD[:, 0], AttentionState(keys, values, state.events + 1)

    def inspect(self, x_BLD: Tensor, rows: Rows) -> dict[str, Tensor]:
        q, k, _ = self._heads(x_BLD)
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        return {"attention": (logits + self._bias(x_BLD.shape[1], rows)).softmax(-1)}

    def _heads(self, x_BLD: Tensor) -> tuple[Tensor, ...]:
        """q, k and v (B, H, L, K)."""
        return tuple(part.transpose(1, 2) for part in split(self.qkv(x_BLD), 3, self.num_heads, -1))

    def _bias(self, length: int, rows: Rows) -> Tensor:
        """What is added to logits (1 or B, H, L, L): by distance, and -inf where a position must not look. None of
        its rows is all -inf: a position sees itself, or every event of its row."""
        places_L = torch.arange(length, device=self.buckets.device)
        distance_LL = places_L[:, None] - places_L
        bucket_LL = self.buckets[distance_LL.abs().clamp(max=self.reach - 1)]
        if rows.valid is None:
            hidden = (distance_LL < 0) | (distance_LL >= self.reach)
        else:
            bucket_LL, hidden = bucket_LL + BUCKETS * (distance_LL < 0), ~rows.valid[:, None, None]
        bias_HLL = F.embedding(bucket_LL, self.distance_bias).permute(2, 0, 1).contiguous()  # as fused kernels need it
        return bias_HLL[None].masked_fill(hidden, -torch.inf)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        y_BHLK = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.out(y_BHLK.transpose(1, 2).flatten(2))


def distance_buckets(reach: int) -> Tensor:
    """The bucket (reach,) of each distance 0, 1, ...: half of them hold one, the others share the rest by logarithm."""
    near = BUCKETS // 2
    far = torch.arange(reach).clamp(min=near).double() / near
    logarithmic = near + (far.log() / max(math.log(reach / near), 1e-9) * (BUCKETS - near)).long()
    return torch.where(torch.arange(reach) < near, torch.arange(reach), logarithmic.clamp(max=BUCKETS - 1))
