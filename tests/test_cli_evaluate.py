"""`seqrec evaluate`: files of predictions, and paired tests against runs, files and baselines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import seqrec
from commands import Finished
from commands import seqrec as command
from conftest import COLUMNS as NAMES
from seqrec.evaluation.significance import paired_test

COLUMNS = ("--user", "uid", "--item", "iid", "--time", "ts")


@pytest.fixture(scope="module")
def place(small_run: Path, popularity_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with log.csv, two runs on it, and lists of the first run, long and all of one length."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copy(small_run.parent / "log.csv", folder)
    for run, name in ((small_run, "sasrec"), (popularity_run, "popular")):
        shutil.copytree(run, folder / name)
    kept = pq.read_table(small_run / "per_user.test.parquet").to_pandas()
    lists = kept[["user", "recommended"]].explode("recommended").rename(columns={"recommended": "item"})
    lists = lists[lists["item"] != ""]
    lists["rank"] = lists.groupby("user").cumcount() + 1
    lists.to_parquet(folder / "lists.parquet")
    lists[lists["rank"] <= 5].to_csv(folder / "five.csv", index=False)
    lists[lists["user"] != "u1"].to_csv(folder / "fewer.csv", index=False)
    return folder


def judged(place: Path, *arguments: str) -> Any:
    found = command("evaluate", *arguments, "--json", cwd=place)
    assert found.code == 0, found.err
    return json.loads(found.out)


def values(run: Path) -> np.ndarray:
    """NDCG@10 by person, from what the run kept."""
    ranks = pq.read_table(run / "per_user.test.parquet").to_pandas().sort_values("user")["rank"].to_numpy()
    return np.where(ranks <= 10, 1 / np.log2(ranks + 1.0), 0.0)


def test_lists_of_a_run_have_its_numbers(place: Path) -> None:
    found = judged(place, "--predictions", "lists.parquet", "log.csv", *COLUMNS)
    kept = seqrec.Run(place / "sasrec").metrics
    assert found["metrics"] == {name: kept[name] for name in found["metrics"]}
    assert found["protocol"].endswith("items that may be shown")
    validation = judged(place, "--predictions", "lists.parquet", "log.csv", "--part", "validation", *COLUMNS)
    assert validation["metrics"] != found["metrics"]


def test_everything_is_printed(place: Path) -> None:
    found = command("evaluate", "--predictions", "five.csv", "log.csv", "--against", "popular", *COLUMNS, cwd=place)
    assert found.code == 0, found.err
    printed = " ".join(found.out.split())
    for part in ("five.csv, test, 40 cases", "By popularity", "no cut-off 10 or 20 or 50", "ndcg@5 of five.csv"):
        assert part in printed, part
    for part in ("ndcg@5 of popular", "95% interval over people", "p value, permutation", "effect size", "verdict"):
        assert part in printed, part


@pytest.mark.parametrize(("ks", "metric"), [("[7]", "ndcg@7"), ("[20,30]", "ndcg@20"), ("[3,10,20]", "ndcg@10")])
def test_a_run_s_ranks_have_every_cut_off(ks: str, metric: str, place: Path) -> None:
    found = judged(place, "sasrec", "--set", f"evaluation.ks={ks}", "--against", "popular")
    assert found["against"]["metric"] == metric


@pytest.mark.parametrize(
    "words",
    [
        ("--predictions", "lists.parquet", "log.csv", *COLUMNS, "--against", "popular"),
        ("sasrec", "--against", "popular"),
        ("sasrec", "--against", "popularity"),
    ],
)
def test_against_is_the_paired_test_of_per_user_values(words: tuple[str, ...], place: Path) -> None:
    test = judged(place, *words)["against"]
    ours, others = values(place / "sasrec"), values(place / "popular")
    expected = paired_test(ours, others)
    assert (test["metric"], test["against"]) == ("ndcg@10", words[-1])
    assert (test["value"], test["other"]) == pytest.approx((ours.mean(), others.mean()))
    assert test["test"]["difference"] == pytest.approx(expected.difference)
    assert test["test"]["effect"] == pytest.approx(expected.effect)
    assert test["test"]["users"] == 40
    assert test["test"]["low"] <= test["test"]["difference"] <= test["test"]["high"]
    assert test["test"]["p_permutation"] == pytest.approx(expected.p_permutation, abs=0.02)
    assert test["verdict"] in ("better", "worse", "no difference shown")


def test_a_file_against_what_it_was_made_from_is_no_difference(place: Path) -> None:
    for words in (
        ("sasrec", "--against", "lists.parquet"),
        ("--predictions", "lists.parquet", "log.csv", *COLUMNS, "--against", "sasrec"),
        ("--predictions", "lists.parquet", "log.csv", *COLUMNS, "--against", "lists.parquet"),
    ):
        found = judged(place, *words)["against"]
        assert found["test"]["difference"] == 0
        assert found["verdict"] == "no difference shown"


def test_validation_is_compared_with_validation(place: Path) -> None:
    found = judged(place, "sasrec", "--part", "validation", "--against", "popular")
    kept = [seqrec.Run(place / name).validation["ndcg@10"] for name in ("sasrec", "popular")]
    assert [found["against"]["value"], found["against"]["other"]] == pytest.approx(kept)


def test_missing_people_are_refused_or_counted(place: Path) -> None:
    words = ("--predictions", "fewer.csv", "log.csv", *COLUMNS)
    refused = command("evaluate", *words, cwd=place)
    assert refused.code == 3
    assert "1 of 40 people" in refused.err
    found = judged(place, *words, "--missing", "miss")
    assert "1 people without a list" in found["protocol"]
    assert found["metrics"]["recall@10"] <= seqrec.Run(place / "sasrec").metrics["recall@10"]


@pytest.fixture
def other_split(place: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQREC_CACHE", str(place / "cache"))
        out = place / "in_time"
        seqrec.train(place / "log.csv", "popularity", out=out, split="temporal", targets="last", **NAMES)
    yield out
    shutil.rmtree(out)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sasrec", "--against", "in_time"), "was judged on other test targets"),
        (("sasrec", "--set", "evaluation.filter_seen=false", "--against", "popular"), "was judged otherwise"),
    ],
)
def test_what_was_not_judged_alike_is_not_compared(
    words: tuple[str, ...], told: str, place: Path, other_split: Path
) -> None:
    found = command("evaluate", *words, cwd=place)
    assert found.code == 3, found
    assert told in found.err


@pytest.mark.parametrize(
    ("code", "told", "words"),
    [
        (2, "Name a run", ()),
        (2, "To judge lists in it: --predictions lists.parquet", ("lists.parquet", "log.csv")),
        (2, "there is no such file", ("--predictions", "nothing.parquet", "log.csv")),
        (2, "leave one out", ("--predictions", "lists.parquet", "sasrec", "log.csv")),
        (2, "missing", ("--predictions", "lists.parquet", "log.csv", *COLUMNS, "--missing", "ignore")),
        (2, "Unknown model 'nothing'", ("sasrec", "--against", "nothing")),
        (2, "has to be trained", ("sasrec", "--against", "xlstm")),
        (3, "no file of predictions", ("--predictions", "log.csv", "log.csv", *COLUMNS)),
        (3, "not in log", ("--predictions", "strangers.csv", "log.csv", *COLUMNS)),
        (4, "not a run folder", ("sasrec", "--against", "cache")),
    ],
)
def test_what_is_wrong_is_said(code: int, told: str, words: tuple[str, ...], place: Path) -> None:
    pd.DataFrame({"user": [1], "item": [2], "score": [3.0]}).to_csv(place / "strangers.csv", index=False)
    (place / "cache").mkdir(exist_ok=True)
    found: Finished = command("evaluate", *words, cwd=place)
    assert found.code == code, found
    assert told in found.err
    assert found.err.startswith("error: ")
