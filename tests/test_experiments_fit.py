"""From settings and data to a finished run: what is in its folder, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import seqrec
from conftest import COLUMNS, SMALL
from seqrec.errors import RunFolderError
from seqrec.experiments.run import Run
from seqrec.experiments.seeds import over_seeds
from seqrec.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(small_run: Path) -> Run:
    return Run(small_run)


def test_what_a_finished_run_keeps(run: Run) -> None:
    assert {path.name for path in run.path.iterdir()} == {
        "run.json", "items.json", "best.safetensors", "history.jsonl", "results.json", "tensorboard",
        "per_user.validation.parquet", "per_user.test.parquet",
    }  # fmt: skip


def test_the_facts_of_a_run(run: Run) -> None:
    assert set(run.facts["environment"]) >= {"seqrec", "python", "torch", "processor", "cores", "threads", "device"}
    assert set(run.facts["data"]) >= {"fingerprint", "test_targets", "users", "items", "folder"}
    assert len(run.facts["data"]["test_targets"]) == 64
    assert run.facts["config"]["model"]["embedding_dim"] == SMALL["model.embedding_dim"]
    assert run.config.to_dict() == run.facts["config"]


def test_the_results_of_a_run(run: Run) -> None:
    training = run.results["training"]
    assert training["epochs"] == 3
    assert 1 <= training["best_epoch"] <= 3
    assert training["parameters"] > 1000
    assert training["seconds"] > 0
    for part in ("validation", "test"):
        assert run.results[part]["cases"] == 40
        assert "every item of the catalogue ranked" in run.results[part]["protocol"]
        assert set(run.results[part]) == {"protocol", "cases", "metrics", "by_popularity", "by_length"}
    assert run.metrics == run.results["test"]["metrics"]
    assert run.metrics["hit_rate@10"] == run.metrics["recall@10"]
    best = run.folder.epochs()[training["best_epoch"] - 1]
    assert run.validation == pytest.approx(best["validation"])


@pytest.mark.parametrize("part", ["validation", "test"])
def test_results_per_user_add_up_to_the_measures(run: Run, part: str) -> None:
    table = pq.read_table(run.folder.per_user(part))
    ranks = np.array(table["rank"])
    assert np.mean(np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)) == pytest.approx(
        run.results[part]["metrics"]["ndcg@10"]
    )
    assert sorted(table["user"].to_pylist()) == sorted(f"u{number}" for number in range(40))
    for row in table.to_pylist():
        place = row["recommended"].index(row["target"]) + 1 if row["target"] in row["recommended"] else None
        assert place == (row["rank"] if row["rank"] <= 50 and place else None)


def test_a_baseline_is_a_run_too(popularity_run: Path) -> None:
    run = Run(popularity_run)
    assert run.results["training"]["epochs"] == 0
    assert not (run.path / "history.jsonl").exists()
    assert run.folder.epochs() == []
    assert 0 < run.metrics["ndcg@10"] < 1


def train(log: Path, out: Path, **settings: Any) -> Run:
    changes = {**SMALL, **{key.replace("__", "."): value for key, value in settings.items()}}
    return seqrec.train(log, "sasrec", settings=changes, out=out, device="cpu", **COLUMNS)


def test_a_finished_run_is_not_trained_over(small_log: Path, tmp_path: Path) -> None:
    run = train(small_log, tmp_path / "run", training__epochs=1)
    before = (run.path / "best.safetensors").read_bytes()
    for epochs in (1, 2):
        with pytest.raises(RunFolderError, match="holds a run already: it is finished"):
            train(small_log, tmp_path / "run", training__epochs=epochs)
    assert (run.path / "best.safetensors").read_bytes() == before


def test_an_unfinished_run_of_other_settings_is_not_trained_over(small_log: Path, tmp_path: Path) -> None:
    run = train(small_log, tmp_path / "run", training__epochs=1)
    (run.path / "results.json").unlink()
    with pytest.raises(RunFolderError, match="holds a run already: go on with it by --resume"):
        train(small_log, tmp_path / "run", training__epochs=2)
    again = train(small_log, tmp_path / "run", training__epochs=1)
    assert again.results["training"]["epochs"] == 1


def test_an_unfinished_run_from_before_a_setting_came_goes_on(small_log: Path, tmp_path: Path) -> None:
    run = train(small_log, tmp_path / "run", training__epochs=1)
    (run.path / "results.json").unlink()
    facts = json.loads((run.path / "run.json").read_text())
    del facts["config"]["training"]["schedule"]
    (run.path / "run.json").write_text(json.dumps(facts))
    again = train(small_log, tmp_path / "run", training__epochs=1)
    assert again.results["training"]["epochs"] == 1


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(small_log: Path, tmp_path: Path) -> None:
    columns: dict[str, Any] = {"settings": {**SMALL, "training.epochs": 1}, "device": "cpu", **COLUMNS}
    first, second, third = (
        seqrec.train(small_log, "sasrec", seed=seed, out=tmp_path / str(number), **columns)
        for number, seed in enumerate((1, 1, 2))
    )
    assert first.results["test"] == second.results["test"]
    assert first.results["test"] != third.results["test"]
    assert first.facts["data"]["test_targets"] == third.facts["data"]["test_targets"]
    summary = over_seeds([first, third], "ndcg@10")
    values = [run.metrics["ndcg@10"] for run in (first, third)]
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.deviation == pytest.approx(np.std(values, ddof=1))
    assert str(over_seeds([first], "ndcg@10")).endswith("± 0.0000")


def test_results_are_strict_json(run: Run) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    for name in ("run.json", "results.json", "items.json"):
        json.loads((run.path / name).read_text(encoding="utf-8"), parse_constant=refuse)


def test_a_run_says_what_it_is(run: Run) -> None:
    assert repr(run).startswith(f"Run({str(run.path)!r}, sasrec on ")
    assert isinstance(run.folder, RunFolder)
