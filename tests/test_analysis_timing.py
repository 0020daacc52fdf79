"""Coverage and gaps against counting one event at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histories import TIMED, History, sequences_of, small_blocks
from seqrec.analysis.timing import GAPS, coverage, gaps

#: 1 January 2024, 00:00:00 UTC, in milliseconds: a Monday.
START = 1_704_067_200_000
DAY = 86_400_000


@pytest.mark.parametrize(
    ("days", "unit", "first", "bars"),
    [(0, "day", "2024-01-03", 1), (91, "day", "2024-01-03", 92), (92, "week", "2024-01-01", 14),
     (1000, "month", "2024-01", 33), (10_000, "month", "2024-01", 329), (20_000, "year", "2024", 55)],
)  # fmt: skip
def test_time_is_cut_as_finely_as_can_be_read(days: int, unit: str, first: str, bars: int) -> None:
    times = START + 2 * DAY + np.array([0, days]) * DAY
    found = coverage(times)
    assert (found.unit, found.bars.names[0], len(found.bars.names)) == (unit, first, bars)
    assert Counter(found.bars.counts)[0] == bars - len(set(times))


@given(TIMED.filter(any), st.integers(1, 9), st.sampled_from([1, 40_000, DAY]))
def test_gaps_are_between_neighbours_of_one_user(lists: list[History], block: int, unit: int) -> None:
    sequences = sequences_of(lists)
    assert sequences.times is not None
    expected = [(b - a) * unit for events in lists for (_, a), (_, b) in pairwise(events)]
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch, block)
        found = gaps(replace(sequences, times=sequences.times * unit))
    assert found is not None
    assert dict(enumerate(found.bars.counts)) == {
        place: sum(low <= gap < high for gap in expected) for place, (low, high) in enumerate(pairwise((*GAPS, 10**15)))
    }
    apart = [gap / 1000 for gap in expected if gap]
    assert found.median == (pytest.approx(np.median(apart)) if apart else None)


def test_without_times_there_are_no_gaps() -> None:
    assert gaps(replace(sequences_of([[(1, 2), (2, 3)]]), times=None)) is None
