"""Files are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from commands import seqrec
from seqrec.files import DiskError, atomic_file, atomic_folder, read_json, sha256_file, write_json
from seqrec.training.checkpoint import save_checkpoint


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_file_keeps_its_old_content_when_writing_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_file(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with pytest.raises(ValueError), atomic_folder(path) as temporary:
        (temporary / "part").write_text("1")
        raise ValueError
    assert names(tmp_path) == []
    with atomic_folder(path) as temporary:
        (temporary / "part").write_text("2")
        assert not path.exists()
    assert (path / "part").read_text() == "2"
    assert names(tmp_path) == ["folder"]


def test_the_folder_of_whoever_was_first_stands(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with atomic_folder(path) as ours:
        (ours / "who").write_text("ours")
        with atomic_folder(path) as theirs:
            (theirs / "who").write_text("theirs")
    assert (path / "who").read_text() == "theirs"
    assert names(tmp_path) == ["folder"]


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"number": 0.1, "text": "Amélie", "none": None, "list": [1, 2]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Amélie" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_nan_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == 1


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --- a disk that is full, and one that may not be written


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "file.json"
    write_json(path, "old")
    with pytest.raises(DiskError, match=r"disk is full: .*file\.json was not written"):
        write_json(path, "x" * 100_000)
    assert read_json(path) == "old"
    assert names(small_disk) == ["file.json"]


def test_a_full_disk_leaves_no_half_folder(small_disk: Path) -> None:
    with pytest.raises(DiskError), atomic_folder(small_disk / "folder") as temporary:
        (temporary / "part").write_bytes(bytes(1000))
        (temporary / "rest").write_bytes(bytes(100_000))
    assert names(small_disk) == []


def test_a_full_disk_leaves_the_old_checkpoint(small_disk: Path) -> None:
    path = small_disk / "last.safetensors"
    save_checkpoint(path, {"a": torch.zeros(10)})
    before = path.read_bytes()
    with pytest.raises(DiskError, match="disk is full"):
        save_checkpoint(path, {"a": torch.zeros(100_000)})
    assert path.read_bytes() == before
    assert names(small_disk) == ["last.safetensors"]


@pytest.mark.parametrize("width", [4, 64])
def test_a_full_disk_stops_training_with_one_message(
    width: int, small_disk: Path, tmp_path: Path, small_log: Path
) -> None:
    words = ["--user", "uid", "--item", "iid", "--time", "ts", "--set", f"model.embedding_dim={width}"]
    found = seqrec("train", small_log, "sasrec", *words, "--out", small_disk / "run", cwd=tmp_path)
    assert found.code == 1
    assert found.err.startswith("error: The disk is full: ")
    assert "Traceback" not in found.err


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write_json(tmp_path / "file" / "a.json", 1)


def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    write_json(small_disk / "a.json", "old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DiskError, match=r"a\.json may not be written .* Choose another folder"):
        write_json(small_disk / "a.json", "new")
    assert read_json(small_disk / "a.json") == "old"


def test_json_on_disk_is_plain_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
