"""Disks that fill up or may not be written, and processes that meet or are killed: nothing half-made is ever read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import COLUMNS, write_small_log
from seqrec.data.load import load_data
from seqrec.files import DiskError

SECOND = 1_400_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; `resize` changes it."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def left_in(cache: Path) -> list[Path]:
    return [path for place in ("prepared", "spool") if (cache / place).is_dir() for path in (cache / place).iterdir()]


def atomic_files(folder: Path) -> Path:
    """A log whose events, arrays, features and catalogue each take some 100 KB."""
    random = np.random.default_rng(0)
    folder.mkdir()
    events = zip(random.integers(0, 500, 20_000), random.integers(0, 1_000, 20_000), strict=True)
    rows = "".join(f"u{user}\ti{item}\t{SECOND + k}\n" for k, (user, item) in enumerate(events))
    (folder / "log.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + rows)
    films = "".join(f"i{k}\t{'A long title ' * 12}{k}\tg{k % 7}\n" for k in range(1_000))
    (folder / "log.item").write_text("item_id:token\ttitle:token_seq\tgenre:token_seq\n" + films)
    return folder


#: What writes: events as they arrive, in order, filtered, renumbered; arrays, features, the catalogue.
STAGES = {"_Spooled.add", "order_events", "select", "_write", "Features.save", "Catalogue.save"}


def functions(error: BaseException | None) -> set[str]:
    """The functions that an error and its causes went through."""
    names, frame = set(), error.__traceback__ if error else None
    while frame:
        names.add(frame.tb_frame.f_code.co_qualname)
        frame = frame.tb_next
    return names | functions(error.__cause__) if error else names


def test_a_full_disk_at_every_stage(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, cache = atomic_files(tmp_path / "log"), disk / "cache"
    monkeypatch.setenv("SEQREC_CACHE", str(cache))
    said, reached = set(), set()
    for size in range(64, 6_000, 64):
        remount(disk, f"size={size}k")
        try:
            data = load_data(log, repeats="first", k_core=18)
            break
        except DiskError as error:
            said.add(str(error).partition(":")[0])
            reached |= functions(error)
        assert left_in(cache) == []
    assert said == {"The disk is full"}
    assert reached >= STAGES
    remount(disk, "size=64m")
    assert load_data(log, repeats="first", k_core=18).facts == data.facts


def test_a_cache_that_may_not_be_written(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQREC_CACHE", str(disk / "cache"))
    log = write_small_log(tmp_path / "log.csv")
    data = load_data(log, **COLUMNS)
    remount(disk, "ro")
    assert load_data(log, **COLUMNS).facts == data.facts
    with pytest.raises(DiskError, match=r"may not be written .* Choose another folder"):
        load_data(log, k_core=2, **COLUMNS)
    with pytest.raises(DiskError, match="may not be written"):
        load_data(atomic_files(tmp_path / "log"))


#: Prepares the log in a process of its own and prints where, and the hash of what is asked.
SCRIPT = """
import sys
from seqrec.data.load import load_data
print("ready", flush=True)
sys.stdin.readline()
data = load_data(sys.argv[1], k_core=2)
print(data.folder, data.facts["test_targets"], flush=True)
"""


def preparing(log: Path) -> subprocess.Popen[str]:
    """A process that waits for a line before it prepares a log."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_processes_prepare_one_log_at_once(tmp_path: Path, own_cache: Path) -> None:
    processes = [preparing(atomic_files(tmp_path / "log")), preparing(tmp_path / "log")]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(said) == 1
    (folder,) = left_in(own_cache)
    assert said == {f"{folder} {load_data(tmp_path / 'log', k_core=2).facts['test_targets']}\n"}


def test_a_process_that_is_killed_leaves_nothing_that_is_read(tmp_path: Path, own_cache: Path) -> None:
    process = preparing(atomic_files(tmp_path / "log"))
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    until = time.monotonic() + 60
    while not (left := left_in(own_cache)) and time.monotonic() < until:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert [path.name[0] for path in left] == ["."]  # it was killed while its folder had a temporary name
    data = load_data(tmp_path / "log", k_core=2)
    assert data.facts["source_events"] == 20_000
    assert json.loads((data.folder / "facts.json").read_text()) == data.facts
    week_ago = time.time() - 8 * 86_400
    (abandoned,) = [path for path in left_in(own_cache) if path != data.folder]
    load_data(tmp_path / "log", k_core=3)
    assert abandoned.is_dir()  # whoever made it may still be at work
    os.utime(abandoned, (week_ago, week_ago))
    load_data(tmp_path / "log", k_core=4)
    assert not abandoned.exists()
