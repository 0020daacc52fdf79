"""What the lists do to the catalogue: how much of it is shown, how evenly, and how popular it was anyway.

Shapes: M cases, k places per list, N items. An entry 0 in a list is an empty place.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from seqrec.data.sequences import Ints

Bucket = Literal["head", "mid", "tail"]
BUCKETS: tuple[Bucket, ...] = ("head", "mid", "tail")
#: Items by training count, most popular first: the first 20% are head, the next 30% mid, the rest tail.
HEAD, MID = 0.2, 0.5


def coverage(lists_Mk: Ints, counts_N: Ints) -> float:
    """Share of the catalogue that stands in at least one list."""
    return float(np.mean(_exposure(lists_Mk, len(counts_N)) > 0))


def gini(lists_Mk: Ints, counts_N: Ints) -> float:
    """Inequality of how often items are shown: 0 all alike, 1 a single item takes all."""
    shown = np.sort(_exposure(lists_Mk, len(counts_N)))
    if shown.sum() == 0:
        return 0.0
    n = len(shown)
    return float(((2 * np.arange(1, n + 1) - n - 1) * shown).sum() / (n * shown.sum()))


def mean_popularity(lists_Mk: Ints, counts_N: Ints) -> float:
    """Mean training count of the items shown."""
    shown = lists_Mk[lists_Mk > 0]
    return float(counts_N[shown - 1].mean()) if len(shown) else 0.0


def popularity_bucket(counts_N: Ints) -> npt.NDArray[np.int64]:
    """(N,) 0 for head, 1 for mid, 2 for tail; ties in count are broken by item number."""
    place = np.empty(len(counts_N), dtype=np.int64)
    place[np.argsort(-counts_N, kind="stable")] = np.arange(len(counts_N))
    share = (place + 0.5) / max(len(counts_N), 1)
    return np.digitize(share, [HEAD, MID])


def _exposure(lists_Mk: Ints, num_items: int) -> Ints:
    return np.bincount(lists_Mk.ravel(), minlength=num_items + 1)[1:].astype(np.int64)
