"""Ranks and lists over a catalogue whose vectors lie on several ranks: each scores its own items for the same cases.

What travels per case is the target's score, a count, and k items with their scores from each rank.

Shapes: B cases, S items of this rank, k places, R ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqrec.kernels.ranking import Pairs, Ranked, exclude, finite_rows, top_items
from seqrec.kernels.sharded_softmax import Shard


def rank_over_shards(scores_BS: Tensor, targets_B: Tensor, seen: Pairs | None, k: int, shard: Shard) -> Ranked:
    """As `seqrec.kernels.ranking.rank`, of this rank's scores; all ranks call it with the same cases."""
    ranks, size = shard.ranks, scores_BS.shape[1]
    finite_B = ranks.maximum((~finite_rows(scores_BS)).int()) == 0
    if seen is not None:
        rows_P, items_P = seen
        held_P = (items_P > shard.low) & (items_P <= shard.low + size)
        exclude(scores_BS, rows_P[held_P], items_P[held_P] - shard.low)
    column_B = targets_B - 1 - shard.low
    nearest_B = column_B.clamp(0, size - 1)
    target_B = scores_BS.gather(1, nearest_B[:, None])[:, 0].masked_fill(column_B != nearest_B, -torch.inf)
    target_B = ranks.maximum(target_B)
    ranks_B = ranks.sum((scores_BS >= target_B[:, None]).sum(1)) + (target_B == -torch.inf)
    items_Bk, scores_Bk = top_items(scores_BS, k)
    items_Bk = torch.where(items_Bk > 0, items_Bk + shard.low, 0)
    items, scores = (
        ranks.gather(x).unflatten(0, (ranks.size, -1)).transpose(0, 1).flatten(1) for x in (items_Bk, scores_Bk)
    )
    places_Bk, _ = top_items(scores, k)  # of equals the one further left, which has the smaller number
    return Ranked(ranks_B, torch.where(places_Bk > 0, items.gather(1, (places_Bk - 1).clamp(min=0)), 0), finite_B)
