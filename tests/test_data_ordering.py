"""Ordering block by block against sorting everything at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from histories import TIMED, History, sequences_of, small_blocks
from seqrec.data.ordering import order_events, renumber_items, select

ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 3), st.booleans()), min_size=1, max_size=40
)
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=[1, 3, 1000])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    small_blocks(monkeypatch, request.param)
    return int(request.param)


@quick
@given(ROWS)
def test_it_is_a_stable_sort_by_user_and_time(
    block: int, tmp_path: Path, rows: list[tuple[int, int, int, bool]]
) -> None:
    users, items, times, keep = (np.array(column) for column in zip(*rows, strict=True))
    values = np.arange(len(rows), dtype=np.float64)
    found = order_events(users.astype(np.int32), items.astype(np.int32), times, values, keep, tmp_path)
    numbered = [(*row, number) for number, row in enumerate(rows)]
    for user in range(max(users) + 1):
        mine = sorted((row for row in numbered if row[0] == user and row[3]), key=lambda row: row[2])
        events = slice(found.starts[user], found.ends[user])
        assert found.items[events].tolist() == [row[1] + 1 for row in mine]
        assert found.times is not None
        assert found.times[events].tolist() == [row[2] for row in mine]
        assert found.values is not None
        assert found.values[events].tolist() == [row[4] for row in mine]
    assert len(found) == max(users) + 1
    assert found.num_events == len(found.items) == sum(keep)


@quick
@given(TIMED, st.randoms(use_true_random=False))
def test_selecting_keeps_the_users(block: int, tmp_path: Path, histories: list[History], random: object) -> None:
    sequences = sequences_of(histories)
    keep = np.array([random.random() < 0.6 for _ in sequences.items], dtype=bool)  # type: ignore[attr-defined]
    chosen = select(sequences, keep, tmp_path)
    for user in range(len(sequences)):
        inside = slice(sequences.starts[user], sequences.ends[user])
        assert chosen.history(user).tolist() == sequences.items[inside][keep[inside]].tolist()
    assert select(sequences, np.ones_like(keep), tmp_path) is sequences


@quick
@given(TIMED)
def test_renumbering_leaves_no_gaps(block: int, tmp_path: Path, histories: list[History]) -> None:
    sequences = sequences_of(histories)
    renumbered, present = renumber_items(sequences, tmp_path)
    assert present.tolist() == sorted({item for history in histories for item, _ in history})
    assert [present[item - 1] for item in renumbered.items] == sequences.items.tolist()
    assert renumbered.num_items == len(present)


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    order_events(*(np.zeros(3, np.int32),) * 2, np.zeros(3, np.int64), None, np.ones(3, bool), tmp_path)
    assert not list(tmp_path.iterdir())
