"""From interactions to a folder on disk and back: order, facts, damage, and the real ML-1M counted by hand."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.config import DataConfig
from seqrec.data.interactions import Interactions, encode_ids
from seqrec.data.prepare import prepare, prepared_name
from seqrec.data.prepared import FORMAT_VERSION, PreparedData
from seqrec.data.sources.movielens import read_zip
from seqrec.errors import DataError

#: user, item, time
Event = tuple[str, str, int]
DAY = 86_400_000
TINY: list[Event] = [
    ("b", "x", 30), ("a", "y", 5), ("b", "y", 10), ("a", "x", 5), ("b", "z", 20), ("a", "z", 5), ("b", "x", 40),
]  # fmt: skip


def interactions(events: list[Event], **more: Any) -> Interactions:
    users, items, times = zip(*events, strict=True)
    table = pa.table(
        {
            "row": pa.array(range(len(events)), pa.int64()),
            "user": encode_ids(pa.array(users)),
            "item": encode_ids(pa.array(items)),
            "timestamp": pa.array(times, pa.int64()),
        }
    )
    return Interactions("log", table, **more)


def prepared(folder: Path, events: list[Event], k_core: int = 0, **more: Any) -> PreparedData:
    return prepare(interactions(events, **more), DataConfig(k_core=k_core), folder / "prepared")


def histories(data: PreparedData) -> dict[str, list[str]]:
    return {
        name: [data.catalogue.ids[item - 1] for item in data.sequences.history(user)]
        for user, name in enumerate(data.user_ids())
    }


EVENTS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("vwxyz"), st.integers(0, 5)), min_size=9, max_size=40
).filter(lambda events: len({user for user, _, _ in events}) >= 2)  # nine events of four users: somebody has three


@given(EVENTS)
def test_histories_are_ordered_by_time_and_within_it_by_row(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event]
) -> None:
    data = prepared(tmp_path_factory.mktemp("p"), events)
    expected: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        expected[event[0]].append(event)
    assert histories(data) == {
        user: [item for _, item, _ in sorted(own, key=lambda event: event[2])] for user, own in expected.items()
    }
    assert data.sequences.times is not None
    assert all(np.all(np.diff(data.sequences.times[s:e]) >= 0) for s, e in _spans(data))
    assert data.facts["duplicate_rows"] == len(events) - len(set(events))


def _spans(data: PreparedData) -> list[tuple[int, int]]:
    return list(zip(data.sequences.starts.tolist(), data.sequences.ends.tolist(), strict=True))


def test_ties_keep_the_order_of_the_file(tmp_path: Path) -> None:
    assert histories(prepared(tmp_path, TINY)) == {"b": ["y", "z", "x", "x"], "a": ["y", "x", "z"]}


def test_order_goes_by_row_even_when_the_table_does_not(tmp_path: Path) -> None:
    log = interactions(TINY)
    backwards = Interactions("log", log.events.take(list(reversed(range(len(TINY))))))
    data = prepare(backwards, DataConfig(k_core=0), tmp_path / "prepared")
    assert histories(data) == {"b": ["y", "z", "x", "x"], "a": ["y", "x", "z"]}


def test_facts_are_counted(tmp_path: Path) -> None:
    events = [(user, item, time * DAY) for user, item, time in TINY] + [("c", "x", 50 * DAY), ("c", "x", 50 * DAY)]
    facts = dict(prepared(tmp_path, events).facts)
    lines = "a\tz\nb\tx\n"
    assert facts.pop("fingerprint") == interactions(events).fingerprint()
    assert facts.pop("config") == DataConfig(k_core=0).model_dump(mode="json")
    assert facts == {
        "format": FORMAT_VERSION,
        "name": "log",
        "k_core": 0,
        "kept": "no k-core",
        "source_events": 9,
        "users": 3,
        "items": 3,
        "events": 9,
        "density": 1.0,
        "length": {"min": 2, "median": 3.0, "mean": 3.0, "max": 4},
        "repeated_events": 2 / 9,
        "duplicate_rows": 1,
        "split": "leave-one-out",
        "training_events": 5,
        "validation": {"cases": 2, "users": 2, "cold": 0.0, "repeated": 0.0, "tied": 0.5},
        "test": {"cases": 2, "users": 2, "cold": 0.0, "repeated": 0.5, "tied": 0.5},
        "repeats": "keep",
        "revisits": None,
        "clock": True,
        "first": "1970-01-06",
        "last": "1970-02-20",
        "test_targets": hashlib.sha256(lines.encode()).hexdigest(),
    }


def test_without_clock_times_none_are_kept(tmp_path: Path) -> None:
    data = prepared(tmp_path, TINY, clock=False)
    assert data.sequences.times is None
    assert not {"first", "last"} & set(data.facts)
    assert histories(data)["b"] == ["y", "z", "x", "x"]


def test_what_is_known_about_items_and_users_follows_their_numbers(tmp_path: Path) -> None:
    items = pa.table({"id": ["z", "q", "x"], "title": ["Zed", "Queue", "Ex"], "year": [None, 1990, 2000]})
    users = pa.table({"id": ["a", "nobody"], "age": ["30", "40"]})
    data = prepared(tmp_path, TINY, items=items, users=users)
    labels = {name: data.catalogue.label(number) for number, name in enumerate(data.catalogue.ids, start=1)}
    assert labels == {"x": "Ex (2000)", "y": "y", "z": "Zed"}
    table = data.user_table()
    assert dict(zip(table["ids"], table["age"], strict=True)) == {"a": "30", "b": None}


def test_the_core_is_taken_before_the_split_and_numbers_have_no_gaps(tmp_path: Path) -> None:
    rare = [("rare", "once", 1), ("a", "once2", 1)]
    data = prepared(tmp_path, [*rare, *TINY], k_core=2)
    assert histories(data) == {"b": ["y", "z", "x", "x"], "a": ["y", "x", "z"]}
    assert sorted(set(data.sequences.items.tolist())) == [1, 2, 3]
    assert (data.facts["source_events"], data.facts["events"]) == (9, 7)


def test_users_with_fewer_than_three_events_only_train(tmp_path: Path) -> None:
    data = prepared(tmp_path, [*TINY, ("one", "x", 1), ("two", "x", 1), ("two", "y", 2)])
    names = data.user_ids()
    assert {names[user] for user in data.split.test.users} == {"a", "b"}
    lengths = dict(zip(names, data.train.lengths.tolist(), strict=True))
    assert lengths == {"b": 2, "a": 1, "one": 1, "two": 2}


def test_nothing_left_is_said_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"log: nothing is left of 7 events .* needs 5\. Lower it: --set data\.k_core=2"
    ):
        prepared(tmp_path, TINY, k_core=5)
    assert not list(tmp_path.iterdir())


def test_too_short_histories_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing in the test part.* longest of 2 histories has 2 events"):
        prepared(tmp_path, [("a", "x", 1), ("a", "y", 2), ("b", "x", 1)])


def test_one_user_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all events belong to one user"):
        prepared(tmp_path, [("a", "x", 1), ("a", "y", 2), ("a", "z", 3)])


def test_the_folder_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seqrec.data.prepare.write_json", fail)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path, TINY)
    assert not list(tmp_path.iterdir())


def test_preparing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    folders = [prepared(tmp_path / name, TINY).folder for name in ("one", "two")]
    first, second = (
        {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()} for folder in folders
    )
    assert first == second


def test_arrays_are_mapped_not_read(tmp_path: Path) -> None:
    data = prepared(tmp_path, TINY)
    assert isinstance(data.sequences.items, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        data.sequences.items[0] = 1


def test_the_name_of_a_folder_is_what_went_in() -> None:
    names = {prepared_name(content, DataConfig(k_core=k_core)) for content in ("one", "two") for k_core in (0, 5)}
    assert len(names) == 4
    assert prepared_name("one", DataConfig()) == prepared_name("one", DataConfig())


def edit_facts(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        facts = json.loads((folder / "facts.json").read_text())
        change(facts)
        (folder / "facts.json").write_text(json.dumps(facts))

    return edit


def cut_short(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / name, size)


def overwrite(name: str, array: Any) -> Callable[[Path], object]:
    return lambda folder: np.save(folder / name, array)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "facts missing": lambda folder: (folder / "facts.json").unlink(),
    "facts not JSON": lambda folder: (folder / "facts.json").write_text("{"),
    "facts a list": lambda folder: (folder / "facts.json").write_text("[]"),
    "facts without a count": edit_facts(lambda facts: facts.pop("items")),
    "facts without a format": edit_facts(lambda facts: facts.pop("format")),
    "catalogue missing": lambda folder: (folder / "items.json").unlink(),
    "catalogue too small": edit_facts(lambda facts: facts.update(items=99)),
    "items missing": lambda folder: (folder / "items.npy").unlink(),
    "items empty": cut_short("items.npy", 0),
    "items cut short": cut_short("items.npy", 140),
    "items of another length": overwrite("items.npy", np.ones(3, np.int32)),
    "offsets not an array": lambda folder: (folder / "offsets.npy").write_bytes(b"not an array at all"),
    "split cut short": cut_short("test.npy", 130),
    "split of another shape": overwrite("test.npy", np.zeros((2, 3), np.int64)),
    "training ends of others": overwrite("train_ends.npy", np.zeros(1, np.int64)),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_a_damaged_folder_is_said(tmp_path: Path, damage: str) -> None:
    folder = prepared(tmp_path, TINY).folder
    DAMAGE[damage](folder)
    with pytest.raises(DataError, match="repare the data again"):
        PreparedData.load(folder)


def test_another_format_is_said_with_both_numbers(tmp_path: Path) -> None:
    folder = prepared(tmp_path, TINY).folder
    edit_facts(lambda facts: facts.update(format=99))(folder)
    with pytest.raises(DataError, match=f"format 99, this version of seqrec reads {FORMAT_VERSION}"):
        PreparedData.load(folder)


def test_a_prepared_folder_needs_neither_duckdb_nor_pyarrow_and_loads_without_torch(tmp_path: Path) -> None:
    folder = prepared(tmp_path, TINY).folder
    script = f"""
import sys
sys.modules.update(dict.fromkeys(("duckdb", "pyarrow", "torch")))
from seqrec.data.load import load_data
data = load_data({str(folder)!r})
assert data.sequences.num_events == 7
del sys.modules["torch"]
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.models.popularity import Popularity, PopularityConfig
scorer = Popularity(PopularityConfig(), 3).fit(data.train)
print(len(Evaluator(data, EvaluationConfig()).evaluate(scorer, "test").ranks))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "2"


def test_ml_1m_is_what_counting_by_hand_gives(tmp_path: Path, ml_1m_zip: Path) -> None:
    """5-core, order and targets from ratings.dat in plain Python, with no code of ours."""
    data = prepare(read_zip("ml-1m", ml_1m_zip), DataConfig(source="ml-1m", k_core=5), tmp_path / "prepared")
    with zipfile.ZipFile(ml_1m_zip) as archive:
        lines = archive.read("ml-1m/ratings.dat").decode("ascii").splitlines()
    events = [(user, item, int(time)) for user, item, _, time in (line.split("::") for line in lines)]
    while True:
        users, items = Counter(event[0] for event in events), Counter(event[1] for event in events)
        left = [event for event in events if users[event[0]] >= 5 and items[event[1]] >= 5]
        if len(left) == len(events):
            break
        events = left
    events.sort(key=lambda event: (event[0], event[2]))  # stable: ties stay in the order of the file
    targets = {user: item for user, item, _ in events}  # the last one stays
    text = "".join(sorted(f"{user}\t{item}\n" for user, item in targets.items()))

    assert (len(users), len(items), len(events)) == (6040, 3416, 999_611)
    assert (data.facts["users"], data.facts["items"], data.facts["events"]) == (6040, 3416, 999_611)
    assert data.facts["test_targets"] == hashlib.sha256(text.encode()).hexdigest()
    assert data.catalogue.find("Toy Story (1995)") == data.catalogue.index["1"]
    expected = defaultdict(list)
    for user, item, _ in events:
        expected[user].append(item)
    assert histories(data) == expected
