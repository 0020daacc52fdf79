"""Which events are kept before anything else happens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def k_core(users: npt.NDArray[np.int32], items: npt.NDArray[np.int32], k: int) -> npt.NDArray[np.bool_]:
    """Mask (N,) of the largest part in which every user and every item has at least `k` events.

    Dropping an item can push a user below `k`, and the other way round: passes repeat until nothing drops.

    Args:
        users, items: (N,) codes from 0.
        k: at least this many events; 0 and 1 keep everything.
    """
    keep = np.ones(len(users), dtype=bool)
    while True:
        enough = keep.copy()
        for codes in (users, items):
            counts = np.bincount(codes[keep], minlength=int(codes.max(initial=-1)) + 1)
            enough &= counts[codes] >= k
        if np.array_equal(enough, keep):
            return keep
        keep = enough
