"""Exports for other toolkits: their rules, applied in plain Python to the files, ask what we ask; and the way back."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.config import DataConfig
from seqrec.data.export import EXPORTS, events, export, recbole
from seqrec.data.export.events import Events
from seqrec.data.interactions import Interactions, encode_ids
from seqrec.data.prepare import prepare
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Cases
from seqrec.data.sources.recbole import read_recbole
from seqrec.data.sources.table import read_table
from seqrec.data.splits import Split, target_hash
from seqrec.errors import ConfigError, DataError, UnknownNameError

#: user, item, milliseconds
Event = tuple[str, str, int]
START = 1_600_000_000_000
#: Two people share their seconds, and more than the seconds: float32 cannot tell any of these times apart.
TIED: list[Event] = [
    ("b", "x", START), ("a", "y", START), ("b", "y", START), ("a", "x", START), ("b", "z", START + 1_000),
    ("a", "z", START), ("b", "x", START + 1_000), ("a", "v", START + 2_000), ("c", "x", START), ("c", "y", START),
    ("b", "w", START + 1_000),
]  # fmt: skip
ITEMS = [
    {"id": "x", "title": 'The "X"\tfiles', "categories": ["Science fiction", "Drama"], "year": 1993},
    {"id": "y", "title": None, "categories": [], "year": None},
]
USERS = [{"id": "a", "home town": "Aix"}, {"id": "b", "home town": None}, {"id": "c", "home town": 'C "ity"'}]


def prepared(folder: Path, log: list[Event] = TIED, sides: bool = False, clock: bool = True) -> PreparedData:
    users, items, times = zip(*log, strict=True)
    table = pa.table(
        {
            "row": pa.array(range(len(log)), pa.int64()),
            "user": encode_ids(pa.array(users)),
            "item": encode_ids(pa.array(items)),
            "timestamp": pa.array(times, pa.int64()),
        }
    )
    known = [pa.Table.from_pylist(rows) if sides else None for rows in (ITEMS, USERS)]
    return prepare(Interactions("log", table, *known, clock=clock), DataConfig(k_core=0), folder / "prepared")


def histories(data: PreparedData) -> dict[str, list[str]]:
    return {
        name: [data.catalogue.ids[item - 1] for item in data.sequences.history(user)]
        for user, name in enumerate(data.user_ids())
    }


def hash_of(pairs: list[tuple[str, str]]) -> str:
    return hashlib.sha256("".join(sorted(f"{user}\t{item}\n" for user, item in pairs)).encode()).hexdigest()


def our_hash(data: PreparedData, part: str) -> str:
    return target_hash(data.cases(part), data.sequences, data.user_ids(), data.catalogue)


def atomic(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [{name.partition(":")[0]: value for name, value in row.items()} for row in rows]


def recbole_leave_one_out(rows: list[dict[str, str]], seed: int = 0) -> dict[str, list[tuple[str, str]]]:
    """What RecBole does with a log: float32 times, sorted by user and time, one row for each event with a history,
    of which the last is the test and the one before it validation. The sort is not stable here."""
    rows = [rows[k] for k in np.random.default_rng(seed).permutation(len(rows))]
    own: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for row in rows:
        own[row["user_id"]].append((float(np.float32(row["order"])), row["item_id"]))
    parts: dict[str, list[tuple[str, str]]] = {"validation": [], "test": []}
    for user, found in own.items():
        targets = [item for _, item in sorted(found, key=lambda pair: pair[0])][1:]
        if len(targets) > 1:  # the first row of everybody trains
            parts["test"].append((user, targets[-1]))
        if len(targets) > 2:
            parts["validation"].append((user, targets[-2]))
    return parts


def test_recbole_splits_the_log_as_we_do(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    export(data, "recbole", tmp_path / "log")
    for seed in range(5):
        found = recbole_leave_one_out(atomic(tmp_path / "log" / "log.inter"), seed)
        assert hash_of(found["test"]) == data.facts["test_targets"]
        assert hash_of(found["validation"]) == our_hash(data, "validation")
    own = yaml.safe_load((tmp_path / "log" / "recbole-own-split.yaml").read_text())
    assert own["TIME_FIELD"] == "order"
    assert own["eval_args"] == {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("vwxyz"), st.integers(0, 3)), min_size=30))
def test_recbole_splits_any_log_as_we_do(tmp_path_factory: pytest.TempPathFactory, log: list[Event]) -> None:
    counts = {user: sum(event[0] == user for event in log) for user in "abcd"}
    log = [(user, item, START + time) for user, item, time in log if counts[user] > 3]
    if len({user for user, _, _ in log}) < 2:
        return
    folder = tmp_path_factory.mktemp("any")
    data = prepared(folder, log)
    export(data, "recbole", folder / "log")
    found = recbole_leave_one_out(atomic(folder / "log" / "log.inter"))
    assert hash_of(found["test"]) == data.facts["test_targets"]
    assert hash_of(found["validation"]) == our_hash(data, "validation")


def test_recbole_benchmark_files_hold_our_cases(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    files = export(data, "recbole", tmp_path / "log", max_length=2)
    assert files == sorted((tmp_path / "log").iterdir())
    whole = histories(data)
    assert whole == {"b": ["x", "y", "z", "x", "w"], "a": ["y", "x", "z", "v"], "c": ["x", "y"]}
    parts = {suffix: atomic(tmp_path / "log" / f"log.{suffix}.inter") for suffix in ("train", "valid", "test")}
    rows = {suffix: [tuple(row.values()) for row in part] for suffix, part in parts.items()}
    assert rows["train"] == [("b", "y", "x"), ("b", "z", "x y"), ("a", "x", "y"), ("c", "y", "x")]
    assert rows["valid"] == [("b", "x", "y z"), ("a", "z", "y x")]
    assert rows["test"] == [("b", "w", "z x"), ("a", "v", "x z")]
    config = yaml.safe_load((tmp_path / "log" / "recbole.yaml").read_text())
    assert config["MAX_ITEM_LIST_LENGTH"] == 2
    assert config["benchmark_filename"] == ["train", "valid", "test"]
    assert config["alias_of_item_id"] == ["item_id_list"]


def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared(tmp_path)
    contents = []
    for number, size in enumerate((1_000, 2)):
        monkeypatch.setattr(events, "BLOCK", size)
        monkeypatch.setattr(recbole, "HISTORY_ITEMS", size)
        out = tmp_path / str(number) / "log"
        export(data, "recbole", out, max_length=2)
        export(data, "rectools", tmp_path / str(number) / "rectools")
        table = pq.read_table(tmp_path / str(number) / "rectools" / "split.parquet")
        contents.append(({file.name: file.read_bytes() for file in out.iterdir()}, table.to_pylist()))
    assert contents[0] == contents[1]


def test_other_splits(tmp_path: Path) -> None:
    """Several cases of one user, and a history that ends before its target."""
    data = prepared(tmp_path)
    starts = data.sequences.starts
    first, second = int(starts[0]), int(starts[1])
    validation = Cases(np.array([0]), np.array([first + 2]))
    test = Cases(
        np.array([0, 0, 1]), np.array([first + 3, first + 4, second + 2]), np.array([first + 3, first + 3, second + 1])
    )
    split = Split(np.array([first + 2, second + 1, int(data.sequences.ends[2])]), validation, test)
    data = replace(data, split=split)
    export(data, "recbole", tmp_path / "log")
    rows = [tuple(row.values()) for row in atomic(tmp_path / "log" / "log.test.inter")]
    assert rows == [("b", "x", "x y z"), ("b", "w", "x y z"), ("a", "z", "y")]
    assert not (tmp_path / "log" / "recbole-own-split.yaml").exists()
    export(data, "rectools", tmp_path / "rectools")
    parts = pq.read_table(tmp_path / "rectools" / "split.parquet")["part"].to_pylist()
    assert parts == [
        "train",
        "train",
        "validation",
        "test",
        "test",
        "train",
        "unused",
        "test",
        "unused",
        "train",
        "train",
    ]


def test_three_events_are_split_otherwise_by_recbole(tmp_path: Path) -> None:
    data = prepared(tmp_path, [*TIED, ("c", "z", START)])
    export(data, "recbole", tmp_path / "log")
    found = recbole_leave_one_out(atomic(tmp_path / "log" / "log.inter"))
    assert hash_of(found["test"]) == data.facts["test_targets"]
    assert hash_of(found["validation"]) != our_hash(data, "validation")
    assert not (tmp_path / "log" / "recbole-own-split.yaml").exists()


def test_sides_of_recbole_are_safe_to_read(tmp_path: Path) -> None:
    out = tmp_path / "log"
    export(prepared(tmp_path, sides=True), "recbole", out)
    assert atomic(out / "log.item")[0] == {
        "item_id": "x", "title": "The 'X' files", "categories": "Science_fiction Drama", "release_year": "1993",
    }  # fmt: skip
    assert [row["home_town"] for row in atomic(out / "log.user")] == ["", "Aix", "C 'ity'"]
    again = read_recbole(out)
    assert again.items is not None
    assert again.items.to_pylist()[1] == {"id": "y", "title": "y", "categories": [], "year": None}


@pytest.mark.parametrize("item", ["two words", "tab\t", 'quo"te', "NA", "null", "[PAD]"])
def test_ids_that_recbole_would_lose_are_refused(tmp_path: Path, item: str) -> None:
    data = prepared(tmp_path, [*TIED, ("c", item, START + 1)])
    with pytest.raises(DataError, match="cannot hold the item id") as caught:
        export(data, "recbole", tmp_path / "log")
    assert repr(item) in str(caught.value)
    assert not (tmp_path / "log").exists()
    assert export(data, "replay", tmp_path / "replay")


def test_a_case_without_history_is_refused_for_recbole(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    start = data.sequences.starts[1:2]
    data = replace(data, split=replace(data.split, test=Cases(np.array([1]), start)))
    with pytest.raises(DataError, match="user 'a' has none"):
        export(data, "recbole", tmp_path / "log")


@pytest.mark.parametrize("column", ["user_id", "query_id"])
def test_frames_have_no_ties(tmp_path: Path, column: str) -> None:
    data = prepared(tmp_path, sides=True)
    toolkit, time = {"user_id": ("rectools", "datetime"), "query_id": ("replay", "timestamp")}[column]
    export(data, toolkit, tmp_path / toolkit)
    table = pq.read_table(tmp_path / toolkit / "interactions.parquet")
    assert table.schema.field(column).type == pa.string()
    rows = table.to_pylist()
    assert {row.get("weight", row.get("rating")) for row in rows} == {1.0}
    found: dict[str, list[tuple[Any, str]]] = defaultdict(list)
    for row in reversed(rows):
        found[row[column]].append((row[time], row["item_id"]))
    assert all(len({moment for moment, _ in own}) == len(own) for own in found.values())
    assert {user: [item for _, item in sorted(own)] for user, own in found.items()} == histories(data)
    features = pq.read_table(tmp_path / toolkit / "item_features.parquet").to_pylist()
    assert {"id": "x", "value": "Science fiction", "feature": "category"} in features
    assert {"id": "x", "value": "1993", "feature": "year"} in features


def test_parts_of_the_frames(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    assert len(export(data, "rectools", tmp_path / "rectools")) == 2, "nothing is known of the items"
    export(data, "replay", tmp_path / "replay")
    log, split = (pq.read_table(tmp_path / "rectools" / f"{name}.parquet") for name in ("interactions", "split"))
    assert log.select(["user_id", "item_id", "datetime"]) == split.select(["user_id", "item_id", "datetime"])
    for part in ("validation", "test"):
        rows = [row for row in split.to_pylist() if row["part"] == part]
        assert hash_of([(row["user_id"], row["item_id"]) for row in rows]) == our_hash(data, part)
        rows = pq.read_table(tmp_path / "replay" / f"{part}.parquet").to_pylist()
        assert hash_of([(row["query_id"], row["item_id"]) for row in rows]) == our_hash(data, part)
    assert len(pq.read_table(tmp_path / "replay" / "train.parquet")) == 11 - 4


def test_a_thousand_events_in_one_millisecond(tmp_path: Path) -> None:
    log = [("a", f"i{k}", START) for k in range(1_500)] + [("a", "late", START + 1), ("b", "x", START), ("b", "y", 0)]
    data = prepared(tmp_path, log)
    times = Events(data).microseconds
    assert (np.diff(times[:1_501]) > 0).all()
    assert times[0] == START * 1_000
    assert times[-1] > times[-2]


def test_ratings_go_along(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    values = np.arange(11, dtype=np.float32) / 2
    values[0] = np.nan
    data = replace(data, sequences=replace(data.sequences, values=values))
    export(data, "recbole", tmp_path / "log")
    assert [row["rating"] for row in atomic(tmp_path / "log" / "log.inter")][:4] == ["", "0.5", "1", "1.5"]
    export(data, "replay", tmp_path / "replay")
    ratings = pq.read_table(tmp_path / "replay" / "interactions.parquet")["rating"].to_pylist()
    assert ratings == [1.0, *values[1:].tolist()]


def read_back(toolkit: str, folder: Path) -> Interactions:
    if toolkit == "recbole":
        return read_recbole(folder)
    return read_table(folder / "interactions.parquet", user="query_id" if toolkit == "replay" else None)


@pytest.mark.parametrize("toolkit", EXPORTS)
@pytest.mark.parametrize("fraction", [0, 7])
def test_the_way_back(tmp_path: Path, toolkit: str, fraction: int) -> None:
    data = prepared(tmp_path, [(user, item, time + fraction) for user, item, time in TIED], sides=True)
    export(data, toolkit, tmp_path / "log")
    again = prepare(read_back(toolkit, tmp_path / "log"), DataConfig(k_core=0), tmp_path / "again")
    assert histories(again) == histories(data)
    assert again.facts["test_targets"] == data.facts["test_targets"]
    assert again.sequences.times is not None
    assert data.sequences.times is not None
    assert again.sequences.times.tolist() == data.sequences.times.tolist()


def test_the_way_back_without_a_clock(tmp_path: Path) -> None:
    data = prepared(tmp_path, clock=False)
    for toolkit in EXPORTS:
        export(data, toolkit, tmp_path / toolkit)
    log = read_recbole(tmp_path / "recbole", time="order", time_unit="order")
    again = prepare(log, DataConfig(k_core=0), tmp_path / "again")
    assert again.facts["test_targets"] == data.facts["test_targets"]
    times = pq.read_table(tmp_path / "rectools" / "interactions.parquet")["datetime"].to_pylist()
    assert [str(time)[17:] for time in times[:3]] == ["00", "01", "02"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        export(data, "recbole", tmp_path / "here")
    with pytest.raises(UnknownNameError, match="Did you mean 'recbole'"):
        export(data, "rebole", tmp_path / "log")
    with pytest.raises(ConfigError, match="max_length 0"):
        export(data, "recbole", tmp_path / "log", max_length=0)
    assert not (tmp_path / "log").exists()
