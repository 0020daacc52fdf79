"""Random histories with times, as lists of (item, time) and as sequences; and blocks so small that they end often."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from seqrec.data.sequences import Sequences

N = 6
#: One list of (item, time) per user, sorted by time; some are empty.
History = list[tuple[int, int]]
TIMED = st.lists(
    st.lists(st.tuples(st.integers(1, N), st.integers(0, 20)), max_size=9).map(
        lambda events: sorted(events, key=lambda event: event[1])
    ),
    min_size=1,
    max_size=7,
)


def sequences_of(histories: list[History]) -> Sequences:
    lengths = np.array([len(history) for history in histories])
    ends = np.cumsum(lengths)
    flat = [event for history in histories for event in history]
    return Sequences(
        items=np.array([item for item, _ in flat], dtype=np.int32),
        starts=ends - lengths,
        ends=ends,
        num_items=N,
        times=np.array([time for _, time in flat], dtype=np.int64),
    )


def small_blocks(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Work in blocks of `size` events, as on logs of hundreds of millions."""
    for module in ("spool", "sequences", "ordering", "interactions"):
        monkeypatch.setattr(f"seqrec.data.{module}.BLOCK", size)
