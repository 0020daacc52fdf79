"""Ranks and lists from as many scores at a time as memory is for: whole rows where they fit, else blocks of items.

Nothing looks back at the host, but where items come in several blocks: then it learns how many seen ones each has.

Shapes: B cases, N items (column j is item j + 1), n items of one block, k places, P pairs of (case, item) left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from seqrec.kernels.ranking.scores import Pairs, exclude, finite_rows, target_ranks
from seqrec.kernels.ranking.top import merge, top_items


class Ranked(NamedTuple):
    """What `rank` finds.

    Attributes:
        ranks: (B,) int64 as `target_ranks` gives them.
        items: (B, k) int64 as `top_items` gives them.
        finite: (B,) bool, whether all scores of the case were finite. Where not, the rest means nothing.
    """

    ranks: Tensor
    items: Tensor
    finite: Tensor


def rank(scores_BN: Tensor, targets_B: Tensor, seen: Pairs | None, k: int) -> Ranked:
    """Ranks of the targets and the first `k` items of each row; what was seen is set to -inf in `scores_BN`."""
    finite_B = finite_rows(scores_BN)
    if seen is not None:
        exclude(scores_BN, *seen)
    return Ranked(target_ranks(scores_BN, targets_B), top_items(scores_BN, k)[0], finite_B)


def rank_in_blocks(
    score: Callable[[int, int], Tensor], num_items: int, size: int, targets_B: Tensor, seen: Pairs | None, k: int
) -> Ranked:
    """As `rank`, holding the scores of `size` items at a time.

    With several blocks all scores are made twice: counting starts from the target's score, and that has to be the one
    that stands in its block, since a product over other columns may be rounded otherwise.

    Args:
        score: fresh scores (B, n) of the columns from one number up to another.
    """
    if size >= num_items:
        return rank(score(0, num_items), targets_B, seen, k)
    blocks = _Blocks(score, [*range(0, num_items, size), num_items], seen)
    target_B1 = blocks.scores_of(targets_B)
    ranks_B = (target_B1[:, 0] == -torch.inf).long()
    finite_B = torch.ones_like(ranks_B, dtype=torch.bool)
    lists: tuple[Tensor, Tensor] | None = None
    for start, scores_Bn, finite in blocks:
        finite_B &= finite
        ranks_B += (scores_Bn >= target_B1).sum(1)
        items_Bk, found_Bk = top_items(scores_Bn, k)
        more = torch.where(items_Bk > 0, items_Bk + start, 0), found_Bk
        lists = more if lists is None else merge(lists, more)
    assert lists is not None
    return Ranked(ranks_B, lists[0], finite_B)


@dataclass(frozen=True)
class _Blocks:
    """Where each block starts, its scores (B, n) without what was seen, and whether rows were finite before (B,)."""

    score: Callable[[int, int], Tensor]
    bounds: list[int]
    seen: Pairs | None

    def __iter__(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        parts = [None] * (len(self.bounds) - 1) if self.seen is None else _split(self.seen, self.bounds)
        for (start, stop), pairs in zip(pairwise(self.bounds), parts, strict=True):
            scores_Bn = self.score(start, stop)
            finite_B = finite_rows(scores_Bn)
            if pairs is not None:
                exclude(scores_Bn, *pairs)
            yield start, scores_Bn, finite_B

    def scores_of(self, targets_B: Tensor) -> Tensor:
        """(B, 1) the target's score in each row, -inf where it was seen."""
        found_B1: Tensor | None = None
        for start, scores_Bn, _ in self:
            column_B1 = (targets_B - 1 - start)[:, None]
            last = scores_Bn.shape[1] - 1
            here_B1 = scores_Bn.gather(1, column_B1.clamp(0, last))
            inside_B1 = (column_B1 >= 0) & (column_B1 <= last)
            found_B1 = here_B1 if found_B1 is None else torch.where(inside_B1, here_B1, found_B1)
        assert found_B1 is not None
        return found_B1


def _split(seen: Pairs, bounds: list[int]) -> list[Pairs]:
    """The pairs of each block of columns, items counted from where it starts."""
    rows_P, items_P = seen
    items_P, order_P = items_P.sort()
    rows_P = rows_P[order_P]
    cuts = torch.searchsorted(items_P, torch.tensor(bounds, device=items_P.device), right=True).tolist()
    spans = zip(bounds[:-1], pairwise(cuts), strict=True)
    return [(rows_P[first:last], items_P[first:last] - start) for start, (first, last) in spans]
