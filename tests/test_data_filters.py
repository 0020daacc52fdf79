"""The k-core against removing one event at a time, and against every subset there is."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.filters import k_core

Events = list[tuple[int, int]]
EVENTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60)


def core(events: Events, k: int) -> list[int]:
    """Indices of the events that stay."""
    users, items = np.array(events, dtype=np.int32).reshape(-1, 2).T
    mask = k_core(users, items, k)
    assert mask.dtype == bool
    assert mask.shape == (len(events),)
    return [int(index) for index in np.flatnonzero(mask)]


def fewest(events: Events) -> int:
    """The fewest events that any user or item in them has."""
    counts = [*Counter(user for user, _ in events).values(), *Counter(item for _, item in events).values()]
    return min(counts, default=10**9)


def slow_core(events: Events, k: int) -> list[int]:
    left = set(range(len(events)))
    while True:
        poor = [
            index
            for index in left
            if any(sum(events[other][side] == events[index][side] for other in left) < k for side in (0, 1))
        ]
        if not poor:
            return sorted(left)
        left.discard(poor[0])


@given(EVENTS, st.integers(0, 5))
def test_what_is_left_is_what_removing_one_at_a_time_leaves(events: Events, k: int) -> None:
    assert core(events, k) == slow_core(events, k)


@given(EVENTS, st.integers(2, 5))
def test_everyone_left_has_enough_and_a_second_pass_takes_nothing(events: Events, k: int) -> None:
    left = [events[index] for index in core(events, k)]
    assert fewest(left) >= k
    assert core(left, k) == list(range(len(left)))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=8), st.integers(2, 3))
def test_no_other_set_of_events_with_enough_lies_outside(events: Events, k: int) -> None:
    left = set(core(events, k))
    for size in range(len(events) + 1):
        for subset in combinations(range(len(events)), size):
            if fewest([events[index] for index in subset]) >= k:
                assert set(subset) <= left


@given(EVENTS, st.integers(0, 1))
def test_zero_and_one_keep_everything(events: Events, k: int) -> None:
    assert core(events, k) == list(range(len(events)))


def test_one_drop_can_undo_everything() -> None:
    """A chain in which each drop leaves the next one short."""
    chain = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)]
    assert core(chain, 2) == []
    assert core([*chain, (3, 0), (3, 3)], 2) == list(range(8))


def test_repeats_count_as_events() -> None:
    assert core([(0, 0), (0, 0), (0, 1)], 2) == [0, 1]
