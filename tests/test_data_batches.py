"""Plans of epochs and the batches cut from them, against slices of lists."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.batches import BUCKETS, NO_TIME, Batch, BatchMaker, EpochPlan, bucket, plan_epoch
from seqrec.data.sequences import PAD, Sequences
from seqrec.data.splits import leave_one_out
from seqrec.errors import DataError

CPU = torch.device("cpu")
HISTORIES = st.lists(st.integers(0, 30), min_size=1, max_size=40).filter(lambda lengths: max(lengths) >= 2)


def numbered(lengths: list[int]) -> Sequences:
    """Histories of the given lengths in which every event has an item of its own."""
    ends = np.cumsum([0, *lengths])
    return Sequences.of([list(range(s + 1, e + 1)) for s, e in pairwise(ends)], int(ends[-1]))


def planned(plan: EpochPlan) -> list[tuple[int, int, int]]:
    """(user, start, length) of every window, in order."""
    return [(user, start, length) for user, start, length in plan.rows.T.tolist()]


def made(plan: EpochPlan, sequences: Sequences, skip: int = 0, times: bool = False) -> list[Batch]:
    maker = BatchMaker(sequences, CPU)
    return [maker.cut(rows, width, times) for rows, width in plan.batches(CPU, skip)]


@given(HISTORIES, st.integers(1, 12), st.integers(1, 7), st.booleans(), st.integers(0, 99))
def test_every_user_with_two_events_has_one_window_inside_the_history(
    lengths: list[int], max_length: int, batch_size: int, random_windows: bool, seed: int
) -> None:
    sequences = numbered(lengths)
    plan = plan_epoch(sequences, max_length, batch_size, random_windows, [seed])
    windows = planned(plan)
    assert sorted(user for user, _, _ in windows) == [user for user, length in enumerate(lengths) if length >= 2]
    for user, start, length in windows:
        assert length == min(lengths[user], max_length + 1)
        assert sequences.starts[user] <= start
        assert start + length <= sequences.ends[user]
        if not random_windows:
            assert start + length == sequences.ends[user]
    assert plan.num_targets == sum(length - 1 for _, _, length in windows)
    assert max(np.diff(plan.cuts)) <= batch_size
    assert len(plan) == -(-len(windows) // batch_size)


@given(HISTORIES, st.integers(1, 12), st.integers(1, 7))
def test_batches_are_slices_of_the_histories(lengths: list[int], max_length: int, batch_size: int) -> None:
    sequences = numbered(lengths)
    plan = plan_epoch(sequences, max_length, batch_size, True, [3])
    windows = iter(planned(plan))
    for batch in made(plan, sequences):
        assert batch.items.dtype == batch.lengths.dtype == torch.int64
        assert int(batch.lengths.max()) <= batch.items.shape[1] <= max_length + 1
        assert batch.users is not None
        for row, length, user in zip(batch.items.tolist(), batch.lengths.tolist(), batch.users.tolist(), strict=True):
            assert (user, row[0] - 1, length) == next(windows)  # item j is event j - 1
            assert row == [*range(row[0], row[0] + length)] + [PAD] * (len(row) - length)
    assert not list(windows)


def test_windows_end_where_training_ends() -> None:
    sequences = numbered([9, 3, 4, 25])
    train = sequences.until(leave_one_out(sequences).train_ends)
    for seed in range(20):
        for user, start, length in planned(plan_epoch(train, 5, 2, True, [seed])):
            assert start + length <= sequences.ends[user] - 2


def test_random_windows_reach_both_ends_of_a_history() -> None:
    sequences = numbered([10])
    starts = {planned(plan_epoch(sequences, 3, 1, True, [seed]))[0][1] for seed in range(100)}
    assert starts == set(range(7))


def test_the_seed_is_the_plan() -> None:
    sequences = numbered([3 + user % 20 for user in range(200)])
    first, again, other = (planned(plan_epoch(sequences, 8, 16, True, seed)) for seed in ([1, 2], [1, 2], [1, 3]))
    assert first == again
    assert first != other


def test_a_plan_can_be_picked_up_in_the_middle() -> None:
    sequences = numbered([2 + user % 9 for user in range(50)])
    plan = plan_epoch(sequences, 5, 8, True, [0])
    whole, rest = made(plan, sequences), made(plan, sequences, skip=3)
    assert len(rest) == len(whole) - 3
    assert all(torch.equal(a.items, b.items) for a, b in zip(whole[3:], rest, strict=True))


def test_rows_of_a_batch_are_of_about_one_length() -> None:
    lengths = [2 + (user * 37) % 150 for user in range(1600)]
    sequences = numbered(lengths)
    plan = plan_epoch(sequences, 200, 100, True, [0])
    padded = sum(batch.items.numel() for batch in made(plan, sequences))
    assert padded < 1.3 * sum(lengths)


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(DataError, match="two events"):
        plan_epoch(numbered([1, 0, 1]), 5, 8, True, [0])


def test_a_batch_of_lists_is_padded_on_the_right() -> None:
    batch = Batch.of([[4], [1, 2, 3]])
    assert batch.items.tolist() == [[4, PAD, PAD], [1, 2, 3]]
    assert batch.valid.tolist() == [[True, False, False], [True, True, True]]
    h_BLD = torch.arange(6.0).view(2, 3, 1)
    assert batch.last(h_BLD).tolist() == [[0], [5]]
    assert len(batch) == 2


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_parts_of_a_batch_are_its_rows(rows: int) -> None:
    whole = Batch.of([[1, 2], [3], [4, 5, 6]], times=[[1, 2], [3], [4, 5, 6]])
    parts = whole.split(rows)
    assert [len(part) for part in parts] == ([1, 1, 1] if rows == 1 else [2, 1] if rows == 2 else [3])
    assert torch.equal(torch.cat([part.items for part in parts]), whole.items)
    assert torch.equal(torch.cat([part.lengths for part in parts]), whole.lengths)
    assert whole.times is not None
    assert torch.equal(torch.cat([part.times for part in parts if part.times is not None]), whole.times)
    assert all(part.users is None for part in parts)


def clocked(lengths: list[int]) -> Sequences:
    """As `numbered`, the event of item j at 1,000 j milliseconds."""
    sequences = numbered(lengths)
    return replace(sequences, times=sequences.items.astype(np.int64) * 1000)


def expected_times(batch: Batch) -> torch.Tensor:
    return torch.where(batch.valid, batch.items * 1000, NO_TIME)


@given(HISTORIES, st.integers(1, 12), st.integers(1, 7))
def test_times_stand_beside_their_items(lengths: list[int], max_length: int, batch_size: int) -> None:
    sequences = clocked(lengths)
    for batch in made(plan_epoch(sequences, max_length, batch_size, True, [3]), sequences, times=True):
        assert batch.times is not None
        assert batch.times.dtype == torch.int64
        assert torch.equal(batch.times, expected_times(batch))
        tail = batch.tail(3)
        assert tail.times is not None
        assert torch.equal(tail.times, expected_times(tail))
        assert batch.with_items(batch.items + 1).times is batch.times


def test_times_are_there_only_for_who_asks() -> None:
    batch = made(plan_epoch(clocked([5, 3]), 9, 2, True, [0]), clocked([5, 3]))[0]
    assert batch.times is None
    assert batch.tail(2).times is None


def test_data_without_clock_times_are_refused_to_who_asks() -> None:
    with pytest.raises(DataError, match=r"model\.time_gate.*model\.time_bias.* no clock times: leave that key"):
        BatchMaker(numbered([5, 3]), CPU).windows(np.array([0]), np.array([0]), np.array([4]), 9, times=True)


@given(st.integers(1, 5000))
def test_buckets_hold_their_rows_without_waste(length: int) -> None:
    size = bucket(length)
    assert length <= size
    assert bucket(size) == size
    assert size in BUCKETS or size % 512 == 0
    assert size - length < max(8, size / 2)


@given(HISTORIES, st.integers(1, 45))
def test_the_tail_of_a_batch_is_the_end_of_every_list(lengths: list[int], events: int) -> None:
    rows = [list(range(1, length + 2)) for length in lengths]
    batch = replace(Batch.of(rows), users=torch.arange(len(rows)))
    tail = batch.tail(events)
    assert torch.equal(tail.items, Batch.of([row[-events:] for row in rows]).items)
    assert tail.lengths.tolist() == [min(len(row), events) for row in rows]
    assert tail.users is batch.users
    wide = batch.with_items(torch.nn.functional.pad(batch.items, (0, 3), value=PAD)).tail(events)
    assert torch.equal(wide.items[:, : tail.items.shape[1]], tail.items)
    assert not wide.items[:, tail.items.shape[1] :].any()
