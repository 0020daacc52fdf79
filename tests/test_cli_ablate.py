"""seqrec ablate on the command line: stopped and gone on with, listed, and what is wrong named."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from commands import Command, seqrec


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    """A finished run of a SASRec of three epochs, seed 42."""
    return shutil.copytree(small_run, tmp_path / "run")


def made(out: Path) -> list[str]:
    """Runs that are whole."""
    return sorted(folder.parent.name for folder in out.glob("runs/*/results.json"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_what_was_stopped_goes_on(run: Path, tmp_path: Path, number: int, code: int) -> None:
    words = ["ablate", run, "--features", "positions,ema", "--seeds", "42", "--out", tmp_path / "out", "--jobs", 1]
    command, end = Command(*words, "--device", "cpu", cwd=tmp_path), time.monotonic() + 60
    while len(made(tmp_path / "out")) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    command.signal(number)
    assert command.wait().code == code
    before = made(tmp_path / "out")
    assert 2 <= len(before) < 3
    again = seqrec(*words, "--device", "cpu", cwd=tmp_path)
    assert again.code == 0, again.err
    there = int(again.err.split()[0])
    assert there >= len(before), "what was whole is not made again"
    assert len(made(tmp_path / "out")) == 3
    for said in ("all of it", "positions on to off", "ema_decay 0.999 to 0", "ablation.html"):
        assert said in again.out
    assert max(map(len, again.out.splitlines())) <= 120
    assert len(json.loads((tmp_path / "out" / "ablation.json").read_text())["rows"]) == 2


def test_facts_and_where_they_go_by_themselves(run: Path, tmp_path: Path) -> None:
    words = ["ablate", run, "--features", "positions,mixture", "--seeds", "42", "--device", "cpu"]
    done = seqrec(*words, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [row["feature"] for row in found["rows"]] == ["positions"]
    assert found["rows"][0]["changes"] == {"model.positions": [True, False]}
    assert found["skipped"] == {"mixture": "it is off already"}
    assert found["seeds"] == [42]
    names = {"ablation.json", "ablation.md", "ablation.html"}
    assert names <= {path.name for path in (tmp_path / "ablations" / "run").iterdir()}


def test_a_run_that_failed_is_told(run: Path, tmp_path: Path) -> None:
    words = ["ablate", run, "--features", "positions,feedforward", "--seeds", "42", "--out", tmp_path / "out"]
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / "runs" / "log-leave_one_out-without_positions-42").write_text("a file is in the way")
    failed = seqrec(*words, "--device", "cpu", cwd=tmp_path)
    assert failed.code == 1, failed.err
    assert "Failed" in failed.out
    assert "feedforward_factor 4 to 0" in failed.out


def test_list(run: Path, popularity_run: Path, tmp_path: Path) -> None:
    shown = seqrec("ablate", run, "--list", cwd=tmp_path)
    assert shown.code == 0, shown.err
    assert "positions on to off" in shown.out
    assert "it is off already" in shown.out
    listed = json.loads(seqrec("ablate", run, "--list", "--json", cwd=tmp_path).out)
    assert {"feature": "positions", "changes": {"model.positions": [True, False]}, "skipped": ""} in listed
    assert (
        "popularity has nothing that can be switched off"
        in seqrec("ablate", popularity_run, "--list", cwd=tmp_path).out
    )
    assert json.loads(seqrec("ablate", popularity_run, "--list", "--json", cwd=tmp_path).out) == []
    assert not (tmp_path / "ablations").exists()


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["--features", "position"], 2, "Unknown feature of sasrec 'position'. Did you mean 'positions'?"),
        (["--features", "positions,positions"], 2, "twice"),
        (["--features", "mixture"], 2, "nothing to switch off in this sasrec (mixture: it is off already)"),
        (["--seeds", "1,x"], 2, "write whole numbers with commas"),
        (["--seeds", "1,1"], 2, "a seed is there twice"),
        (["--seeds", "-1"], 2, "greater than or equal to 0"),
        (["--epochs", "0"], 2, "--epochs"),
        (["--out", "run"], 2, "this is a run"),
        (["--out", "run/run.json/x"], 2, "no folder can be there"),
    ],
    ids=str,
)
def test_wrong_words(run: Path, tmp_path: Path, words: list[str], code: int, why: str) -> None:
    wrong = seqrec("ablate", "run", *words, cwd=tmp_path)
    assert wrong.code == code, wrong.err
    assert why in " ".join(wrong.err.split())
    assert "Traceback" not in wrong.err


def test_runs_without_features_and_no_runs(popularity_run: Path, tmp_path: Path) -> None:
    fitted = seqrec("ablate", popularity_run, cwd=tmp_path)
    assert fitted.code == 2
    assert "nothing to switch off in this popularity" in fitted.err
    nothing = seqrec("ablate", "nothing", cwd=tmp_path)
    assert nothing.code == 4
    assert "nothing is not a run folder" in nothing.err
