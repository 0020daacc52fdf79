"""Files of lists that are refused: each message names what is wrong, and where."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lists import Entry, changed, drawn, judge, load, long_form, ranked, top, wide_form
from seqrec.data.prepared import PreparedData
from seqrec.errors import DataError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return load(tmp_path_factory.mktemp("data"))


BAD: dict[str, tuple[Callable[[list[Entry]], Any], str]] = {
    "unknown user": (
        lambda e: changed(e, 40, ("ghost", "i1", 1.0)),
        r"1 person \(1 of 1,200 rows\) is not in log: 'ghost'; there people are called 'u\d+'.*of the source",
    ),
    "unknown item": (
        lambda e: changed(e, 40, ("u1", "film", 1.0)),
        r"1 item \(1 of 1,200 rows\) is not in log: 'film'",
    ),
    "unknown items": (
        lambda e: changed(e, 40, ("u1", "film", 1.0)).replace({"item": {"i3": "book"}}),
        r"2 items \(\d+ of 1,200 rows\) are not in log, such as '(film|book)', '(film|book)'; there items are called",
    ),
    "some twice": (lambda e: long_form([*e, *e[7:9]]), r"2 entries occur again, the first is user 'u\d+'"),
    "twice": (lambda e: long_form([*e, e[7]]), r"1 entry occurs again, the first is user 'u\d+', item 'i\d+'"),
    "nan": (lambda e: changed(e, 4, (*e[4][:2], math.nan)), r"row 5, column 'score': no finite number.*1 of 1,200"),
    "infinite": (lambda e: changed(e, 4, (*e[4][:2], -math.inf)), r"row 5.*found '-inf'"),
    "words for scores": (lambda e: long_form(e).assign(score="high"), r"row 1, column 'score'.*found 'high'"),
    "no user": (lambda e: changed(e, 3, (None, "i1", 1.0)), r"row 4, column 'user': no usable id"),  # type: ignore[arg-type]
    "empty": (lambda e: long_form(e)[:0], "is empty: it has columns and no entry"),
    "no scores": (lambda e: long_form(e).drop(columns="score"), r"no file of predictions.*Columns found: user, item\."),
    "other columns": (lambda e: long_form(e).set_axis(["a", "b", "c"], axis=1), r"Columns found: a, b, c\."),
    "contradiction": (
        lambda e: ranked(e).assign(rank=lambda f: 31 - f["rank"]),
        r"rank and score contradict each other at user 'u\d+'",
    ),
    "ranks from 0": (
        lambda e: ranked(e).assign(rank=lambda f: f["rank"] - 1).drop(columns="score"),
        r"row 1, column 'rank': no rank, found '0'.*rank 1",
    ),
    "half a rank": (
        lambda e: ranked(e).assign(rank=lambda f: f["rank"] / 2 + 1),
        r"row 1, column 'rank': no rank, found '1.5'.*whole numbers",
    ),
    "one rank for everybody": (
        lambda e: ranked(e).assign(rank=1).drop(columns="score"),
        r"one rank for 40 of 40 people, the first at user 'u\d+'.*give a column `score`",
    ),
    "one rank for one person": (
        lambda e: ranked(e).assign(rank=lambda f: f["rank"].where(f["user"] != "u7", 3)).drop(columns="score"),
        r"one rank for 1 of 40 people, the first at user 'u7'",
    ),
    "uneven lists": (
        lambda e: wide_form(e).set_column(2, "scores", pa.array([[1.0]] * 40)),
        r"user 'u\d+' has more items than scores",
    ),
    "two lists": (
        lambda e: pa.concat_tables([wide_form(e), pa.table({"user": ["u5"], "items": [["i1"]], "scores": [[1.0]]})]),
        "user 'u5' has several lists",
    ),
    "too short": (lambda e: long_form(e[::30]), r"the list of user 'u\d+' has 0 items.*smallest cut-off is 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(case: str, data: PreparedData) -> None:
    make, message = BAD[case]
    with pytest.raises(DataError, match=message):
        judge(make(top(drawn(data), data, 30)), data)


def test_ranks_may_tie_and_one_entry_has_one_rank(data: PreparedData) -> None:
    frame = ranked(top(drawn(data), data, 30)).drop(columns="score")
    pairs = frame.assign(rank=(frame["rank"] + 1) // 2)  # two of each
    scores = pairs.rename(columns={"rank": "score"}).assign(score=lambda f: -f["score"])
    assert judge(pairs, data).metrics == judge(scores, data).metrics
    first = frame[frame["rank"] == 1]
    assert judge(first, data, "miss", ks=(1,)).ks == (1,)
    beside = ranked(top(drawn(data), data, 30)).assign(rank=1)  # where there are scores, they decide
    assert judge(beside, data).metrics == judge(beside.drop(columns="rank"), data).metrics


def test_no_file_and_nobody(data: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        judge(tmp_path / "nothing.parquet", data)
    (tmp_path / "header.csv").write_text("user,item,score\n")
    with pytest.raises(DataError, match=r"header.csv is empty"):
        judge(tmp_path / "header.csv", data)


def test_lines_of_text_files_are_named(data: PreparedData, tmp_path: Path) -> None:
    frame = changed(top(drawn(data), data, 30), 4, ("u0", "i3", math.nan))
    frame.to_csv(tmp_path / "lists.csv", index=False)
    with pytest.raises(DataError, match=r"lists.csv, line 6, column 'score': no finite number, found nothing"):
        judge(tmp_path / "lists.csv", data)
