"""How near the top the one right answer stands.

With a single target per case, hit rate equals recall and average precision equals reciprocal rank:
they share a function, are all stored, and are printed once.

Shapes: M cases. Ranks count from 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ranks = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def recall(ranks: Ranks, k: int) -> Values:
    """1 where the target is among the first `k`."""
    return (ranks <= k).astype(np.float64)


def precision(ranks: Ranks, k: int) -> Values:
    """The share of the first `k` that is right: 1/k or 0."""
    return recall(ranks, k) / k


def mrr(ranks: Ranks, k: int) -> Values:
    """One over the rank, 0 beyond `k`."""
    return recall(ranks, k) / ranks


def ndcg(ranks: Ranks, k: int) -> Values:
    """1 / log2(rank + 1), 0 beyond `k`; the ideal gain is 1 (Järvelin and Kekäläinen, 2002)."""
    return recall(ranks, k) / np.log2(ranks + 1.0)
