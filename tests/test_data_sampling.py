"""Samples: every step against a plain Python version of it, order and ties kept, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import real_data, write_small_log
from seqrec.data import sampling
from seqrec.data.interactions import Interactions, encode_ids
from seqrec.data.sampling import RECIPES, STEPS, parse_step, sample, take, users_first
from seqrec.data.sampling_steps import (
    Cap,
    Every,
    Last,
    Log,
    MinEvents,
    MinItemEvents,
    Rows,
    Step,
    Stratified,
    Users,
    Window,
)
from seqrec.data.sources.table import read_table
from seqrec.errors import ConfigError, DataError

Event = tuple[int, str, str, int, str | None]
COLUMNS = {"user": "uid", "item": "iid", "time": "ts"}


# --- plain Python versions


def md5(seed: int, kind: str, value: object) -> str:
    return hashlib.md5(f"{seed}:{kind}:{value}".encode()).hexdigest()


def grouped(events: list[Event], column: int) -> dict[Any, list[Event]]:
    groups: dict[Any, list[Event]] = defaultdict(list)
    for event in sorted(events, key=lambda event: (event[3], event[0])):
        groups[event[column] or ""].append(event)
    return groups


def plain(step: Step, events: list[Event]) -> list[Event]:
    """The events that stay, in the order of rows."""
    kept: list[Event]
    match step:
        case Rows(share, seed):
            kept = [e for e in events if int(md5(seed, "row", e[0])[:16], 16) < share * 2**64]
        case Users(share, seed):
            kept = [e for e in events if int(md5(seed, "user", e[1])[:16], 16) < share * 2**64]
        case Stratified(share, by, seed):
            kept = []
            for group in grouped(events, {"user": 1, "item": 2, "genre": 4}[by]).values():
                group.sort(key=lambda event: (md5(seed, "row", event[0]), event[0]))
                kept += group[: max(1, int(share * len(group) + 0.5))]
        case Every(every, offset):
            kept = events[offset::every]
        case Window(since, until):
            low, high = int(since or -(10**9)), int(until or 10**9)
            kept = [e for e in events if low <= e[3] < high]
        case Last(n):
            kept = [e for group in grouped(events, 1).values() for e in group[-n:]]
        case Cap(n):
            kept = [e for group in grouped(events, 1).values() for e in group[:n]]
        case MinEvents(n):
            kept = [e for group in grouped(events, 1).values() if len(group) >= n for e in group]
        case MinItemEvents(n):
            kept = [e for group in grouped(events, 2).values() if len(group) >= n for e in group]
        case _:
            raise AssertionError(step)
    return sorted(kept)


def taken(steps: list[Step], events: list[Event], threads: int = 2) -> list[Event]:
    """The events that stay, as DuckDB gives them, without sorting."""
    connection = duckdb.connect(config={"threads": threads})
    connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
    names = ("row", "user", "item", "timestamp", "c0")
    kinds = (pa.int64(), pa.string(), pa.string(), pa.int64(), pa.string())
    columns = zip(*events, strict=True) if events else [()] * 5
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    connection.register("log", pa.table(arrays, names=list(names)))
    left = take(connection, Log("log", {"genre": "c0"}, clock=False), steps)
    found: list[Event] = connection.execute(f"SELECT {', '.join(names)} FROM {left.relation}").fetchall()
    return found


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    small = st.integers(0, 4)
    genre = st.sampled_from([None, "", "a", "b"])
    rows = draw(st.lists(st.tuples(small, small, st.integers(0, 6), genre), max_size=40))
    return [(row, f"u{user}", f"i{item}", time, kind) for row, (user, item, time, kind) in enumerate(rows)]


shares = st.sampled_from([0.1, 0.25, 0.5, 0.9, 1.0])
counts = st.integers(1, 6)
seeds = st.integers(0, 3)
user_wise = st.one_of(
    st.builds(Rows, shares, seeds),
    st.builds(Users, shares, seeds),
    st.builds(Stratified, shares, st.just("user"), seeds),
    st.builds(lambda low, width: Window(str(low), str(low + width)), st.integers(0, 3), st.integers(1, 5)),
    st.builds(Last, counts),
    st.builds(Cap, counts),
    st.builds(MinEvents, counts),
)
other = st.one_of(
    st.builds(Stratified, shares, st.sampled_from(["item", "genre"]), seeds),
    st.integers(1, 5).flatmap(lambda every: st.builds(Every, st.just(every), st.integers(0, every - 1))),
    st.builds(MinItemEvents, counts),
)


@given(logs(), st.one_of(user_wise, other))
def test_every_step_is_its_plain_version(events: list[Event], step: Step) -> None:
    assert taken([step], events) == plain(step, events)


@given(logs(), st.lists(st.one_of(user_wise, other), min_size=2, max_size=5))
def test_steps_are_taken_in_the_order_given(events: list[Event], steps: list[Step]) -> None:
    expected = events
    for step in steps:
        expected = plain(step, expected)
    assert taken(steps, events) == expected


@given(logs(), st.lists(user_wise, min_size=1, max_size=3), shares)
def test_users_may_be_taken_before_user_wise_steps(events: list[Event], steps: list[Step], share: float) -> None:
    late: list[Event] = events
    early = plain(Users(share), events)
    for step in steps:
        late, early = plain(step, late), plain(step, early)
    assert plain(Users(share), late) == early


def test_only_user_wise_steps_let_users_past() -> None:
    parsed = [parse_step(text) for text in ("min_events=5", "cap=9", "users=0.5", "every=2", "users=0.1")]
    assert [str(step).partition(",")[0] for step in users_first(parsed)] == [
        "users=0.5", "min_events=5", "cap=9", "every=2", "users=0.1",
    ]  # fmt: skip
    assert not parse_step("stratified=0.5,by=item").user_wise
    assert not parse_step("min_item_events=2").user_wise


def large_log(rows: int = 150_000) -> list[Event]:
    random = np.random.default_rng(1)
    users, items, times = (random.integers(0, n, rows).tolist() for n in (3000, 500, 50))
    return [(k, f"u{u}", f"i{i}", t, None) for k, (u, i, t) in enumerate(zip(users, items, times, strict=True))]


def test_threads_change_nothing_and_order_is_kept() -> None:
    events = large_log()  # more than one row group of DuckDB's, so that threads have something to share
    texts = ("rows=0.7", "min_events=30", "last=38", "cap=35", "min_item_events=3", "stratified=0.5,by=item", "every=3")
    steps = [parse_step(text) for text in texts]
    one, many = taken(steps, events, threads=1), taken(steps, events, threads=6)
    assert one == many == sorted(one)
    assert 10_000 < len(one) < 60_000


def test_shares_are_nearly_those_asked_for_and_smaller_ones_are_subsets() -> None:
    events = large_log(100_000)
    assert len(taken([Rows(0.1)], events)) == pytest.approx(10_000, rel=0.05)
    tenth, half = ({e[1] for e in taken([Users(share)], events)} for share in (0.1, 0.5))
    assert len(tenth) == pytest.approx(300, rel=0.2)
    assert len(half) == pytest.approx(1500, rel=0.1)
    assert tenth < half
    assert tenth != {e[1] for e in taken([Users(0.1, seed=7)], events)}


def test_users_are_the_same_on_every_machine() -> None:
    """Written down, so that no other version of DuckDB, or Spark, may choose others."""
    events: list[Event] = [(k, f"user_{k:06d}", "i", k, None) for k in range(60)] + [(60, "Zoë", "i", 60, None)]
    assert [e[1] for e in taken([Users(0.1)], events)] == [f"user_{k:06d}" for k in (11, 13, 14, 38, 45, 52, 57, 59)]


# --- what is typed


@pytest.mark.parametrize("name", STEPS)
def test_text_and_back(name: str) -> None:
    value = {"since": "2020-01-01", "until": "2020-01-01T12:00:00+02:00"}.get(name, "1")
    step = parse_step(f"{name}={value}", seed=7)
    assert parse_step(str(step)) == step
    assert step.effect.endswith(".")


def test_options() -> None:
    assert parse_step("users=0.05", seed=3) == Users(0.05, 3)
    assert parse_step("users=0.05,seed=9", seed=3) == Users(0.05, 9)
    assert parse_step("since=2019-01-01,until=2020-01-01") == Window("2019-01-01", "2020-01-01")
    assert str(parse_step("until=5")) == "until=5"
    assert str(parse_step("every=10, offset=3")) == "every=10,offset=3"
    assert [parse_step(text) for text in RECIPES["music4all"]] == [MinEvents(5), Cap(1000), Users(0.05)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user=0.1", "Did you mean 'users'"),
        ("users", "write it as users=VALUE"),
        ("users=", "write it as users=VALUE"),
        ("users=0.1,users=0.2", "each once"),
        ("users=5%", "users is a number, not '5%'"),
        ("users=5", "above 0 and at most 1"),
        ("users=nan", "above 0 and at most 1"),
        ("rows=0", "above 0"),
        ("stratified=-1", "above 0"),
        ("last=1.5", "last is a whole number"),
        ("cap=0", "at least 1"),
        ("cap=5,by=user", "cap has no option 'by'. Options: cap"),
        ("every=3,offset=3", "offset lies between"),
        ("since=yesterday", "neither an ISO date"),
    ],
)
def test_what_cannot_be(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_step(text)
    assert said in str(caught.value)


# --- whole samples


def write_log(path: Path) -> Path:
    """Ties, quotes, an empty cell, ids that look like numbers."""
    path.write_text(
        "uid,iid,ts,note,Stars\n"
        '1,"a, b",1600000002,"says ""yes""",5\n'
        "2,x,1600000001,,4.5\n"
        "1,01,1600000002,later,\n"
        "2,x,1600000001,again,1\n"
        "1,1,1600000001,first,2\n"
    )
    return path


def test_all_columns_stay_in_the_order_of_the_source(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv")
    found = sample(log, tmp_path / "out", ["last=2"], **COLUMNS)
    assert pq.read_table(tmp_path / "out" / "part-00000.parquet").to_pylist() == [
        {"row": 0, "uid": "1", "iid": "a, b", "ts": "1600000002", "note": 'says "yes"', "Stars": "5"},
        {"row": 1, "uid": "2", "iid": "x", "ts": "1600000001", "note": None, "Stars": "4.5"},
        {"row": 2, "uid": "1", "iid": "01", "ts": "1600000002", "note": "later", "Stars": None},
        {"row": 3, "uid": "2", "iid": "x", "ts": "1600000001", "note": "again", "Stars": "1"},
    ]
    assert (found.before.rows, found.after.rows) == (5, 4)
    record = json.loads((tmp_path / "out" / "_sample.json").read_text())
    assert record["source"] == str(log)
    assert record["steps"] == ["last=2"]
    assert record["columns"] == COLUMNS
    assert record["parts"] == ["part-00000.parquet"]
    assert record["duckdb"] == duckdb.__version__
    assert record["before"]["rows"] == 5
    assert record["after"]["last_date"] == "2020-09-13 12:26:42"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "log.csv", "out"]
    assert list((tmp_path / "cache").iterdir()) == []


def read(folder: Path) -> pa.Table:
    """All parts in order."""
    return pa.concat_tables([pq.read_table(part) for part in sorted(folder.glob("part-*.parquet"))])


def triples(log: Interactions) -> list[tuple[str, str, int]]:
    return [(e["user"], e["item"], e["timestamp"]) for e in log.events.to_pylist()]


def test_many_parts_read_back_as_the_same_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "GROUP_ROWS", 16)
    monkeypatch.setattr(sampling, "PART_ROWS", 32)
    monkeypatch.setattr(sampling, "BATCH_ROWS", 2048)
    events = large_log(30_000)
    pq.write_table(
        pa.table({"uid": [e[1] for e in events], "iid": [e[2] for e in events], "ts": [e[3] for e in events]}),
        tmp_path / "log.parquet",
        row_group_size=5000,
    )
    sample(tmp_path / "log.parquet", tmp_path / "out", ["users=0.3"], **COLUMNS, time_unit="order")
    parts = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(parts) > 1
    assert triples(read_table(tmp_path / "out", **COLUMNS, time_unit="order")) == [
        (e[1], e[2], e[3]) for e in plain(Users(0.3), events)
    ]
    rows = read(tmp_path / "out")["row"].to_pylist()
    assert rows == [e[0] for e in plain(Users(0.3), events)]

    # A sample of a sample keeps the rows of the first source, and a folder of parts counts through.
    sample(tmp_path / "out", tmp_path / "second", ["every=2,offset=1"], **COLUMNS, time_unit="order")
    assert read(tmp_path / "second")["row"].to_pylist() == rows[1::2]
    assert pd.read_parquet(tmp_path / "second")["row"].tolist() == rows[1::2]  # pandas reads the folder, too


def test_a_window_in_dates(tmp_path: Path) -> None:
    log = write_small_log(tmp_path / "log.csv")
    edge = 1_600_400_000
    date = datetime.fromtimestamp(edge, UTC).isoformat()
    inside = sample(log, tmp_path / "a", [f"since={date}"], **COLUMNS)
    before = sample(log, tmp_path / "b", [f"until={date}"], **COLUMNS)
    assert inside.after.rows + before.after.rows == inside.before.rows
    assert before.after.last is not None
    assert before.after.last < edge * 1000
    assert inside.after.first is not None
    assert inside.after.first >= edge * 1000
    with pytest.raises(ConfigError, match="clock times"):
        sample(log, tmp_path / "c", ["since=5"], **COLUMNS)
    with pytest.raises(ConfigError, match="order numbers"):
        sample(log, tmp_path / "c", ["since=2020-01-01"], **COLUMNS, time_unit="order")


def test_the_order_of_the_file_as_time(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv")
    sample(tmp_path / "log.csv", tmp_path / "out", ["since=1", "cap=1"], user="uid", item="iid", time_unit="order")
    assert read(tmp_path / "out")["row"].to_pylist() == [1, 2]


def test_a_named_data_set_and_its_categories(tmp_path: Path) -> None:
    found = sample("test_data_sampling:two_genres", tmp_path / "out", ["stratified=0.1,by=category"])
    table = read(tmp_path / "out")
    assert table.column_names == ["row", "user", "item", "timestamp", "category"]
    assert Counter(table["category"].to_pylist()) == {"drama": 4, "comedy": 4, None: 2}
    assert table["row"].to_pylist() == sorted(table["row"].to_pylist())
    assert not found.before.clock
    assert triples(read_table(tmp_path / "out", time="timestamp", time_unit="order")) == [
        (row["user"], row["item"], row["timestamp"]) for row in table.to_pylist()
    ]
    with pytest.raises(DataError, match="Did you mean 'category'"):
        sample("test_data_sampling:two_genres", tmp_path / "other", ["stratified=0.1,by=categorie"])


def two_genres(name: str, *, cache: Path, report: Any) -> Interactions:
    """Ten people, ten films: four dramas, four comedies, two of which nothing is known."""
    events = pa.table(
        {
            "row": pa.array(range(100)),
            "user": encode_ids(pa.array([f"u{k // 10}" for k in range(100)])),
            "item": encode_ids(pa.array([f"i{k % 10}" for k in range(100)])),
            "timestamp": pa.array(range(100)),
        }
    )
    genres = [["drama", "war"]] * 4 + [["comedy"]] * 4 + [[], None]
    items = pa.table({"id": [f"i{k}" for k in range(10)], "categories": pa.array(genres, pa.list_(pa.string()))})
    return Interactions("two genres", events, items, clock=False)


def test_little_memory_gives_the_same_sample(tmp_path: Path) -> None:
    events = large_log()
    names = ("row_id", "uid", "iid", "ts")
    columns = [pa.array(column) for column in list(zip(*events, strict=True))[:4]]
    pq.write_table(pa.table(columns, names=list(names)), tmp_path / "log.parquet")
    options: dict[str, Any] = {**COLUMNS, "time_unit": "order"}
    sample(tmp_path / "log.parquet", tmp_path / "a", ["cap=50"], memory="60MB", **options)
    sample(tmp_path / "log.parquet", tmp_path / "b", ["cap=50"], **options)
    assert read(tmp_path / "a").equals(read(tmp_path / "b"))
    with pytest.raises(ConfigError, match="Give more with --memory"):
        sample(tmp_path / "log.parquet", tmp_path / "c", ["cap=50"], memory="1MB", **options)


def test_movielens_twice_is_the_same_sample(tmp_path: Path) -> None:
    if not (real_data() / "ml-100k").is_dir():
        pytest.skip("no real data")
    log = next((real_data() / "ml-100k").glob("*.inter"))
    for out in ("a", "b"):
        sample(log, tmp_path / out, ["min_events=20", "cap=100", "users=0.2"])
    first, second = (read(tmp_path / out) for out in ("a", "b"))
    assert first.equals(second)
    per_user = Counter(first["user"].to_pylist())
    assert max(per_user.values()) == 100
    assert 100 < len(per_user) < 280
