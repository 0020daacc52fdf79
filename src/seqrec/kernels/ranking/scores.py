"""What is done to scores: refused where not finite, left out where seen, counted against a target's.

Shapes: B cases, N items (column j is item j + 1), P pairs of (case, item).
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqrec.errors import ScoreError

#: Cases and items (P,) int64 each: which scores are left out.
Pairs = tuple[Tensor, Tensor]


def require_finite(scores_BN: Tensor, what: str, first_case: int = 0) -> None:
    """Refuse NaN and infinity: NaN compares false with everything, so it would rank first.

    Args:
        first_case: number of the first row.

    Raises:
        ScoreError: naming the first offending case and item.
    """
    finite = torch.isfinite(scores_BN)
    if not bool(finite.all()):
        row, column = (int(x) for x in (~finite).nonzero()[0])
        raise ScoreError(
            f"{what} gave {scores_BN[row, column].item()} for item {column + 1} in case {first_case + row}; "
            "only finite scores can be ranked. Was training stable (see `seqrec runs show`)?"
        )


def finite_rows(scores_BN: Tensor) -> Tensor:
    """(B,) bool, whether all of a row is finite. The ends of a row are cheaper to find than each score to test."""
    return torch.isfinite(scores_BN.amax(1)) & torch.isfinite(scores_BN.amin(1))


def exclude(scores_BN: Tensor, rows_P: Tensor, items_P: Tensor) -> Tensor:
    """Scores with the given (case, item) pairs out of reach: set to -inf in place."""
    scores_BN[rows_P, items_P - 1] = -torch.inf
    return scores_BN


def target_ranks(scores_BN: Tensor, targets_B: Tensor) -> Tensor:
    """Rank (B,) int64 of each target, 1 is best. Items that tie with the target count as before it.

    A target that is itself excluded (-inf) ranks N + 1: it can never be shown.
    """
    target = scores_BN.gather(1, targets_B[:, None] - 1)
    return (scores_BN >= target).sum(1) + (target[:, 0] == -torch.inf)
