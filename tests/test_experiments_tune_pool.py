"""Which GPUs workers get, and NVIDIA's service that lets them share one, before stand-ins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from seqrec.errors import ConfigError
from seqrec.experiments.tune import mps
from seqrec.experiments.tune.clock import Clock
from seqrec.experiments.tune.pool import Pool, gpus_of

#: A daemon that keeps a file while it runs, and writes down what it is asked.
DAEMON = """#!/bin/sh
here=$CUDA_MPS_PIPE_DIRECTORY
if [ "$1" = -d ]; then touch "$here/running"; echo start "$CUDA_VISIBLE_DEVICES" >> "$LOG"; exit 0; fi
read order
[ -e "$here/running" ] || exit 1
echo "$order" >> "$LOG"
[ "$order" != quit ] || rm "$here/running"
"""


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the daemon on the path; what it was asked is in the file."""
    program = tmp_path / "bin" / mps.CONTROL
    program.parent.mkdir()
    program.write_text(DAEMON)
    program.chmod(0o755)
    log = tmp_path / "asked"
    log.touch()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(log))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.setattr(mps.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(mps, "PROBE", "")
    return log


def said(line: str) -> None:
    raise AssertionError(line)


def test_a_cpu_has_no_gpus() -> None:
    assert gpus_of("cpu") == []
    with pytest.raises(ConfigError, match="there is no GPU"):
        gpus_of("cpu", [0])


@pytest.mark.usefixtures("gpus")
def test_all_gpus_or_those_that_are_named() -> None:
    assert gpus_of("auto") == ["0", "1", "2"]
    assert gpus_of("cuda") == ["0", "1", "2"]
    assert gpus_of("cuda:1") == ["1"]
    assert gpus_of("auto", [2, 0]) == ["2", "0"]
    with pytest.raises(ConfigError, match="--gpus 3: this torch sees 3 GPUs"):
        gpus_of("auto", [0, 3])


@pytest.mark.usefixtures("gpus")
def test_gpus_are_counted_among_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-abc ,6")
    assert gpus_of("auto", [1, 2]) == ["GPU-abc", "6"]


def test_workers_are_spread_over_gpus_and_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, str]] = []

    class Process:
        stdout = ()

        def __init__(self, command: list[str], *, env: dict[str, str], **options: object) -> None:
            given.append(env)

    monkeypatch.setattr("seqrec.experiments.tune.pool.subprocess.Popen", Process)
    monkeypatch.setattr("seqrec.experiments.tune.pool._cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    pool = Pool(tmp_path, tmp_path / "logs", ["0", "3"], 4, {"CUDA_MPS_PIPE_DIRECTORY": "there"})
    for place in range(4):
        pool.start(place)
    assert [env["CUDA_VISIBLE_DEVICES"] for env in given] == ["0", "3", "0", "3"]
    assert {env["OMP_NUM_THREADS"] for env in given} == {"2"}
    assert {env["CUDA_MPS_PIPE_DIRECTORY"] for env in given} == {"there"}
    assert pool.device == "cuda"


def test_the_service_runs_while_it_is_wanted(daemon: Path, tmp_path: Path) -> None:
    with mps.shared_gpus(True, said) as environment:
        folder = Path(environment["CUDA_MPS_PIPE_DIRECTORY"])
        assert (folder / "running").exists()
        assert folder.stat().st_mode & 0o77 == 0
    assert not (folder / "running").exists()
    assert daemon.read_text().splitlines() == ["start ", "get_server_list", "quit"], "started with all GPUs"


def test_two_studies_share_the_service_and_the_last_one_stops_it(daemon: Path) -> None:
    with mps.shared_gpus(True, said) as first:
        running = Path(first["CUDA_MPS_PIPE_DIRECTORY"]) / "running"
        with mps.shared_gpus(True, said) as second:
            assert second == first
        assert running.exists()
    assert not running.exists()
    assert daemon.read_text().split().count("start") == 1


def test_a_service_that_does_not_work_is_done_without(daemon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mps, "PROBE", "raise SystemExit(3)")
    told: list[str] = []
    with mps.shared_gpus(True, told.append) as environment:
        assert environment == {}
    assert len(told) == 1
    assert "take turns" in told[0]
    assert daemon.read_text().split()[-1] == "quit"


@pytest.mark.parametrize("why", ["not wanted", "no daemon", "the user's own"])
def test_the_service_is_left_alone(why: str, daemon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if why == "no daemon":
        monkeypatch.setenv("PATH", "/nowhere")
    if why == "the user's own":
        monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    with mps.shared_gpus(why != "not wanted", said) as environment:
        assert environment == {}
    assert daemon.read_text() == ""


def test_the_clock_counts_gpus_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("seqrec.experiments.tune.clock.time.monotonic", lambda: now[0])
    first = Clock(tmp_path / "clock.json", gpus=2)
    now[0] += 1.5
    first.tick()
    assert first.used == 3.0
    assert not (tmp_path / "clock.json").exists()
    now[0] += 1.5
    first.tick()
    now[0] += 50.0  # killed, and started again on one GPU
    second = Clock(tmp_path / "clock.json", gpus=1)
    now[0] += 1.0
    assert second.used == 7.0
