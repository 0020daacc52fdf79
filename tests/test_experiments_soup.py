"""Soups: the mean of runs' weights, chosen on validation alone, and a run folder like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import seqrec
from conftest import SMALL
from seqrec.cli import app
from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError, RunFolderError
from seqrec.evaluation.evaluator import Evaluator
from seqrec.experiments import soup as soup_module
from seqrec.experiments.run import Run
from seqrec.experiments.soup import soup
from seqrec.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def data(small_run: Path) -> PreparedData:
    return PreparedData.load(Path(Run(small_run).facts["data"]["folder"]))


@pytest.fixture(scope="module")
def runs(small_run: Path, data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Three runs that go on from the small one with seeds of their own."""
    folder = tmp_path_factory.mktemp("members")
    settings = {**SMALL, "training.start_from": str(small_run), "training.epochs": 2}
    return [
        seqrec.train(data, "sasrec", settings=settings, seed=seed, out=folder / str(seed), device="cpu")
        for seed in (1, 2, 3)
    ]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.folder.best)[0]


def mean(runs: list[Run]) -> dict[str, torch.Tensor]:
    return {
        name: (sum(weights(run)[name].double() for run in runs) / len(runs)).float()  # type: ignore[union-attr]
        for name in weights(runs[0])
    }


def test_a_uniform_soup_is_the_mean_and_a_run_like_any_other(
    runs: list[Run], data: PreparedData, tmp_path: Path
) -> None:
    made = soup(runs, tmp_path / "soup", uniform=True, device="cpu")
    for name, value in mean(runs).items():
        torch.testing.assert_close(weights(made)[name], value, rtol=0, atol=1e-7)
    scorer = made.recommender().scorer
    for part in ("validation", "test"):
        found = Evaluator(data, made.config.evaluation).evaluate(scorer, part)
        assert made.results[part]["metrics"] == pytest.approx(found.metrics)
    members = made.results["training"]["members"]
    assert [member["weight"] for member in members] == [1 / 3] * 3
    assert {member["run"] for member in members} == {str(run.path) for run in runs}
    assert made.results["training"]["parameters"] == runs[0].results["training"]["parameters"]
    assert made.recommender().recommend([data.catalogue.ids[0]], k=3)
    assert seqrec.evaluate(made, device="cpu").metrics == pytest.approx(made.metrics)


def test_the_greedy_soup_is_what_trying_in_order_gives(runs: list[Run], data: PreparedData, tmp_path: Path) -> None:
    made = soup([run.path for run in runs], tmp_path / "soup", device="cpu")
    evaluator, scorer = Evaluator(data, made.config.evaluation), runs[0].recommender().scorer
    ordered = sorted(runs, key=lambda run: -run.validation["ndcg@10"])
    chosen, best = [ordered[0]], ordered[0].validation["ndcg@10"]
    for run in ordered[1:]:
        scorer.load_state_dict(mean([*chosen, run]))
        value = evaluator.evaluate(scorer, "validation").metrics["ndcg@10"]
        if value >= best:
            chosen, best = [*chosen, run], value
    members = made.results["training"]["members"]
    assert [member["run"] for member in members if member["weight"]] == [str(run.path) for run in chosen]
    assert [member["validation"] for member in members] == [run.validation["ndcg@10"] for run in ordered]
    assert made.validation["ndcg@10"] == pytest.approx(best)


def test_while_choosing_only_validation_is_looked_at(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Counted(Evaluator):
        def evaluate(self, scorer: Any, part: str) -> Any:
            asked.append(part)
            return super().evaluate(scorer, part)

    monkeypatch.setattr(soup_module, "Evaluator", Counted)
    soup(runs, tmp_path / "soup", device="cpu")
    assert asked == ["validation"] * 3 + ["test"]


def test_what_has_no_mean_is_refused(runs: list[Run], data: PreparedData, tmp_path: Path) -> None:
    wider = {**SMALL, "model.embedding_dim": 8, "training.epochs": 1}
    other = seqrec.train(data, "sasrec", settings=wider, out=tmp_path / "wider", device="cpu")
    markov = seqrec.train(data, "markov", out=tmp_path / "markov", device="cpu")
    for members, told in (
        (runs[:1], "A soup is made of two runs or more"),
        ([runs[0], runs[0]], "is named twice"),
        ([runs[0], other], r"model\.embedding_dim differ"),
        ([runs[0], markov], "markov is not trained by gradient"),
    ):
        with pytest.raises(ConfigError, match=told):
            soup(members, tmp_path / "soup", device="cpu")
    assert not (tmp_path / "soup").exists()
    with pytest.raises(RunFolderError, match="holds a run already"):
        soup(runs, other.path, device="cpu")


def test_an_unfinished_training_of_a_member_is_not_taken_for_the_soup_s_folder(runs: list[Run], tmp_path: Path) -> None:
    shutil.copytree(max(runs, key=lambda run: run.validation["ndcg@10"]).path, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    kept = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunFolderError, match="holds a training that is not over"):
        soup(runs, tmp_path / "run", device="cpu")
    assert sorted(tmp_path.rglob("*")) == kept


def test_a_member_that_was_not_measured_by_the_metric(runs: list[Run], tmp_path: Path) -> None:
    for number, run in enumerate(runs[:2]):
        shutil.copytree(run.path, tmp_path / str(number))
    results = json.loads((tmp_path / "1" / "results.json").read_text())
    del results["validation"]["metrics"]["ndcg@10"]
    (tmp_path / "1" / "results.json").write_text(json.dumps(results))
    with pytest.raises(ConfigError, match=r"1 was not measured by ndcg@10"):
        soup([tmp_path / "0", tmp_path / "1"], tmp_path / "soup", device="cpu")


def test_as_it_is_typed(small_run: Path, runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [str(run.path) for run in runs]
    done = CliRunner().invoke(app, ["soup", *paths, "--out", "made", "--uniform", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    for run in (*runs, Run("made")):
        assert f"{run.validation['ndcg@10']:.4f}" in done.stdout
        assert f"{run.metrics['ndcg@10']:.4f}" in done.stdout
    assert "3 of 3 runs are in the soup, as asked" in done.stdout
    assert "do not share" not in done.stdout
    assert "seqrec recommend made" in done.stdout
    command = ["soup", str(small_run), paths[0], "--out", "other", "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, command)
    assert "do not share a training.start_from" in done.stderr
    found = json.loads(done.stdout)
    assert sum(found["weights"]) == pytest.approx(1)
    assert found["test"] == Run("other").results["test"]
