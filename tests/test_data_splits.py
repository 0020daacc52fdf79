"""Leave-one-out: what trains, what is asked, and that the two never meet."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.catalogue import catalogue
from seqrec.data.sequences import Cases, Sequences
from seqrec.data.splits import cases_between, leave_one_out, target_hash

N = 9
HISTORIES = st.lists(st.lists(st.integers(1, N), max_size=7), min_size=1, max_size=8)


def targets(sequences: Sequences, cases: Cases) -> dict[int, int]:
    items = sequences.items[cases.positions]
    return {int(user): int(item) for user, item in zip(cases.users, items, strict=True)}


@given(HISTORIES)
def test_the_last_item_is_the_test_and_the_one_before_the_validation(histories: list[list[int]]) -> None:
    sequences = Sequences.of(histories, N)
    split = leave_one_out(sequences)
    long = {user: history for user, history in enumerate(histories) if len(history) >= 3}
    assert targets(sequences, split.test) == {user: history[-1] for user, history in long.items()}
    assert targets(sequences, split.validation) == {user: history[-2] for user, history in long.items()}


@given(HISTORIES)
def test_training_ends_before_what_is_asked(histories: list[list[int]]) -> None:
    sequences = Sequences.of(histories, N)
    split = leave_one_out(sequences)
    train = sequences.until(split.train_ends)
    expected = [history[:-2] if len(history) >= 3 else history for history in histories]
    assert [train.history(user).tolist() for user in range(len(train))] == expected
    trained = {index for start, end in zip(train.starts, train.ends, strict=True) for index in range(start, end)}
    asked = {*split.validation.positions.tolist(), *split.test.positions.tolist()}
    assert not trained & asked
    assert trained | asked == set(range(len(sequences.items)))


@given(HISTORIES)
def test_counts_are_those_of_the_view(histories: list[list[int]]) -> None:
    sequences = Sequences.of(histories, N)
    train = sequences.until(leave_one_out(sequences).train_ends)
    events = [item for user in range(len(train)) for item in train.history(user).tolist()]
    assert train.counts().tolist() == [events.count(item) for item in range(1, N + 1)]
    assert train.num_events == len(events)


@given(HISTORIES)
def test_cases_follow_the_order_of_users(histories: list[list[int]]) -> None:
    split = leave_one_out(Sequences.of(histories, N))
    assert split.test.users.tolist() == split.validation.users.tolist() == sorted(split.test.users.tolist())


def test_splitting_leaves_the_sequences_alone() -> None:
    sequences = Sequences.of([[1, 2, 3, 4]], N)
    leave_one_out(sequences)
    assert sequences.ends.tolist() == [4]


def test_target_hash_is_that_of_sorted_lines_in_ids_of_the_source() -> None:
    sequences = Sequences.of([[1, 2, 3], [3, 1, 2]], 3)
    names, test = catalogue(["x", "ä", "z"]), leave_one_out(sequences).test
    found = target_hash(test, sequences, ["u9", "u10"], names)
    assert found == hashlib.sha256("u10\tä\nu9\tz\n".encode()).hexdigest()
    assert target_hash(test.take(np.array([1, 0])), sequences, ["u9", "u10"], names) == found
    assert target_hash(test, sequences, ["u10", "u9"], names) != found


def test_target_hash_tells_a_frozen_history_from_one_that_goes_on() -> None:
    sequences, names = Sequences.of([[1, 2, 3], [3, 1, 2]], 3), catalogue(["x", "ä", "z"])
    lows, highs = sequences.starts + 1, sequences.ends
    frozen, going_on = (cases_between(sequences, lows, highs, targets) for targets in ("all", "successive"))
    assert frozen.positions.tolist() == going_on.positions.tolist()
    found = target_hash(frozen, sequences, ["u9", "u10"], names)
    assert found == hashlib.sha256("u10\tx\nu10\tä\t1\nu9\tz\t1\nu9\tä\n".encode()).hexdigest()
    assert found != target_hash(going_on, sequences, ["u9", "u10"], names)
