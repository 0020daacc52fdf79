"""Filters and splits as people set them: on a whole log, with their words, their refusals, and the cache."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seqrec
from conftest import COLUMNS, SMALL, write_small_log
from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError, DataError

#: Two sessions a day for twenty days, in seconds; ratings 1 to 5.
DAY, STEP = 86_400, 60


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    """A log of 30 people who come back to the same items, several times a day."""
    random = np.random.default_rng(1)
    lines = ["user,item,ts,rating"]
    for user in range(30):
        for visit in range(int(random.integers(3, 9))):
            start = 1_600_000_000 + user * 1000 + visit * DAY // 2
            for step in range(int(random.integers(1, 6))):
                lines.append(f"u{user},i{random.integers(12)},{start + step * STEP},{random.integers(1, 6)}")
    (tmp_path / "visits.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "visits.csv"


def prepared(source: Any, **settings: Any) -> PreparedData:
    return seqrec.load_data(source, **{"k_core": 0, **settings})


def rows(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()[1:]]


def test_ratings_and_dates_are_those_of_the_file(visits: Path) -> None:
    low, high = "2020-09-15", "2020-09-16T12:00"
    data = prepared(visits, min_value=3, since=low, until=high)
    bounds = [int(np.datetime64(date, "s").astype(int)) for date in (low, high)]
    kept = [row for row in rows(visits) if int(row[3]) >= 3 and bounds[0] <= int(row[2]) < bounds[1]]
    assert data.facts["events"] == len(kept) > 0
    assert data.sequences.values is not None
    assert sorted(data.sequences.values) == sorted(float(row[3]) for row in kept)
    assert "no k-core, ratings from 3.0, since 2020-09-15, until 2020-09-16T12:00" in str(data.facts["kept"])


def test_repeats(visits: Path) -> None:
    pairs = {(user, item) for user, item, _, _ in rows(visits)}
    assert prepared(visits).facts["events"] == len(rows(visits))
    first = prepared(visits, repeats="first")
    assert first.facts["events"] == len(pairs)
    assert first.facts["repeated_events"] == 0.0
    assert prepared(visits, revisits=False).facts["repeats"] == "first"


def test_where_people_come_back_seen_items_are_recommended(visits: Path) -> None:
    protocols = {
        (revisits, repeats): seqrec.evaluate(
            "popularity", prepared(visits, revisits=revisits, repeats=repeats), device="cpu"
        ).protocol
        for revisits, repeats in ((True, "auto"), (True, "first"), (None, "auto"))
    }
    assert "seen items not left out" in protocols[True, "auto"]
    assert "whole earlier history left out" in protocols[True, "first"]
    assert "whole earlier history left out" in protocols[None, "auto"]


def test_sessions_are_histories(visits: Path) -> None:
    data = prepared(visits, session_gap=60, min_session=2, histories="sessions", repeats="keep")
    assert min(data.sequences.lengths) >= 2
    assert all("#" in name for name in data.user_ids())
    assert "items no k-core, sessions of at least 2 (pauses of 60 minutes)" in str(data.facts["kept"])
    assert data.sequences.times is not None
    for user in range(len(data.sequences)):
        times = data.sequences.times[data.sequences.starts[user] : data.sequences.ends[user]]
        assert (np.diff(times) <= 3_600_000).all()


def test_new_people_are_new_with_all_their_sessions(visits: Path) -> None:
    data = prepared(visits, session_gap=60, min_session=2, histories="sessions", split="new_users", holdout=(0.2, 0.3))
    people = np.array([name.partition("#")[0] for name in data.user_ids()])
    trained = set(people[data.train.lengths > 0])
    for part in ("validation", "test"):
        assert not trained & set(people[data.cases(part).users])


def test_busy_people_go(visits: Path) -> None:
    per_day: dict[tuple[str, int], int] = {}
    for user, _, time, _ in rows(visits):
        per_day[user, int(time) // DAY] = per_day.get((user, int(time) // DAY), 0) + 1
    busy = {user for (user, _), count in per_day.items() if count > 8}
    data = prepared(visits, max_per_day=8)
    assert set(data.user_ids()) == {row[0] for row in rows(visits)} - busy
    assert busy


@pytest.mark.parametrize("split", ["temporal", "ratio", "last_session", "new_users"])
def test_every_split_is_trained_and_judged(visits: Path, tmp_path: Path, split: str) -> None:
    settings = {**SMALL, "training.epochs": 1, "data.split": split, "data.session_gap": 60.0, "data.k_core": 0}
    run = seqrec.train(visits, "sasrec", settings=settings, out=tmp_path / "run", device="cpu")
    assert 0 <= run.metrics["ndcg@10"] <= 1
    assert str(run.facts["data"]["split"]) in run.results["test"]["protocol"]


def test_repeated_targets_of_a_frozen_history(visits: Path) -> None:
    data = prepared(visits, split="temporal", targets="all", repeats="keep")
    cases, items = data.cases("test"), data.sequences.items
    shown = [
        items[position] in items[data.sequences.starts[user] : end]
        for user, position, end in zip(cases.users, cases.positions, cases.ends, strict=True)
    ]
    assert data.facts["test"]["repeated"] == pytest.approx(np.mean(shown))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"min_value": 9}, "nothing is left of .* with min_value=9.0. Loosen it"),
        ({"since": "2030-01-01"}, "with since=2030-01-01"),
        ({"session_gap": 60, "min_session": 50}, "with min_session=50"),
        ({"max_per_day": 1}, "with max_per_day=1"),
        ({"k_core": 99}, "every user and item needs 99"),
        (
            {"split": "temporal", "validation_from": "2030-01-01", "test_from": "2031-01-01"},
            "The log is from 2020-09-13 to .*: choose validation_from",
        ),
        ({"split": "temporal", "validation_from": "2000-01-01", "test_from": 0.9}, "nothing in the training part"),
        ({"split": "last_session", "session_gap": 1e9}, "choose another session_gap"),
    ],
)
def test_what_leaves_nothing_is_named(visits: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        prepared(visits, **settings)


def test_filters_that_need_a_clock_or_ratings_say_so(visits: Path) -> None:
    with pytest.raises(ConfigError, match="since, session_gap need clock times"):
        prepared(visits, time_unit="order", since="2020-01-01", session_gap=5)
    (visits.with_name("plain.csv")).write_text("user,item,ts\nu,i,1600000000\nv,i,1600000001\n")
    with pytest.raises(ConfigError, match=r"--set data\.value=COLUMN"):
        prepared(visits.with_name("plain.csv"), min_value=3)


def test_a_changed_file_is_prepared_again_whatever_its_name(tmp_path: Path) -> None:
    for name in ("log [1].csv", "log.csv"):
        path = write_small_log(tmp_path / name)
        before = seqrec.load_data(path, **COLUMNS)
        (tmp_path / "log.html").write_text("a report beside it")
        assert seqrec.load_data(path, **COLUMNS).folder == before.folder
        path.write_text(path.read_text() + "u1,i1,1600000000\n")
        assert seqrec.load_data(path, **COLUMNS).facts["source_events"] == before.facts["source_events"] + 1


def test_a_run_on_named_data_is_judged_when_its_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_log(tmp_path / "log.csv")
    (tmp_path / "my_shop.py").write_text(
        "from pathlib import Path\nfrom seqrec.data.sources.table import read_table\n"
        "def load(name, *, cache, report):\n"
        f"    return read_table({str(tmp_path / 'log.csv')!r}, user='uid', item='iid', time='ts')\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    run = seqrec.train("my_shop:load", "popularity", out=tmp_path / "run", device="cpu")
    shutil.rmtree(run.facts["data"]["folder"])
    assert seqrec.evaluate(run, device="cpu").metrics == run.metrics
