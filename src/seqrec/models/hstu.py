"""HSTU: Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative
Recommendations", ICML 2024.

Attention without softmax: how strongly an event speaks is kept, not only its share. A fourth projection gates what
was gathered, and there is no feed-forward layer. As in the authors' experiments on public data sets, histories have
learned positions too. Norms have weights, as in the authors' later code; they start where norms without any are.

Sums are divided by `max_length`, as theirs by the length that all rows are padded to, so padding changes nothing.

Shapes: B rows, L positions, D width, H heads, K head width of queries and keys, V of values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from seqrec.config import Choice, Range, Switch
from seqrec.data.batches import NO_TIME, Batch
from seqrec.models.base import ItemVectors, SequenceModel, SequenceModelConfig
from seqrec.models.layers import Dropout, ItemTable, add_and_norm

#: Added to variances; it matters here, since sums over short histories are small.
EPSILON = 1e-6
#: Logits of what must not be seen: SiLU, and its slope, are exactly 0 there.
HIDDEN = -1e4
#: Times apart share a bias if their logarithms in seconds, over LOG_STEP, have the same whole part, up to BUCKETS.
BUCKETS, LOG_STEP = 128, 0.301


class HSTUConfig(SequenceModelConfig):
    """Widths, how many layers, and what attention knows beside the items."""

    num_heads: int = Field(2, ge=1)
    num_blocks: int = Field(4, ge=1)
    attention_factor: float = Field(1, gt=0, description="width of all queries, and of all keys, over embedding_dim")
    linear_factor: float = Field(1, gt=0, description="width of all values, and of their gates, over embedding_dim")
    positions: bool = Field(True, description="learned vectors of positions, beside the bias by distance")
    time_bias: bool = Field(False, description="a bias by the time between two events too; needs clock times")

    space: ClassVar[Mapping[str, Choice | Range]] = {
        "embedding_dim": Choice(64, 128, 256),
        "num_heads": Choice(1, 2, 4, 8),
        "num_blocks": Choice(2, 3, 4, 6, 8),
        "dropout": Range(0.1, 0.6),
        "positions": Choice(True, False),
    }
    switches: ClassVar[Mapping[str, Switch]] = {
        "positions": Switch({"positions": False}),
        "time_bias": Switch({"time_bias": False}),
    }

    @property
    def attention_dim(self) -> int:
        """K, the width of a head's queries and keys."""
        return round(self.embedding_dim * self.attention_factor) // self.num_heads

    @property
    def linear_dim(self) -> int:
        """V, the width of a head's values."""
        return round(self.embedding_dim * self.linear_factor) // self.num_heads

    @model_validator(mode="after")
    def _heads_divide_widths(self) -> Self:
        for name in ("attention_factor", "linear_factor"):
            width = round(self.embedding_dim * getattr(self, name), 6)  # 100 * 1.1 is a little more than 110
            if width % self.num_heads:
                raise ValueError(f"embedding_dim * {name} is {width:g}, not a multiple of num_heads {self.num_heads}")
        return self


class HSTU(SequenceModel):
    """Item vectors plus positions, then transduction units, then a norm.

    The authors' bias by time looks at the time from an event to the next item, which is known only once the target
    has happened. Here it is the time between two known events, so that nothing tells when the target happens.
    """

    Config = HSTUConfig
    reads_ratings = True
    config: HSTUConfig

    def __init__(self, config: HSTUConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.uses_times = config.time_bias
        self.items = ItemTable(config, num_items)
        self.positions: nn.Parameter | None = None
        if config.positions:
            self.positions = nn.Parameter(torch.randn(config.max_length, config.embedding_dim) * 0.1)
        self.dropout = Dropout(config.dropout)
        self.units = nn.ModuleList(Unit(config) for _ in range(config.num_blocks))
        self.norm = nn.RMSNorm(config.embedding_dim, eps=EPSILON)

    def encode(self, batch: Batch) -> Tensor:
        x_BLD, y_BLD, apart = self.embed(batch), None, self._apart(batch)
        for unit in self._units():
            x_BLD, y_BLD = unit(x_BLD, y_BLD, apart)
        return self._query(x_BLD, y_BLD)

    def last_state(self, batch: Batch) -> Tensor:
        """In the top unit only the last event looks back."""
        *below, top = self._units()
        x_BLD, y_BLD, apart = self.embed(batch), None, self._apart(batch)
        for unit in below:
            x_BLD, y_BLD = unit(x_BLD, y_BLD, apart)
        return self._query(*top.last(x_BLD, y_BLD, apart, batch))

    def embed(self, batch: Batch) -> Tensor:
        """What enters the first unit (B, L, D)."""
        length = batch.items.shape[1]
        if length > self.config.max_length:
            raise ValueError(f"histories of {length} events; max_length is {self.config.max_length}: cut them")
        x_BLD = self.items(batch.items, batch.values)
        return self.dropout(x_BLD if self.positions is None else x_BLD + self.positions[:length])

    def item_vectors(self) -> ItemVectors:
        return self.items.vectors()

    def inspect(self, batch: Batch) -> dict[str, Tensor]:
        """`attention.<block>` (B, H, L, L): what values are multiplied by. Rows need not sum to 1, nor be positive."""
        x_BLD, y_BLD, apart, found = self.embed(batch), None, self._apart(batch), {}
        for number, unit in enumerate(self._units()):
            found[f"attention.{number}"] = unit.weights(x_BLD, y_BLD, apart)
            x_BLD, y_BLD = unit(x_BLD, y_BLD, apart)
        return found

    def _apart(self, batch: Batch) -> Tensor | None:
        """The bucket (B, L, L) of the time between each two events, or None where no unit asks or nobody knows."""
        return None if batch.times is None or not self.uses_times else time_buckets(batch.times)

    def _query(self, x: Tensor, y: Tensor | None) -> Tensor:
        """What items are compared with (..., D), from what the top unit leaves and would add."""
        return self.items.query(add_and_norm(x, y, self.norm, NO_DROPOUT, x.dtype)[1])

    def _units(self) -> list[Unit]:
        return list(self.units)  # type: ignore[arg-type]


class Unit(nn.Module):
    """x + out(norm(attention) * gate), of norm(x), with dropout before `out`.

    The sum is left to who comes next: see `add_and_norm`.
    """

    def __init__(self, config: HSTUConfig) -> None:
        super().__init__()
        D, self.num_heads, self.reach = config.embedding_dim, config.num_heads, config.max_length
        values, keys = config.linear_dim * config.num_heads, config.attention_dim * config.num_heads
        self.widths = [values, values, keys, keys]
        self.norm = nn.LayerNorm(D, eps=EPSILON)
        self.uvqk = nn.Linear(D, sum(self.widths), bias=False)
        self.distance_bias = nn.Parameter(torch.randn(config.max_length) * 0.02)
        self.time_bias = nn.Parameter(torch.randn(BUCKETS + 1) * 0.02) if config.time_bias else None
        self.attention_norm = nn.LayerNorm(values, eps=EPSILON)
        self.dropout = Dropout(config.dropout)
        self.out = nn.Linear(values, D)
        nn.init.normal_(self.uvqk.weight, std=0.02)
        nn.init.xavier_uniform_(self.out.weight)

    def forward(self, x_BLD: Tensor, y_BLD: Tensor | None, apart: Tensor | None) -> tuple[Tensor, Tensor]:
        """From the stream and what the unit before would add to it to the same after this unit."""
        x_BLD, gate, v, q, k = self._project(x_BLD, y_BLD)
        return x_BLD, self._gather(F.silu(self._logits(q, k, self._bias(q.shape[2], apart))), v, gate)

    def last(self, x_BLD: Tensor, y_BLD: Tensor | None, apart: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """What `forward` gives after the last event of each row, (B, D) both."""
        x_BLD, gate, v, q, k = self._project(x_BLD, y_BLD)
        q_BH1K = batch.last(q.transpose(1, 2))[:, :, None]
        bias_BLL = self._bias(q.shape[2], apart).expand(len(batch), -1, -1)
        seen = F.silu(self._logits(q_BH1K, k, batch.last(bias_BLL)[:, None]))
        return batch.last(x_BLD), self._gather(seen, v, batch.last(gate)[:, None])[:, 0]

    def weights(self, x_BLD: Tensor, y_BLD: Tensor | None, apart: Tensor | None) -> Tensor:
        """What `forward` multiplies values by (B, H, L, L)."""
        _, _, _, q, k = self._project(x_BLD, y_BLD)
        return F.silu(self._logits(q, k, self._bias(q.shape[2], apart))) / self.reach

    def _project(self, x_BLD: Tensor, y_BLD: Tensor | None) -> tuple[Tensor, ...]:
        """The stream, the gate (B, L, H V), and v, q and k (B, H, L, V or K)."""
        x_BLD, normed_BLD = add_and_norm(x_BLD, y_BLD, self.norm, NO_DROPOUT)
        gate, *vqk = F.silu(self.uvqk(normed_BLD)).split(self.widths, -1)
        return x_BLD, gate, *(part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in vqk)

    def _bias(self, length: int, apart: Tensor | None) -> Tensor:
        """What is added to logits (1 or B, L, L): by distance and by time, and HIDDEN for later events."""
        backwards_L = self.distance_bias[:length].flip(0)
        bias_LL = F.pad(backwards_L, (0, length - 1), value=HIDDEN).unfold(0, length, 1).flip(0)
        if self.time_bias is None or apart is None:
            return bias_LL[None]
        by_bucket = F.pad(self.time_bias, (0, 1))[:, None]  # nothing where nobody knows
        return bias_LL + F.embedding(apart, by_bucket)[..., 0]

    def _logits(self, q: Tensor, k: Tensor, bias_BLL: Tensor) -> Tensor:
        """What SiLU is applied to (B, H, L or 1, L), of queries and keys (B, H, L or 1, K)."""
        return q @ k.mT + bias_BLL[:, None].to(q.dtype)

    def _gather(self, seen: Tensor, v: Tensor, gate: Tensor) -> Tensor:
        """The branch (B, L or 1, D), of weights times max_length, values and gates."""
        y_BLV = (seen @ v).transpose(1, 2).flatten(2) / self.reach
        normed_BLV = add_and_norm(y_BLV, None, self.attention_norm, NO_DROPOUT)[1]
        return self.out(self.dropout(normed_BLV * gate))


#: Of sums: a unit drops entries of what it gathered instead.
NO_DROPOUT = Dropout(0.0)


def time_buckets(times_BL: Tensor) -> Tensor:
    """The bucket (B, L, L) int64 of the time between each two events: the whole part of the logarithm of the seconds,
    over LOG_STEP, up to BUCKETS; one more, BUCKETS + 1, where nobody knows.

    Args:
        times_BL: (B, L) int64 milliseconds, NO_TIME where unknown.
    """
    known_BL = times_BL != NO_TIME
    ms_BL = times_BL.masked_fill(~known_BL, 0)
    seconds_BLL = (ms_BL[:, :, None] - ms_BL[:, None]).abs().double() / 1000
    buckets_BLL = (seconds_BLL.clamp(min=1).log() / LOG_STEP).long().clamp(max=BUCKETS)
    return buckets_BLL.masked_fill(~(known_BL[:, :, None] & known_BL[:, None]), BUCKETS + 1)
