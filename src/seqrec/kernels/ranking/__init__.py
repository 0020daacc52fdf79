"""Where a target stands among all items, and which items stand first: ranks by counting, lists by groups of columns.

`scores` has what is done to scores of (cases, items), `top` finds the first items, and `blocks` does all of it to as
many scores at a time as memory is for.
"""

from __future__ import annotations

from seqrec.kernels.ranking.blocks import Ranked, rank, rank_in_blocks
from seqrec.kernels.ranking.scores import Pairs, exclude, finite_rows, require_finite, target_ranks
from seqrec.kernels.ranking.top import top_items

__all__ = [
    "Pairs",
    "Ranked",
    "exclude",
    "finite_rows",
    "rank",
    "rank_in_blocks",
    "require_finite",
    "target_ranks",
    "top_items",
]
