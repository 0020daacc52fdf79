"""Ranking where the catalogue is cut among ranks finds what ranking the whole finds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ranks import on_ranks
from seqrec.distributed import Ranks
from seqrec.evaluation.sharded import rank_over_shards
from seqrec.kernels.ranking import Ranked, rank
from seqrec.kernels.sharded_softmax import Shard

CASES, ITEMS = 40, 17


def _problem() -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Scores with many ties, one row without a number; targets, some of which were seen."""
    draw = torch.Generator().manual_seed(5)
    scores = torch.randint(0, 6, (CASES, ITEMS), generator=draw).float()
    scores[3, 9] = torch.nan
    targets = torch.randint(1, ITEMS + 1, (CASES,), generator=draw)
    rows = torch.arange(CASES).repeat_interleave(5)
    seen = torch.randint(1, ITEMS + 1, (CASES * 5,), generator=draw)
    rows, seen = torch.cat([rows, torch.full((ITEMS,), 7)]), torch.cat([seen, torch.arange(1, ITEMS + 1)])
    return scores, targets, (rows, seen)


def _ranked(ranks: Ranks, k: int, filtered: bool) -> Any:
    scores, targets, seen = _problem()
    sizes = ranks.parts(ITEMS)
    low = sum(sizes[: ranks.rank])
    part = scores[:, low : low + sizes[ranks.rank]].clone()
    return tuple(rank_over_shards(part, targets, seen if filtered else None, k, Shard(low, ITEMS, ranks)))


@pytest.mark.parametrize(("k", "filtered"), [(3, True), (10, False), (25, True)])
def test_ranks_and_lists_are_those_of_the_whole(k: int, filtered: bool) -> None:
    scores, targets, seen = _problem()
    expected = rank(scores.clone(), targets, seen if filtered else None, k)
    rows = expected.finite
    for found in on_ranks(3, _ranked, k, filtered):
        found = Ranked(*found)
        assert found.finite.equal(rows)
        assert int((~rows).sum()) == 1
        assert found.ranks[rows].equal(expected.ranks[rows])
        assert found.items[rows].equal(expected.items[rows])
