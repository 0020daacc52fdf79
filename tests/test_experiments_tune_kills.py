"""A study survives what happens to its processes: kills of workers and of the parent, Ctrl-C, a journal cut short."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import seqrec
from commands import Command, Finished
from seqrec.config import Choice

pytest.importorskip("optuna")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")

EPOCHS = 15
WAIT = 60


@pytest.fixture
def data(small_log: Path) -> Path:
    return seqrec.load_data(small_log, user="uid", item="iid", time="ts").folder


def command(data: Path, cwd: Path, trials: int = 2) -> Command:
    settings = {"training.epochs": EPOCHS, "training.checkpoint_seconds": 0, "training.patience": 100}
    settings |= {"model.embedding_dim": 16, "training.batch_size": 8}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    words += ["--search", "model.dropout=0.1..0.5", "--trials", trials, "--device", "cpu", "--out", "study"]
    return Command("tune", data, "lstm", *words, cwd=cwd)


def children(process: int) -> list[int]:
    """Processes that a process started."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in found]


def wait_for(what: Any) -> Any:
    """The first value of `what()` that is true."""
    end = time.monotonic() + WAIT
    while not (value := what()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.02)
    return value


def epochs_of(cwd: Path, trial: int) -> int:
    history = cwd / "study" / "trials" / str(trial) / "history.jsonl"
    return len(history.read_text().splitlines()) if history.exists() else 0


def gone(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def log(cwd: Path) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = json.loads((cwd / "study" / "trials.json").read_text())["trials"]
    return trials


def require_whole(cwd: Path, done: Finished) -> None:
    """Both trials were trained, and each epoch of the first was recorded once."""
    assert done.code == 0, done.err
    first, second = log(cwd)
    assert (first["state"], first["epochs"]) == ("finished", EPOCHS)
    assert second["state"] in ("finished", "stopped early")
    history = (cwd / "study" / "trials" / "0" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in history] == list(range(1, EPOCHS + 1))


def test_a_worker_that_is_killed_is_replaced_and_its_trial_goes_on(data: Path, tmp_path: Path) -> None:
    running = command(data, tmp_path)
    wait_for(lambda: epochs_of(tmp_path, 0) >= 3)
    (worker,) = children(running.process.pid or 0)
    os.kill(worker, signal.SIGKILL)
    require_whole(tmp_path, running.wait())


def test_a_study_whose_parent_is_killed_goes_on(data: Path, tmp_path: Path) -> None:
    running = command(data, tmp_path)
    wait_for(lambda: epochs_of(tmp_path, 0) >= 3)
    (worker,) = children(running.process.pid or 0)
    running.signal(signal.SIGKILL)
    wait_for(lambda: gone(worker))
    before = epochs_of(tmp_path, 0)
    assert before < EPOCHS
    with (tmp_path / "study" / "journal.log").open("a") as journal:
        journal.write('{"op_code": 8, "worker')  # what the kill cut short
    require_whole(tmp_path, command(data, tmp_path).wait())


def test_ctrl_c_saves_what_runs_and_the_same_command_goes_on(data: Path, tmp_path: Path) -> None:
    running = command(data, tmp_path)
    wait_for(lambda: epochs_of(tmp_path, 0) >= 3)
    (worker,) = children(running.process.pid or 0)
    running.signal(signal.SIGINT)
    stopped = running.wait()
    assert stopped.code == 130
    assert "The same command goes on with it" in stopped.err
    assert gone(worker)
    (first,) = log(tmp_path)
    assert first["state"] == "interrupted"
    assert 3 <= first["epochs"] < EPOCHS
    require_whole(tmp_path, command(data, tmp_path).wait())


def test_a_study_is_worked_on_by_one_command_at_a_time(data: Path, tmp_path: Path) -> None:
    from seqrec.errors import RunFolderError
    from seqrec.experiments.tune.study import alone_in

    with alone_in(tmp_path / "study"), pytest.raises(RunFolderError, match="worked on by another"):
        seqrec.tune(data, "lstm", out=tmp_path / "study", search={"model.dropout": Choice(0.1)}, device="cpu")
    with alone_in(tmp_path / "study"):
        pass
