"""Training and evaluating in one call, from whatever people have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow.csv
import pytest

import seqrec
from conftest import COLUMNS, SMALL
from seqrec.errors import ConfigError, DataError, RunFolderError, UnknownNameError
from seqrec.experiments.door import run_data
from seqrec.experiments.run import Run
from seqrec.models.popularity import Popularity
from seqrec.models.sasrec import SASRec

FAST: dict[str, Any] = {"device": "cpu", "settings": {**SMALL, "training.epochs": 1}}


class Mine(SASRec):
    """A model of somebody else's."""


@pytest.mark.parametrize("read", [pandas.read_csv, polars.read_csv, pyarrow.csv.read_csv, str, Path])
def test_every_kind_of_table_gives_the_same_run(read: Any, small_log: Path, tmp_path: Path) -> None:
    run = seqrec.train(read(small_log), "popularity", out=tmp_path / "run", device="cpu", **COLUMNS)
    expected = seqrec.evaluate("popularity", seqrec.load_data(small_log, **COLUMNS))
    assert run.metrics == expected.metrics
    assert run.facts["data"]["users"] == 40


def test_a_frame_trains_a_model_that_recommends(small_log: Path, tmp_path: Path) -> None:
    run = seqrec.train(pandas.read_csv(small_log), "sasrec", out=tmp_path / "run", **FAST, **COLUMNS)
    assert len(run.recommender().recommend(["i3", "i4"], k=5)) == 5
    assert seqrec.evaluate(run).metrics == pytest.approx(run.metrics)


def test_prepared_data_needs_no_columns(small_log: Path, tmp_path: Path) -> None:
    data = seqrec.load_data(small_log, **COLUMNS)
    run = seqrec.train(data, "sasrec", out=tmp_path / "run", **FAST)
    assert run.facts["data"]["folder"] == str(data.folder)
    assert seqrec.evaluate(run, part="validation").metrics == pytest.approx(run.validation)


def test_a_class_is_a_model(small_log: Path, tmp_path: Path) -> None:
    run = seqrec.train(small_log, Mine, out=tmp_path / "mine", **FAST, **COLUMNS)
    other = seqrec.train(small_log, "sasrec", out=tmp_path / "sasrec", **FAST, **COLUMNS)
    assert run.config.model_name == f"{__name__}:Mine"
    assert isinstance(run.recommender().scorer, Mine)
    assert run.metrics == other.metrics


def test_a_class_that_cannot_be_found_again_is_refused(small_log: Path, tmp_path: Path) -> None:
    class Local(SASRec):
        pass

    with pytest.raises(UnknownNameError, match=r"has no .*Local"):
        seqrec.train(small_log, Local, out=tmp_path / "run", **FAST, **COLUMNS)


def test_nested_settings_keep_the_model_that_was_asked_for(small_log: Path, tmp_path: Path) -> None:
    settings = {"model": {"embedding_dim": 16}, "training": {"epochs": 1}}
    run = seqrec.train(small_log, "sasrec", settings=settings, out=tmp_path / "run", device="cpu", **COLUMNS)
    assert run.config.model_name == "sasrec"


def test_a_run_gets_a_folder_of_its_own(small_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = seqrec.train(small_log, "popularity", seed=5, device="cpu", **COLUMNS)
    assert run.path.parent == Path("runs")
    assert run.path.name.startswith("log-popularity-5-")


def test_two_runs_in_the_same_second(small_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = (seqrec.train(small_log, "popularity", device="cpu", **COLUMNS) for _ in range(2))
    assert first.path != second.path


def test_evaluate_takes_names_objects_and_runs(small_log: Path, small_run: Path) -> None:
    data = seqrec.load_data(small_log, **COLUMNS)
    by_name = seqrec.evaluate("popularity", data)
    fitted = Popularity(Popularity.Config(), data.sequences.num_items).fit(data.train)
    assert seqrec.evaluate(fitted, data).metrics == by_name.metrics
    run = Run(small_run)
    assert seqrec.evaluate(run).metrics == pytest.approx(run.metrics)
    assert seqrec.evaluate(run, part="validation").metrics == pytest.approx(run.validation)


def test_a_run_is_its_folder_too(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = seqrec.evaluate(Run(small_run))
    for folder in (small_run, str(small_run)):
        assert seqrec.evaluate(folder).metrics == expected.metrics
    with pytest.raises(ConfigError, match="leave `data` out"):
        seqrec.evaluate(str(small_run), "ml-100k")
    monkeypatch.chdir(small_run.parent)
    assert seqrec.evaluate("run").metrics == expected.metrics


@pytest.mark.parametrize("what", ["markov", Popularity(Popularity.Config(), 5)])
def test_missing_data_is_named(what: Any) -> None:
    with pytest.raises(ConfigError, match="`data` is missing"):
        seqrec.evaluate(what)


def test_what_is_nothing_is_told(small_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small_log.parent)
    with pytest.raises(ConfigError, match=r"log\.csv is a file and no run"):
        seqrec.evaluate("log.csv")
    for path in ("runs/nothing", Path("runs/nothing"), "nothing.csv"):
        with pytest.raises(ConfigError, match=r"nothing.*: there is no such file or folder"):
            seqrec.evaluate(path, small_log)
    with pytest.raises(UnknownNameError, match="Did you mean 'markov'"):
        seqrec.evaluate("markof", small_log)
    Path("markov").mkdir()  # of that name, and no run
    with pytest.raises(ConfigError, match="`data` is missing"):
        seqrec.evaluate("markov")
    Path("other").mkdir()
    with pytest.raises(RunFolderError, match="other is not a run folder"):
        seqrec.evaluate("other")


@pytest.fixture
def copied(small_run: Path, tmp_path: Path) -> Path:
    """The small run, where it may be changed."""
    return Path(shutil.copytree(small_run, tmp_path / "copied"))


def change_facts(run: Path, **data: Any) -> Run:
    facts = json.loads((run / "run.json").read_text())
    facts["data"] |= data
    (run / "run.json").write_text(json.dumps(facts))
    return Run(run)


def test_a_run_is_not_judged_on_other_targets(copied: Path) -> None:
    with pytest.raises(DataError, match="made on other data"):
        run_data(change_facts(copied, test_targets="0" * 64))


def test_data_that_is_gone_is_prepared_again(copied: Path) -> None:
    run = change_facts(copied, folder=str(copied / "gone"))
    assert run_data(run).facts["test_targets"] == run.facts["data"]["test_targets"]


def test_a_source_that_changed_is_noticed(copied: Path, small_log: Path) -> None:
    lines = small_log.read_text().splitlines()
    changed = copied / "log.csv"
    changed.write_text("\n".join(line for line in lines if not line.startswith("u7,")) + "\n")
    facts = json.loads((copied / "run.json").read_text())
    facts["config"]["data"]["source"] = str(changed)
    (copied / "run.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="made on other data"):
        run_data(change_facts(copied, folder=str(copied / "gone")))


def test_a_frame_that_is_gone_is_told(copied: Path) -> None:
    facts = json.loads((copied / "run.json").read_text())
    facts["config"]["data"]["source"] = "frame"
    (copied / "run.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="its source, frame, is not there either"):
        run_data(change_facts(copied, folder=str(copied / "gone")))


# --- What is recorded is what was used


def test_an_unfinished_run_is_not_continued_on_other_data(small_log: Path, tmp_path: Path) -> None:
    frame = pandas.read_csv(small_log)
    run = seqrec.train(frame, "popularity", out=tmp_path / "run", device="cpu", **COLUMNS)
    (run.path / "results.json").unlink()
    changed = frame[frame["uid"] != "u7"]
    with pytest.raises(DataError, match="made on other data: the fingerprint"):
        seqrec.train(changed, "popularity", out=tmp_path / "run", device="cpu", **COLUMNS)


def test_settings_of_data_that_are_prepared_are_refused(small_log: Path) -> None:
    data = seqrec.load_data(small_log, **COLUMNS)
    with pytest.raises(ConfigError, match="prepared already"):
        seqrec.train(data, "popularity", settings={"data.k_core": 2})
    with pytest.raises(ConfigError, match="prepared already"):
        seqrec.load_data(data.folder, k_core=2)
    with pytest.raises(ConfigError, match="name the data as the first argument"):
        seqrec.train(data, "popularity", settings={"data.source": "ml-1m"})


def test_columns_of_a_known_data_set_are_refused() -> None:
    with pytest.raises(ConfigError, match="knows its columns; user are for tables"):
        seqrec.load_data("ml-1m", user="uid")


def test_a_run_on_a_prepared_folder_records_how_it_was_prepared(small_log: Path, tmp_path: Path) -> None:
    data = seqrec.load_data(small_log, k_core=3, **COLUMNS)
    run = seqrec.train(data.folder, "popularity", out=tmp_path / "run", device="cpu")
    assert run.config.data.k_core == 3
    assert run.config.data.source == str(small_log)
    assert "log, 3-core" in run.results["test"]["protocol"]


def test_random_weights_are_not_judged(small_log: Path) -> None:
    data = seqrec.load_data(small_log, **COLUMNS)
    with pytest.raises(ConfigError, match="sasrec has to be trained"):
        seqrec.evaluate("sasrec", data)


def test_a_run_brings_its_own_data_and_takes_other_settings(small_log: Path, tmp_path: Path) -> None:
    data = seqrec.load_data(small_log, **COLUMNS)
    run = seqrec.train(data, "markov", out=tmp_path / "run", device="cpu")
    with pytest.raises(ConfigError, match="leave `data` out"):
        seqrec.evaluate(run, data)
    assert "seen items not left out" in seqrec.evaluate(run, settings={"filter_seen": False}).protocol
    with pytest.raises(ConfigError, match="choose validation or test"):
        seqrec.evaluate(run, part="valid")


def test_a_seed_is_a_setting_too(small_log: Path, tmp_path: Path) -> None:
    settings = {"seed": 7}
    run = seqrec.train(small_log, "popularity", settings=settings, out=tmp_path / "run", device="cpu", **COLUMNS)
    assert run.config.seed == 7


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(device: str, small_log: Path) -> None:
    with pytest.raises(ConfigError, match=f"--device {device}"):
        seqrec.evaluate("markov", seqrec.load_data(small_log, **COLUMNS), device=device)
