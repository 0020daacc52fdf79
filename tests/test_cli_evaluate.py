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
from seqrec.evaluation.predictions import Predictions
from seqrec.evaluation.significance import paired_test

COLUMNS = ("--user", "uid", "--item", "iid", "--time", "ts")
LISTS = ("--predictions", "lists.parquet", "log.csv", *COLUMNS)


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
    # People by the text of their ids, as in comparisons: the p value is theirs to the last digit.
    assert test["test"]["p_permutation"] == expected.p_permutation
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
    assert "(1 without a list)" in found["protocol"]
    assert found["metrics"]["recall@10"] <= seqrec.Run(place / "sasrec").metrics["recall@10"]


def test_a_file_and_a_model_are_judged_on_the_split_that_is_asked_for(place: Path) -> None:
    split = ("--set", "data.split=temporal", "--set", "data.targets=last")
    seen = ("--set", "evaluation.filter_seen=false", "--missing", "miss")
    found = judged(place, *LISTS, *split, *seen, "--against", "markov")
    assert "global split in time" in found["protocol"]
    assert "seen items not left out" in found["protocol"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQREC_CACHE", str(place / "cache"))
        data = seqrec.load_data(place / "log.csv", split="temporal", targets="last", **NAMES)
        predictions = Predictions.read(place / "lists.parquet", data, "miss")
        expected, markov = (seqrec.evaluate(x, data, settings={"filter_seen": False}) for x in (predictions, "markov"))
    assert found["metrics"] == expected.metrics
    assert found["against"]["other"] == pytest.approx(markov.metrics["ndcg@10"])
    assert judged(place, "markov", "log.csv", *COLUMNS, *split, *seen)["metrics"] == markov.metrics


def test_a_model_takes_settings_of_its_own(place: Path) -> None:
    words = ("markov", "log.csv", *COLUMNS)
    plain, wide = judged(place, *words), judged(place, *words, "--set", "model.window=3", "--set", "model.decay=0.9")
    settings = {"model.window": 3, "model.decay": 0.9, **{f"data.{name}": column for name, column in NAMES.items()}}
    run = seqrec.train(place / "log.csv", "markov", settings=settings, out=place / "wide", device="cpu")
    assert wide["metrics"] == run.metrics != plain["metrics"]
    shutil.rmtree(run.path)


def test_a_model_is_meant_beside_a_folder_of_its_name(place: Path) -> None:
    shutil.copytree(place / "popular", place / "markov")
    run, model = judged(place, "markov"), judged(place, "markov", "log.csv", *COLUMNS)
    shutil.rmtree(place / "markov")
    assert run["metrics"] == seqrec.Run(place / "popular").metrics
    assert model == judged(place, "markov", "log.csv", *COLUMNS)


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
        (2, "Name the data of the lists", ("--predictions", "lists.parquet")),
        (2, "leave log.csv out", ("popular", "log.csv")),
        (2, "no_such.csv: there is no such file or folder", ("sasrec", "--against", "no_such.csv")),
        (2, "runs/other: there is no such file or folder", ("sasrec", "--against", "runs/other")),
        (2, "runs/other: there is no such file or folder", ("runs/other", "log.csv")),
        (2, "data.split: a run, which brings its data", ("sasrec", "--set", "data.split=temporal")),
        (2, "data.user: a run, which brings its data", ("sasrec", "--user", "uid")),
        (2, "model.window: a file of lists takes data.KEY=VALUE, evaluation", (*LISTS, "--set", "model.window=3")),
        (2, "Did you mean evaluation.filter_seen?", ("sasrec", "--set", "filter_seen=false")),
        (2, "Did you mean data.targets?", (*LISTS, "--set", "targets=last")),
        (2, "Did you mean evaluation.filter_seen?", (*LISTS, "--set", "evaluation.filterseen=false")),
        (2, "Did you mean model.window?", ("markov", "log.csv", *COLUMNS, "--set", "model.windw=3")),
        (2, "data.source: name the data", (*LISTS, "--set", "data.source=log.csv")),
        (2, "model.name: name the model", ("markov", "log.csv", "--set", "model.name=ease")),
        (2, "training.epochs: a model takes", ("markov", "log.csv", "--set", "training.epochs=3")),
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
