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
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if "|" in line]
    header, *rows = (row[:3] for row in cells if row[2])  # long names go on in the next line
    assert header == ["model", "weight", "Recall@10"]
    assert [name.partition(",")[0] for name, _, _ in rows] == ["ensemble", "sasrec", "markov"]
    assert [weight for _, weight, _ in rows] == ["", *(f"{weight:.2f}" for weight in weights)]
    assert "Protocol: " in done.stdout
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


def test_a_misspelt_fusion_comes_before_anything_about_folders() -> None:
    done = CliRunner().invoke(app, ["ensemble", "nowhere", "nothing", "--out", "made", "--fusion", "zscor"])
    assert isinstance(done.exception, ConfigError)
    assert "Did you mean 'zscore'?" in str(done.exception)
