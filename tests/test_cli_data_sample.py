"""`seqrec data sample`, as it is typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from conftest import write_small_log
from seqrec.cli.data_sample import sample
from seqrec.errors import ConfigError, UnknownNameError

COLUMNS = ("--user", "uid", "--item", "iid", "--time", "ts")
app = typer.Typer()
app.command("sample")(sample)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_small_log(tmp_path / "log.csv")
    return tmp_path


def test_before_and_after_and_what_it_does(here: Path) -> None:
    steps = ("--step", "min_events=10", "--step", "last=12", "--step", "users=0.5")
    done = CliRunner().invoke(app, ["log.csv", "--out", "small", *steps, *COLUMNS])
    assert done.exit_code == 0, done.output
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    cells = {line[0]: line[1:] for line in lines if len(line) == 3}
    table = pq.read_table(here / "small" / "part-00000.parquet")
    assert cells["rows"][1] == str(table.num_rows)
    assert cells["users"] == ["40", str(len(set(table["uid"].to_pylist())))]
    assert cells["events per user"][1].startswith("10 to 12, mean ")
    assert cells["first event"][0].startswith("2020-09-13 12:")
    assert "≈" not in done.stdout
    assert "min_events=10: Users with fewer than 10 events go; other timelines stay as they are." in done.stdout
    assert "users=0.5,seed=42: About 50.00% of the users" in done.stdout
    assert done.stdout.splitlines()[-1] == "small"
    assert "Counting log.csv" in done.stderr


def test_json_is_what_lies_in_the_folder(here: Path) -> None:
    done = CliRunner().invoke(app, ["log.csv", "--out", "a b", "--step", "every=3,offset=1", "--json", *COLUMNS])
    found = json.loads(done.stdout)
    assert found.pop("folder") == "a b"
    assert found == json.loads((here / "a b" / "_sample.json").read_text())
    assert found["steps"] == ["every=3,offset=1"]
    assert found["after"]["rows"] == len(range(1, found["before"]["rows"], 3))


def test_a_recipe_is_its_steps(here: Path) -> None:
    steps = [word for step in ("min_events=5", "cap=1000", "users=0.05") for word in ("--step", step)]
    folders = []
    for out, asked in (("a", ["--recipe", "music4all"]), ("b", steps)):
        done = CliRunner().invoke(app, ["log.csv", "--out", out, *asked, "--seed", "3", *COLUMNS])
        assert done.exit_code == 0, done.output
        folders.append(pq.read_table(here / out / "part-00000.parquet"))
    assert folders[0].equals(folders[1])


def test_order_numbers_are_told(here: Path) -> None:
    done = CliRunner().invoke(app, ["log.csv", "--out", "o", "--step", "last=2", "--time-unit", "order", *COLUMNS])
    assert "read the sample with --time-unit order" in done.stdout


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ((), ConfigError, "No step given"),
        (("--recipe", "music4al"), UnknownNameError, "Did you mean 'music4all'"),
        (("--recipe", "music4all", "--step", "last=1"), ConfigError, "not both"),
        (("--step", "lost=1"), UnknownNameError, "Did you mean 'last'"),
    ],
)
def test_refusals(here: Path, words: tuple[str, ...], kind: type[Exception], said: str) -> None:
    done = CliRunner().invoke(app, ["log.csv", "--out", "small", *words, *COLUMNS])
    assert isinstance(done.exception, kind)
    assert said in str(done.exception)
    assert not (here / "small").exists()


def test_interrupted_it_leaves_nothing(here: Path) -> None:
    random = np.random.default_rng(0)
    users, items = random.integers(0, 30_000, 3_000_000), random.integers(0, 5000, 3_000_000)
    pq.write_table(pa.table({"uid": users, "iid": items, "ts": range(3_000_000)}), here / "large.parquet")
    program = (
        "import sys; from seqrec.data.sampling import sample\n"
        "sample('large.parquet', 'out', ['cap=90', 'last=80'], time_unit='order', user='uid', item='iid', time='ts', "
        "report=lambda line: print(line, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "SEQREC_CACHE": str(here / "cache")}, preexec_fn=_interruptible,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        next(line for line in process.stdout if "looking at every group" in line)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert sorted(path.name for path in here.iterdir()) == ["cache", "large.parquet", "log.csv"]
    assert list((here / "cache").iterdir()) == []


def _interruptible() -> None:
    """A shell may have started the tests in the background, where Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
