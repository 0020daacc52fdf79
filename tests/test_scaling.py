"""The commands of the page on several GPUs, as `torchrun` runs them, with processes of a CPU and a small log."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import seqrec
from conftest import REPOSITORY
from seqrec.run_folder import RunFolder

SMALL = {
    "model.embedding_dim": 16,
    "model.max_length": 16,
    "model.dropout": 0.0,
    "training.epochs": 2,
    "training.batch_size": 16,
}
SETTINGS = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
QUIET = ["--device", "cpu", "--baselines", "none", "--examples", "0"]
#: A loss whose process is killed at its sixth step, once.
DEADLY = """
import os, signal
from pathlib import Path
from seqrec.losses.softmax import SoftmaxLoss

class Deadly(SoftmaxLoss):
    steps = 0
    def __call__(self, *arguments):
        Deadly.steps += 1
        if os.environ.get("RANK") == "1" and Deadly.steps == 6 and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(*arguments)
"""


def shown() -> list[list[str]]:
    """The `torchrun` commands of the page."""
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "docs" / "scaling.md").read_text("utf-8"), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def start(command: list[str], folder: Path, processes: int) -> subprocess.Popen[str]:
    """The command as it is shown, with other counts and small settings."""
    assert command[0] == "torchrun"
    words = [sys.executable, "-m", "torch.distributed.run", *command[1:], *SETTINGS, *QUIET]
    words[words.index("--nproc-per-node") + 1] = str(processes)
    paths = os.pathsep.join([str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "SEQREC_CACHE": str(folder / "cache"), "PYTHONPATH": paths}
    streams: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=folder, env=environment, **streams)


def facts(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Results and history of a finished run."""
    return json.loads((folder / "results.json").read_text()), RunFolder(folder).epochs()


def alone(model: str, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process without torchrun makes of the same settings."""
    columns = ["--user", "uid", "--item", "iid", "--time", "ts"]
    done = seqrec("train", "log.csv", model, *columns, "--out", "alone", *SETTINGS, *QUIET, cwd=folder)
    assert done.code == 0, done.err
    return facts(folder / "alone")


def require_equal(found: tuple[dict[str, Any], list[dict[str, Any]]], expected: Any) -> None:
    for one, other in zip(found[1], expected[1], strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-4)
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for part in ("validation", "test"):
        assert found[0][part]["metrics"] == pytest.approx(expected[0][part]["metrics"], abs=0.02)
        assert found[0][part]["cases"] == expected[0][part]["cases"]
    assert found[0]["training"]["parameters"] == expected[0]["training"]["parameters"]


def test_two_machines_and_a_sharded_table(small_log: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = {"first-machine": "127.0.0.1", "29500": port}
    commands = [[places.get(word, word) for word in command] for command in shown()[1:3]]
    machines = [start(command, tmp_path, processes=1) for command in commands]
    (printed, errors), (nothing, others) = (machine.communicate(timeout=200) for machine in machines)
    assert (machines[0].returncode, machines[1].returncode) == (0, 0), errors + others
    assert printed.count("with 2 processes, into runs/two") == 1
    assert printed.count("Test, log, 40 cases, scored once") == 1
    assert nothing == ""
    found = facts(tmp_path / "runs" / "two")
    assert found[0]["training"]["ranks"] == 2
    assert len(set(found[0]["training"]["seeds"])) == 2
    assert not (tmp_path / "runs" / "two" / "last.safetensors").exists()
    written = [file.name.split(".") for file in (tmp_path / "runs" / "two" / "tensorboard").glob("events*")]
    assert len({parts[-2] for parts in written}) == 1, "several processes wrote"
    require_equal(found, alone("sasrec", tmp_path))


def test_one_machine_where_a_process_is_killed_and_the_run_goes_on_in_one(small_log: Path, tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY)
    often = ["--set", "loss.name=deadly:Deadly", "--set", "training.checkpoint_seconds=0"]
    run = start([*shown()[0], *often], tmp_path, processes=2)
    errors = run.communicate(timeout=200)[1]
    assert run.returncode != 0
    assert "error: The connection to another process broke" in errors
    assert (tmp_path / "killed").exists()
    again = seqrec("train", "--resume", "runs/wide", "--baselines", "none", "--device", "cpu", cwd=tmp_path)
    assert again.code == 0, again.err
    found = facts(tmp_path / "runs" / "wide")
    assert "ranks" not in found[0]["training"]
    assert [epoch["ranks"] for epoch in found[1]][-1] == 1
    assert found[1][-1]["losses"] == pytest.approx(alone("xlstm", tmp_path)[1][-1]["losses"], rel=1e-4)
