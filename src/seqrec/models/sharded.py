"""An item table cut by rows among ranks, for catalogues that one device cannot hold with their optimiser's state.

Rank r holds the vectors of items low + 1 .. high. A step sends hidden states and sums over positions, never items:

- looking items up: ranks gather each other's item numbers, each finds the vectors that it holds (zeros for others), and
  the sum of these goes back to who asked;
- softmax: see `seqrec.kernels.sharded_softmax`.

Shapes: T positions of one rank, R ranks, D width, N items, S items of one rank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.distributed import Ranks
from seqrec.errors import ConfigError
from seqrec.kernels.sharded_softmax import Shard, sharded_cross_entropy
from seqrec.models.base import SequenceModel
from seqrec.models.layers import ItemTable


class ShardedItemTable(nn.Module):
    """This rank's rows of an `ItemTable`, which it stands in for. All ranks call it together, with equal shapes."""

    def __init__(self, table: ItemTable, ranks: Ranks) -> None:
        super().__init__()
        self.cosine, self.temperature, self.scale = table.cosine, table.temperature, table.scale
        self.ranks = ranks
        self.num_items = len(table.weight) - 1
        self.low = sum(self._sizes[: ranks.rank])
        high = self.low + self._sizes[ranks.rank]
        self.weight = nn.Parameter(table.weight.detach()[1 + self.low : 1 + high].clone())
        self.bias = None if table.bias is None else nn.Parameter(table.bias.detach()[self.low : high].clone())

    def forward(self, items_BL: Tensor, values_BL: None = None) -> Tensor:
        """Vectors (..., D) of items (...); zero for PAD, which no rank holds. No ratings: see `shard_items`."""
        local = self.ranks.gather(items_BL.flatten()) - 1 - self.low
        held = (local >= 0) & (local < len(self.weight))
        found = F.embedding(local.clamp(0, len(self.weight) - 1), self.weight).masked_fill(~held[:, None], 0)
        return sum_of_rows(found, self.ranks).view(*items_BL.shape, -1) * self.scale

    def whole(self, rows: Tensor) -> Tensor:
        """What all ranks hold of the table, its bias or their optimiser's state, as `ItemTable` has it, on the CPU.

        All ranks call it, and rank 0 gets it; on others it is empty.
        """
        found = self.ranks.rows_to_main(rows.detach().cpu(), self._sizes)
        return torch.cat([found.new_zeros(1, found.shape[1]), found]) if found.ndim == 2 and len(found) else found

    def part(self, whole: Tensor) -> Tensor:
        """This rank's rows of what `whole` gave, which only rank 0 needs to have; others bring its shape, empty."""
        return self.ranks.rows_of_main(whole[1:] if whole.ndim == 2 else whole, self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return self.ranks.parts(self.num_items)

    def query(self, h: Tensor) -> Tensor:
        """Hidden states (..., D) as they are compared with `vectors`."""
        return F.normalize(h, dim=-1) / self.temperature if self.cosine else h

    def vectors(self) -> ShardedItemVectors:
        """What hidden states are compared with."""
        weight = F.normalize(self.weight, dim=-1) if self.cosine else self.weight
        return ShardedItemVectors(weight, self.bias, Shard(self.low, self.num_items, self.ranks))


@dataclass(frozen=True)
class ShardedItemVectors:
    """The part of `ItemVectors` that this rank holds.

    Attributes:
        rows: (S, D), row j belongs to item low + j + 1.
        offsets: (S,), or None: what is added to the scores of these items.
    """

    rows: Tensor
    offsets: Tensor | None
    shard: Shard

    def plus(self, offsets_N: Tensor) -> ShardedItemVectors:
        """The same with an offset added to the scores of each item of the whole catalogue."""
        own_S = offsets_N[self.shard.low : self.shard.low + len(self.rows)]
        return replace(self, offsets=own_S if self.offsets is None else self.offsets + own_S)

    def cross_entropy(self, h_TD: Tensor, targets_T: Tensor, label_smoothing: float) -> Tensor:
        """(T,) losses over the whole catalogue; 0 where the target is PAD. All ranks have as many positions."""
        kind = h_TD.device.type
        if torch.is_autocast_enabled(kind):
            h_TD = h_TD.to(torch.get_autocast_dtype(kind))
        return sharded_cross_entropy(h_TD, self.rows, self.offsets, targets_T, self.shard, label_smoothing)

    def local_scores(self, h_BD: Tensor) -> Tensor:
        """Scores (B, S) of the items of this rank."""
        return F.linear(h_BD, self.rows.to(h_BD.dtype), None if self.offsets is None else self.offsets.to(h_BD.dtype))

    def score(self, h_BD: Tensor) -> Tensor:
        """Scores (B, N) of all items, gathered; for hidden states that are the same on all ranks."""
        ranks = self.shard.ranks
        return ranks.gather_uneven(self.local_scores(h_BD).T.contiguous(), ranks.parts(self.shard.num_items)).T

    def plain(self) -> ShardedItemVectors:
        """The same: where only directions count, rows are divided by their lengths already."""
        return self

    def of(self, items: Tensor | None) -> ShardedItemVectors:
        """All items; single ones are scored by a model that is loaded whole."""
        if items is not None:
            raise ConfigError("A sharded table scores the whole catalogue; load the run to score chosen items.")
        return self


def shard_items(model: SequenceModel, ranks: Ranks) -> None:
    """Keep this rank's rows of the model's item table, and drop the others.

    Raises:
        ConfigError: the model has no table called `items`, or one with features, a mixture or ratings; or there are
            fewer items than ranks.
    """
    table = getattr(model, "items", None)
    if not isinstance(table, ItemTable):
        raise ConfigError(f"training.shard_items: {type(model).__name__} has no item table that can be cut.")
    if table.features or table.mixture is not None or table.ratings is not None:
        raise ConfigError(
            "training.shard_items: an item table with model.item_features, model.head=mixture or model.rating_input "
            "cannot be cut; leave one of the two out."
        )
    if model.num_items < ranks.size:
        raise ConfigError(f"training.shard_items: {model.num_items} items cannot be cut among {ranks.size} processes.")
    model.items = ShardedItemTable(table, ranks)


def sharded_table(model: nn.Module) -> ShardedItemTable | None:
    """The model's item table where it is sharded."""
    table = getattr(model, "items", None)
    return table if isinstance(table, ShardedItemTable) else None


def count_parameters(model: nn.Module) -> int:
    """Numbers that the whole model has, on all ranks together."""
    table = sharded_table(model)
    elsewhere = 0 if table is None else table.num_items + 1 - len(table.weight)
    by_item = 0 if table is None else table.weight.shape[1] * elsewhere
    if table is not None and table.bias is not None:
        by_item += table.num_items - len(table.bias)
    return sum(parameter.numel() for parameter in model.parameters()) + by_item


class _SumOfRows(torch.autograd.Function):
    """Rows of the sum over ranks; what they pass back is gathered."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.sum_of_rows(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.gather(gradient), None


def sum_of_rows(x: Tensor, ranks: Ranks) -> Tensor:
    """This rank's rows (T, D) of the sum over ranks of `x` (R * T, D), with a gradient."""
    return _SumOfRows.apply(x, ranks)  # type: ignore[no-untyped-call]
