"""`seqrec ensemble`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import seqrec
from seqrec.cli import app
from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError
from seqrec.experiments.run import Run


@pytest.fixture
def runs(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    data = PreparedData.load(Path(Run(small_run).facts["data"]["folder"]))
    return [str(small_run), str(seqrec.train(data, "markov", out=tmp_path / "markov", device="cpu").path)]


def test_table_and_folder(runs: list[str]) -> None:
    done = CliRunner().invoke(app, ["ensemble", *runs, "--out", "made", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    made = Run("made")
    weights = [member["weight"] for member in made.results["training"]["members"]]
    assert f"weight {weights[0]:.2f}  {runs[0]}" in done.stdout
    assert f"{weights[1]:.2f} markov, seed" in done.stdout
    assert "seqrec recommend made" in done.stdout
    for run in (made, *map(Run, runs)):
        assert f"{run.metrics['ndcg@10']:.4f}" in done.stdout
        assert f"{run.validation['ndcg@10']:.4f}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_json(runs: list[str]) -> None:
    arguments = ["ensemble", *runs, "--out", "made", "--fusion", "reciprocal_rank", "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["run"] == "made"
    assert sum(found["weights"]) == pytest.approx(1)
    assert found["test"] == Run("made").results["test"]


def test_one_run_is_not_enough(runs: list[str]) -> None:
    assert isinstance(CliRunner().invoke(app, ["ensemble", runs[0], "--out", "made"]).exception, ConfigError)
