"""Tuning from end to end, in workers of its own: what is found, what is kept, what goes wrong with single trials."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import seqrec
from seqrec.config import Choice, Range
from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError, RunFolderError
from seqrec.experiments.config import RunConfig
from seqrec.experiments.run import Run
from seqrec.experiments.tune.report import as_preset
from seqrec.experiments.tune.space import run_space, setting
from seqrec.experiments.tune.worker import Line, _train
from seqrec.files import DiskError

pytest.importorskip("optuna")

COLUMNS = {"user": "uid", "item": "iid", "time": "ts"}
SMALL = {"model.embedding_dim": 8, "model.max_length": 16, "training.epochs": 9, "training.batch_size": 16}
#: Of `tuning_models:OutOfMemory`.
ERROR = "OutOfMemoryError: CUDA out of memory. Tried to allocate 80.00 GiB.\nAnd so on."
DROPOUT = {"model.dropout": Range(0.0, 0.5)}


def only(model: str, settings: dict[str, Any], search: dict[str, Choice | Range]) -> dict[str, Any]:
    """The settings, and every shipped space fixed at its default: nothing but `search` is searched."""
    base = RunConfig.from_dict({"model": {"name": model}})
    return {key: setting(base, key) for key in run_space(base, {}, ()) if key not in search} | settings


def tuned(data: Any, out: Path, model: str = "lstm", search: Any = DROPOUT, settings: Any = SMALL, **rest: Any) -> Any:
    return seqrec.tune(
        data, model, out=out, search=search, settings=only(model, settings, search), device="cpu", **rest
    )


@pytest.fixture
def data(small_log: Path) -> PreparedData:
    return seqrec.load_data(small_log, **COLUMNS)


def numbers(value: Any) -> list[float]:
    """All numbers in a nest of JSON."""
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in numbers(inner)]
    return [value] if isinstance(value, float) else []


def test_the_best_on_validation_is_found_and_no_test_is_seen(data: PreparedData, tmp_path: Path) -> None:
    told: list[str] = []
    found = tuned(data, tmp_path / "study", trials=5, workers=2, report=told.append)
    assert [row.number for row in found.trials] == [0, 1, 2, 3, 4]
    assert found.trials[0].settings == {"model.dropout": 0.4}
    assert {row.state for row in found.trials} <= {"finished", "stopped early"}
    assert found.trials[0].state == "finished"

    runs = [Run(tmp_path / "study" / "trials" / str(row.number)) for row in found.trials]
    for row, run in zip(found.trials, runs, strict=True):
        assert run.config.model.dropout == row.settings["model.dropout"]  # type: ignore[attr-defined]
        assert run.validation["ndcg@10"] == row.validation
        assert len(run.folder.epochs()) == row.epochs
        assert (row.epochs == 9) == (row.state == "finished")
    best = max(found.trials, key=lambda row: (row.validation, -row.number))
    assert found.ranked()[0] == best

    # Every trial's test is in its run, and nowhere else.
    tests = {run.metrics[name] for run in runs for name in ("ndcg@10", "mrr@10")}
    written = json.loads((tmp_path / "study" / "trials.json").read_text())
    journal = [json.loads(line) for line in (tmp_path / "study" / "journal.log").read_text().splitlines()]
    validations = {row.validation for row in found.trials}
    assert tests - validations
    assert not (tests - validations) & set(numbers(written) + numbers(journal))
    assert "test" not in " ".join(told)
    assert len(told) == 5


def test_the_best_settings_are_kept_as_a_preset(data: PreparedData, tmp_path: Path) -> None:
    found = tuned(data, tmp_path / "study", trials=2, search={"model.dropout": Choice(0.1)})
    best = yaml.safe_load((tmp_path / "study" / "best.yaml").read_text())
    assert best == found.best
    best.setdefault("model", {})["name"] = "lstm"
    again = RunConfig.from_dict(best)
    run = Run(tmp_path / "study" / "trials" / str(found.ranked()[0].number))
    assert (again.model, again.loss, again.training) == (run.config.model, run.config.loss, run.config.training)
    assert found.command.startswith(f"seqrec train {data.folder} lstm --set ")
    assert found.command.endswith(" --seeds")


def test_a_study_goes_on_until_nothing_is_left_to_try(data: PreparedData, tmp_path: Path) -> None:
    search = {"model.dropout": Choice(0.1, 0.4)}
    first = tuned(data, tmp_path / "study", trials=1, search=search)
    assert len(first.trials) == 1
    told: list[str] = []
    second = tuned(data, tmp_path / "study", trials=9, workers=2, search=search, report=told.append)
    assert second.trials[0] == first.trials[0]
    assert sorted(row.settings["model.dropout"] for row in second.trials) == [0.1, 0.4]
    assert len(told) == 1
    assert second.gpu_seconds > first.gpu_seconds


def test_another_study_needs_another_folder(data: PreparedData, tmp_path: Path) -> None:
    tuned(data, tmp_path / "study", trials=1)
    with pytest.raises(RunFolderError, match="holds a study with other space"):
        tuned(data, tmp_path / "study", search={"model.dropout": Range(0.0, 0.6)})
    with pytest.raises(RunFolderError, match="holds a study with other settings"):
        tuned(data, tmp_path / "study", settings=SMALL | {"model.embedding_dim": 16})


def test_a_budget_stops_what_runs_and_begins_nothing(data: PreparedData, tmp_path: Path) -> None:
    long = SMALL | {"training.epochs": 100_000, "training.patience": 100_000}
    found = tuned(data, tmp_path / "study", trials=50, budget=6.0, settings=long)
    assert found.trials
    assert found.trials[-1].state == "stopped early"
    assert all(row.epochs < 100_000 for row in found.trials)
    assert 6.0 <= found.gpu_seconds < 30.0
    again = tuned(data, tmp_path / "study", trials=50, budget=6.0, settings=long)
    assert again.trials == found.trials


def test_what_does_not_fit_in_memory_has_failed_and_the_study_goes_on(data: PreparedData, tmp_path: Path) -> None:
    settings = {key: value for key, value in SMALL.items() if key != "model.embedding_dim"}
    search = {"model.embedding_dim": Choice(8, 64, 128)}
    found = tuned(data, tmp_path / "study", "tuning_models:OutOfMemory", search, settings, trials=3)
    states = {row.settings["model.embedding_dim"]: row.state for row in found.trials}
    assert states == {128: "failed", 64: "failed", 8: "finished"}
    assert {row.error for row in found.trials if row.state == "failed"} == {ERROR}
    written = json.loads((tmp_path / "study" / "trials.json").read_text())["trials"]
    assert written[0]["error"] == ERROR.splitlines()[0]


def test_a_process_that_dies_twice_is_a_failed_trial(data: PreparedData, tmp_path: Path) -> None:
    settings = {key: value for key, value in SMALL.items() if key != "model.embedding_dim"}
    search = {"model.embedding_dim": Choice(8, 128)}
    found = tuned(data, tmp_path / "study", "tuning_models:Killed", search, settings, trials=2)
    killed, fine = sorted(found.trials, key=lambda row: -row.settings["model.embedding_dim"])
    assert killed.state == "failed"
    assert killed.error == "its process died twice (killed by signal 9)"
    assert fine.state == "finished"


def test_a_full_disk_is_nobody_s_fault_and_the_same_command_goes_on(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tmp_path / "full"
    full.touch()
    monkeypatch.setenv("TUNING_MODELS_FULL", str(full))
    search = {"model.dropout": Choice(0.1, 0.4)}
    with pytest.raises(DiskError, match=r"is full.*Free some space"):
        tuned(data, tmp_path / "study", "tuning_models:DiskFull", search, trials=2)
    kept = json.loads((tmp_path / "study" / "trials.json").read_text())["trials"]
    assert [row["state"] for row in kept] == ["interrupted"]
    full.unlink()
    found = tuned(data, tmp_path / "study", "tuning_models:DiskFull", search, trials=2)
    assert [row.state for row in found.trials] == ["finished", "finished"]


def test_a_run_of_other_settings_is_not_taken_for_a_trial(small_run: Path) -> None:
    run = Run(small_run)
    data, settings = PreparedData.load(Path(run.facts["data"]["folder"])), run.config.to_dict()
    order = {"trial": 0, "settings": settings, "out": str(small_run), "device": "cpu"}
    assert _train(order, data, Line(io.StringIO()))["value"] == run.validation["ndcg@10"]
    other = {**settings, "training": {**settings["training"], "learning_rate": 0.5}}
    told = _train({**order, "settings": other}, data, Line(io.StringIO()))
    assert told["end"] == "failed"
    assert "holds a run already" in told["error"]


def test_a_loss_that_needs_a_setting_has_a_preset_too() -> None:
    loss = {"name": "distillation", "teachers": ["runs/teacher"], "weight": 0.25}
    config = RunConfig.from_dict({"model": {"name": "lstm"}, "loss": loss})
    assert as_preset(config) == {"loss": loss}


def test_settings_that_do_not_fit_together_are_told_and_not_counted(data: PreparedData, tmp_path: Path) -> None:
    search = {"model.num_heads": Choice(3), "model.dropout": Choice(0.1, 0.2)}
    base = RunConfig.from_dict({"model": {"name": "sasrec"}}).to_dict()["model"]
    assert base["num_heads"] != 3
    found = tuned(data, tmp_path / "study", "sasrec", search, trials=3, settings=SMALL)
    assert {row.state for row in found.trials if row.settings["model.num_heads"] == 3} <= {"invalid"}
    assert len([row for row in found.trials if row.state != "invalid"]) == 3


def test_settings_that_do_not_work_at_all_are_an_error(data: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="heads"):
        tuned(data, tmp_path / "study", "sasrec", settings=SMALL | {"model.num_heads": 3})
    with pytest.raises(ConfigError, match="is fitted, not trained"):
        seqrec.tune(data, "popularity", out=tmp_path / "other")
