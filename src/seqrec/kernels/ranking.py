"""Where a target stands among all items, and which items stand first.

Shapes: B cases, N items (column j is item j + 1), P pairs of (case, item) to leave out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqrec.errors import ScoreError


def require_finite(scores_BN: Tensor, what: str) -> None:
    """Refuse NaN and infinity: NaN compares false with everything, so it would rank first.

    Raises:
        ScoreError: naming the first offending case and item.
    """
    finite = torch.isfinite(scores_BN)
    if not bool(finite.all()):
        row, column = (int(x) for x in (~finite).nonzero()[0])
        raise ScoreError(
            f"{what} gave {scores_BN[row, column].item()} for item {column + 1} in case {row}; "
            "only finite scores can be ranked. Was training stable (see `seqrec runs show`)?"
        )


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


def top_items(scores_BN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Items (B, k) int64 and their scores (B, k), best first; item 0 stands where nothing is left to show.

    Of items with equal scores the one with the smaller number stands first, on every device.
    """
    k_here = min(k, scores_BN.shape[1])
    columns = _order_keys(scores_BN).topk(k_here, dim=1).indices
    scores = scores_BN.gather(1, columns)
    items = torch.where(scores > -torch.inf, columns + 1, 0)
    missing = k - k_here
    if missing > 0:
        items = torch.nn.functional.pad(items, (0, missing))
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
    return items, scores


def _order_keys(scores_BN: Tensor) -> Tensor:
    """Integers (B, N) in the order of the scores in float32, ties by column: topk alone breaks ties as it likes."""
    bits = (scores_BN.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal to 0.0
    ascending = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return ascending * 2**31 - torch.arange(scores_BN.shape[1], device=scores_BN.device)
