"""Peak memory: of the process alone, by whatever count the system has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqrec
from conftest import COLUMNS, SMALL
from seqrec.experiments import environment
from seqrec.experiments import fit as fit_module
from seqrec.experiments.environment import choose_device, peak_memory_mib, process_peak_mib

#: Says how much it has held itself.
CHILD = "import sys, seqrec.experiments.environment as e; sys.stdout.write(str(e.process_peak_mib()))"


def test_a_child_of_a_large_process_reports_its_own_size() -> None:
    block = b"x" * (800 * 2**20)  # more than a child takes with all that it imports
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert len(block) / 2**20 < process_peak_mib()
    assert 10 < float(child.stdout) < len(block) / 2**20


def test_the_peak_stays_when_memory_is_given_back() -> None:
    block = b"x" * (50 * 2**20)
    high = process_peak_mib()
    del block
    assert process_peak_mib() >= high
    assert peak_memory_mib(torch.device("cpu")) >= high


@pytest.mark.parametrize("text", [None, "", "Name:\tpython\nVmRSS:\t100 kB\n"])
def test_without_the_count_of_linux_another_one_is_asked(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = process_peak_mib()
    if text is not None:
        (tmp_path / "status").write_text(text)
    monkeypatch.setattr(environment, "STATUS", tmp_path / "status")
    assert process_peak_mib() > 0.9 * real
    monkeypatch.setitem(sys.modules, "resource", None)
    assert process_peak_mib() == 0.0


def test_a_gpu_that_is_named_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("cpu", "cuda", "cuda:1", "cuda:0"):
        choose_device(name)
    assert current == [torch.device("cuda:1"), torch.device("cuda:0")]


@pytest.mark.parametrize(("model", "counted"), [("popularity", "cpu"), ("sasrec", "cpu:0")])
def test_what_is_fitted_without_gradients_is_counted_on_the_cpu(
    model: str, counted: str, small_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = {torch.device(name): float(number) for number, name in enumerate(("cpu", "cpu:0"))}
    monkeypatch.setattr(fit_module, "peak_memory_mib", peaks.__getitem__)
    settings = {} if model == "popularity" else {**SMALL, "training.epochs": 1}
    run = seqrec.train(small_log, model, settings=settings, out=tmp_path / "run", device="cpu:0", **COLUMNS)
    assert run.results["training"]["peak_memory_mib"] == peaks[torch.device(counted)]
