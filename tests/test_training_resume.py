"""Training that is killed, interrupted, and resumed bit for bit."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from commands import Command, Finished, seqrec
from conftest import write_small_log
from seqrec.run_folder import RunFolder
from seqrec.training import trainer as trainer_module
from seqrec.training.checkpoint import load_checkpoint
from seqrec.training.trainer import TrainingInterrupted
from training import same, trainer

TRAIN = [
    *("train", "log.csv", "xlstm", "--user", "uid", "--item", "iid", "--time", "ts", "--baselines", "none"),
    *("--examples", "0"),
]
SETTINGS = {
    "model.embedding_dim": 16,
    "model.max_length": 8,
    "model.num_blocks": 1,
    "training.epochs": 6,
    "training.batch_size": 4,
    "training.item_dropout": 0.1,
    "training.checkpoint_seconds": 0,
}
TRAIN += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    write_small_log(folder / "log.csv")
    return folder


@pytest.fixture(scope="module")
def straight(folder: Path) -> Path:
    """The run that nobody disturbs."""
    found = seqrec(*TRAIN, "--out", "straight", cwd=folder)
    assert found.code == 0, found.err
    return folder / "straight"


def start(folder: Path, name: str, epochs: int, seconds: float) -> Command:
    """Training that has ended `epochs` epochs and goes on for some time since."""
    command = Command(*TRAIN, "--out", name, cwd=folder)
    run = RunFolder(folder / name)
    while len(run.epochs()) < epochs or not (run.path / "run.json").exists():
        assert command.process.is_alive()
        time.sleep(0.002)
    time.sleep(seconds)
    return command


def resume(folder: Path, name: str) -> Finished:
    found = seqrec("train", "--resume", name, "--baselines", "none", "--examples", "0", cwd=folder)
    assert found.code == 0, found.err
    return found


def without_times(path: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in epoch.items() if key != "speed"} for epoch in RunFolder(path).epochs()]


def assert_equal_runs(first: Path, second: Path) -> None:
    weights, facts = load_checkpoint(first / "best.safetensors")
    others, other_facts = load_checkpoint(second / "best.safetensors")
    assert facts == other_facts
    assert set(weights) == set(others)
    assert same(weights, others)
    assert without_times(first) == without_times(second)
    results, other_results = (json.loads((path / "results.json").read_text()) for path in (first, second))
    for found in (results, other_results):
        del found["training"]["seconds"], found["training"]["peak_memory_mib"]
    assert results == other_results


@pytest.mark.parametrize(("epochs", "seconds"), [(0, 0.05), (1, 0.0), (2, 0.03)], ids=lambda value: str(value))
def test_killed_and_resumed_is_bit_for_bit_the_straight_run(
    epochs: int, seconds: float, folder: Path, straight: Path
) -> None:
    name = f"killed-{epochs}-{seconds}"
    command = start(folder, name, epochs, seconds)
    command.signal(signal.SIGKILL)
    assert command.wait().code == -signal.SIGKILL
    assert not (folder / name / "results.json").exists()
    resume(folder, name)
    assert_equal_runs(folder / name, straight)


def test_killed_twice(folder: Path, straight: Path) -> None:
    command = start(folder, "twice", 1, 0.02)
    command.signal(signal.SIGKILL)
    command.wait()
    again = Command("train", "--resume", "twice", cwd=folder)
    while len(RunFolder(folder / "twice").epochs()) < 3:
        time.sleep(0.002)
    again.signal(signal.SIGKILL)
    again.wait()
    resume(folder, "twice")
    assert_equal_runs(folder / "twice", straight)


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGINT, 0.0), (signal.SIGTERM, 0.03)])
def test_interrupted_says_how_to_go_on_and_does(
    number: signal.Signals, seconds: float, folder: Path, straight: Path
) -> None:
    name = f"{number.name}-{seconds}"
    command = start(folder, name, 1, seconds)
    command.signal(number)
    found = command.wait()
    assert found.code == 130
    assert f"Resume: seqrec train --resume {name}" in found.err
    assert "Traceback" not in found.err
    assert (folder / name / "last.safetensors").exists()
    assert f"Go on with: seqrec train --resume {name}" in seqrec("runs", "show", name, cwd=folder).out
    assert "resumed after epoch" in resume(folder, name).out
    assert_equal_runs(folder / name, straight)


class StopsAtRead:
    """Is asked to stop at the given look at `asked`, wherever in the loop that is."""

    reads = 0

    def __enter__(self) -> StopsAtRead:
        self.count = 0
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @property
    def asked(self) -> bool:
        self.count += 1
        return self.count >= self.reads


def test_whenever_the_signal_comes_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer(tmp_path / "straight").train()
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "StopRequest", StopsAtRead)
        for StopsAtRead.reads in range(1, 10):
            with pytest.raises(TrainingInterrupted):
                trainer(tmp_path / str(StopsAtRead.reads)).train()
    for reads in range(1, 10):
        trainer(tmp_path / str(reads)).train()
        assert without_times(tmp_path / str(reads)) == without_times(tmp_path / "straight")


WAYS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "weight_decay": 0.0, "schedule": "cosine"},
    "rmsprop": {"optimizer": "rmsprop", "weight_decay": 0.0, "schedule": "one_cycle"},
    "sgd": {"optimizer": "sgd", "weight_decay": 0.0, "learning_rate": 0.1, "schedule": "wsd"},
    "muon": {"optimizer": "muon"},
    "plateau": {"schedule": "plateau", "plateau_patience": 0, "learning_rate": 0.3},
    "average": {"average_best": 3, "ema_decay": 0.0, "learning_rate": 0.01},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_train_goes_on_bit_for_bit(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"epochs": 5, "warmup_steps": 2, "item_dropout": 0.1, **WAYS[way]}

    def end(folder: str, reads: int) -> tuple[Any, ...]:
        monkeypatch.setattr(StopsAtRead, "reads", reads)
        mine = trainer(tmp_path / folder, **settings)
        at = mine.train()
        weights, facts = load_checkpoint(mine.folder.best)
        return asdict(at), mine.model.state_dict(), weights, facts, without_times(tmp_path / folder)

    monkeypatch.setattr(trainer_module, "StopRequest", StopsAtRead)
    straight = end("straight", 10**9)
    for reads in (3, 6, 11):  # further in the same training each time
        with pytest.raises(TrainingInterrupted):
            end("run", reads)
    found = end("run", 10**9)
    assert found[0] == straight[0]
    assert same(found[1], straight[1])
    assert same(found[2], straight[2])
    assert found[3:] == straight[3:]
    assert {p.name for p in (tmp_path / "run").iterdir()} == {p.name for p in (tmp_path / "straight").iterdir()}
    if way == "plateau":
        rates = {epoch["learning_rate"] for epoch in straight[4]}
        assert len(rates) > 1, "no plateau was met"


def test_a_finished_run_keeps_no_checkpoint_to_resume_from(straight: Path) -> None:
    assert not (straight / "last.safetensors").exists()
    assert not list(straight.glob(".*"))
