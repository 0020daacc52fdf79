"""What is shown and what was seen, against slices of lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.batches import NO_TIME, BatchMaker
from seqrec.data.sequences import PAD, Cases, Sequences
from seqrec.evaluation.questions import WIDTHS, Questions

HISTORIES = st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=30), min_size=1, max_size=8)


def asked(histories: list[list[int]], frozen: bool = False) -> Questions:
    """The last event of each history; with `frozen`, asked for from the first one alone."""
    sequences = Sequences.of(histories, 9)
    ends = sequences.starts + 1 if frozen else None
    cases = Cases(np.arange(len(histories)), sequences.ends - 1, ends)
    return Questions.of(cases, BatchMaker(sequences, torch.device("cpu")))


@given(HISTORIES, st.integers(1, 40), st.booleans(), st.data())
def test_histories_and_pairs_are_those_of_lists(
    histories: list[list[int]], events: int, frozen: bool, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(histories))))
    first = data.draw(st.integers(0, len(histories) - 1))
    some = asked(histories, frozen).at(np.array(order)).block(slice(first, first + 3))
    users = order[first : first + 3]
    before = [histories[user][: 1 if frozen else -1] for user in users]
    assert len(some) == len(users)
    assert some.targets.tolist() == [histories[user][-1] for user in users]
    batch = some.histories(events, times=False)
    assert batch.users is not None
    assert batch.users.tolist() == users
    shown = [history[-events:] for history in before]
    width = batch.items.shape[1]
    assert max(map(len, shown)) <= width <= min(events, max(map(len, before)) + WIDTHS - 1)
    assert batch.items.tolist() == [row + [PAD] * (width - len(row)) for row in shown]
    assert batch.lengths.tolist() == [len(row) for row in shown]
    rows, items = some.seen()
    expected = [(row, item) for row, history in enumerate(before) for item in history]
    assert list(zip(rows.tolist(), items.tolist(), strict=True)) == expected


@pytest.mark.parametrize("frozen", [False, True])
def test_lengths_are_those_of_whole_histories(frozen: bool) -> None:
    assert asked([[1, 2], [3, 4, 5, 6]], frozen).lengths.tolist() == ([1, 1] if frozen else [1, 3])


def test_times_stand_beside_the_items_that_are_shown() -> None:
    sequences = Sequences.of([[1, 2, 3], [4, 5]], 9)
    clocked = replace(sequences, times=np.arange(5) * 1000)
    cases = Cases(np.arange(2), sequences.ends - 1)
    batch = Questions.of(cases, BatchMaker(clocked, torch.device("cpu"))).histories(2, times=True)
    assert batch.items.tolist() == [[1, 2], [4, PAD]]
    assert batch.times is not None
    assert batch.times.tolist() == [[0, 1000], [3000, NO_TIME]]
