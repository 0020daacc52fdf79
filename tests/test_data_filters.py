"""The k-core against removing one event at a time, and against every subset there is; the others by hand."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from histories import TIMED, History, sequences_of, small_blocks
from seqrec.data.filters import (
    DAY_MS,
    as_sessions,
    in_short_sessions,
    k_core,
    of_busy_users,
    repeated,
    session_starts,
)

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


@pytest.fixture(params=[1, 4, 1000])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    small_blocks(monkeypatch, request.param)
    return int(request.param)


quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_users_and_items_can_have_minima_of_their_own() -> None:
    events = [(0, 0), (0, 1), (1, 0), (1, 0), (2, 0)]
    users, items = np.array(events, dtype=np.int32).T
    assert k_core(users, items, 2, user_k=0).tolist() == [True, False, True, True, True]
    assert k_core(users, items, 0, user_k=2).tolist() == [True, True, True, True, False]


def test_one_pass_goes_by_the_counts_as_they_are() -> None:
    chain = np.array([(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)], dtype=np.int32).T
    assert k_core(*chain, 2, once=True).tolist() == [False, True, True, True, True, False]


@quick
@given(EVENTS, st.integers(0, 4))
def test_blocks_do_not_matter_to_the_core(block: int, events: Events, k: int) -> None:
    assert core(events, k) == slow_core(events, k)


@quick
@given(TIMED)
def test_repeats_are_what_was_there_before(block: int, histories: list[History]) -> None:
    expected = [
        item in [earlier for earlier, _ in history[:place]]
        for history in histories
        for place, (item, _) in enumerate(history)
    ]
    assert repeated(sequences_of(histories)).tolist() == expected


@quick
@given(TIMED, st.integers(1, 4))
def test_busy_users_go_with_all_they_did(block: int, histories: list[History], most: int) -> None:
    days = [[(item, time * DAY_MS // 4) for item, time in history] for history in histories]
    expected = []
    for history in days:
        per_day = Counter(time // DAY_MS for _, time in history)
        expected += [max(per_day.values(), default=0) > most] * len(history)
    assert of_busy_users(sequences_of(days), most).tolist() == expected


@quick
@given(TIMED, st.integers(0, 6))
def test_sessions_end_where_nothing_happens(block: int, histories: list[History], gap: int) -> None:
    sequences = sequences_of(histories)
    expected: list[tuple[int, list[int]]] = []
    for user, history in enumerate(histories):
        for place, (item, time) in enumerate(history):
            if place == 0 or time - history[place - 1][1] > gap:
                expected.append((user, []))
            expected[-1][1].append(item)
    opens = session_starts(sequences, gap)
    sessions, owners = as_sessions(sequences, opens)
    found = [(int(owners[s]), sessions.history(s).tolist()) for s in range(len(sessions))]
    assert found == expected
    short = in_short_sessions(opens, 2)
    assert short.tolist() == [len(items) < 2 for _, items in expected for _ in items]
