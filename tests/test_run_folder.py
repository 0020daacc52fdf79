"""A run's folder: refused rather than misread."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqrec.errors import RunFolderError
from seqrec.experiments.run import Run
from seqrec.run_folder import FORMAT_VERSION, RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {"seed": 1}, {"torch": "2"}, {"name": "log"})


def test_what_is_created_is_read_back(folder: RunFolder) -> None:
    assert RunFolder(folder.path).facts() == {
        "format": FORMAT_VERSION,
        "config": {"seed": 1},
        "environment": {"torch": "2"},
        "data": {"name": "log"},
    }


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunFolderError, match=r"is not a run folder: it has no run\.json"):
            Run(path)


def test_a_file_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is not a run folder"):
        Run(tmp_path / "file")


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, None])
def test_another_format_is_refused(folder: RunFolder, version: int | None) -> None:
    (folder.path / "run.json").write_text(json.dumps({"format": version, "config": {}}))
    with pytest.raises(RunFolderError, match=f"of format {version}; this seqrec reads format {FORMAT_VERSION}"):
        folder.facts()


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "3", "\x00\x01", '{"format": 1'])
def test_damaged_facts(folder: RunFolder, text: str) -> None:
    (folder.path / "run.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"run\.json is damaged"):
        folder.facts()


def test_bytes_that_are_no_text(folder: RunFolder) -> None:
    (folder.path / "run.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(RunFolderError, match=r"run\.json is damaged"):
        folder.facts()


def test_damaged_results(folder: RunFolder) -> None:
    assert folder.results() is None
    (folder.path / "results.json").write_text('{"test": {')
    with pytest.raises(RunFolderError, match=r"results\.json is damaged"):
        folder.results()


def test_a_run_is_not_written_over(folder: RunFolder) -> None:
    with pytest.raises(RunFolderError, match="holds a run already: go on with it by --resume"):
        RunFolder.create(folder.path, {}, {}, {})
    folder.write_results({"test": {}})
    with pytest.raises(RunFolderError, match="holds a run already: it is finished"):
        RunFolder.create(folder.path, {}, {}, {})
    assert folder.facts()["config"] == {"seed": 1}


def test_history_is_cut(folder: RunFolder) -> None:
    assert folder.epochs() == []
    folder.cut_history(0)
    folder.history.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n')
    folder.cut_history(2)
    assert folder.epochs() == [{"epoch": 1}, {"epoch": 2}]
    folder.cut_history(5)
    assert len(folder.epochs()) == 2


def test_a_line_that_was_being_written_is_not_there(folder: RunFolder) -> None:
    folder.history.write_text('{"epoch": 1}\n{"epoch": 2, "tra')
    assert folder.epochs() == [{"epoch": 1}]
    folder.cut_history(2)
    assert folder.history.read_text() == '{"epoch": 1}\n'


def test_damaged_history(folder: RunFolder) -> None:
    folder.history.write_text('{"epoch": 1\n{"epoch": 2}\n')
    with pytest.raises(RunFolderError, match=r"history\.jsonl is damaged"):
        folder.epochs()


def test_a_run_that_is_not_finished_says_how_to_go_on(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes((small_run / "run.json").read_bytes())
    run = Run(tmp_path)
    with pytest.raises(RunFolderError, match=f"not finished. Go on with: seqrec train --resume {tmp_path}"):
        run.metrics  # noqa: B018
