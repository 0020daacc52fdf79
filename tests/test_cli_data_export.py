"""`seqrec data export`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from conftest import write_small_log
from seqrec.cli.data_export import export
from seqrec.errors import ConfigError, UnknownNameError

COLUMNS = ("--user", "uid", "--item", "iid", "--time", "ts")
app = typer.Typer()
app.command("export")(export)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_small_log(tmp_path / "log.csv")
    return tmp_path


def test_files_and_target_hash(here: Path) -> None:
    done = CliRunner().invoke(app, ["log.csv", "--for", "recbole", "--out", "toys", "--max-length", "3", *COLUMNS])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert "toys/toys.train.inter" in lines
    assert all((here / line).is_file() for line in lines[:-1])
    assert lines[-1].startswith("target hash ")
    row = (here / "toys" / "toys.test.inter").read_text().splitlines()[1].split("\t")
    assert len(row[2].split()) == 3


def test_json_and_settings(here: Path) -> None:
    arguments = ["log.csv", "--for", "rectools", "--out", "toys", "--json", "--set", "k_core=0", *COLUMNS]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["files"] == ["toys/interactions.parquet", "toys/split.parquet"]
    assert len(found["test_targets"]) == 64


def test_errors_are_of_the_house(here: Path) -> None:
    def refused(*arguments: str) -> BaseException | None:
        return CliRunner().invoke(app, ["log.csv", "--out", "toys", *COLUMNS, *arguments]).exception

    assert isinstance(refused("--for", "replays"), UnknownNameError)
    assert refused("--for", "replay") is None
    assert isinstance(refused("--for", "replay"), ConfigError)
