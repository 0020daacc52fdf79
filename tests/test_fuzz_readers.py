"""Every reader on damaged input, for some seconds; `fuzz_readers.py` itself runs for as long as one likes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz_readers import Child
from fuzz_seeds import SEEDS

SCRIPT = Path(__file__).with_name("fuzz_readers.py")
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is watched through /proc")


def test_five_seconds_of_damage(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--minutes", str(5 / 60), "--seed", "1", "--out", str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 different defects" in run.stdout
    assert all(f"\n{reader} " in f"\n{run.stdout}" for reader in SEEDS)


def test_a_child_that_dies_is_a_defect(tmp_path: Path) -> None:
    child = Child(tmp_path)
    child.process.kill()
    how, words, _ = child.attempt("csv", tmp_path)
    child.end()
    assert how == "defect"
    assert "died with -9" in words
