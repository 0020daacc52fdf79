"""`seqrec estimate`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import SMALL, write_small_log
from seqrec.cli import app
from seqrec.cli.estimate import _size, _time

COLUMNS = ("--user", "uid", "--item", "iid", "--time", "ts", "--device", "cpu")
SETTINGS = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_small_log(tmp_path / "log.csv")


def test_a_model_that_trains() -> None:
    done = CliRunner().invoke(app, ["estimate", "log.csv", "sasrec", *COLUMNS, *SETTINGS])
    assert done.exit_code == 0, done.output
    for told in ("per epoch", "at most", "for all 3 epochs", "memory", "while it trains", "prepared data"):
        assert told in done.stdout
    assert not Path("runs").exists()


def test_a_model_that_is_fitted() -> None:
    done = CliRunner().invoke(app, ["estimate", "log.csv", "markov", *COLUMNS])
    assert done.exit_code == 0, done.output
    assert "fitting" in done.stdout
    [line] = [line for line in done.stdout.splitlines() if "Not in it" in line]
    assert "preparing the data" in line
    assert "epoch" not in done.stdout


def test_json() -> None:
    done = CliRunner().invoke(app, ["estimate", "log.csv", "markov", *COLUMNS, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["seconds_at_most"] > found["rehearsed"]["start_seconds"] > 0
    assert found["run_bytes_at_most"] > 0


def test_times_and_sizes_are_written_for_people() -> None:
    assert [_time(x) for x in (0.0123, 5.67, 42.4, 90, 3599, 3700, 90_000)] == [
        "0.012 s", "5.7 s", "42 s", "1.5 min", "1 h 00 min", "1 h 02 min", "25 h 00 min",
    ]  # fmt: skip
    assert [_size(x) for x in (2**19, 5 * 2**20, 3 * 2**30)] == ["0.5 MiB", "5.0 MiB", "3.0 GiB"]
