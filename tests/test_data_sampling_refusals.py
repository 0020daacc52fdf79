"""What a sample refuses, with its place and remedy; and that nothing is half-written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec.data.sampling import sample
from seqrec.errors import ConfigError, DataError, SeqrecError, UnknownNameError
from seqrec.files import DiskError
from test_data_sampling import COLUMNS, write_log


@pytest.mark.parametrize(
    ("source", "steps", "kind", "said"),
    [
        ("log.csv", [], ConfigError, "No step given"),
        ("log.csv", ["min_events=9"], DataError, "nothing is left of 5 rows after min_events=9"),
        ("log.csv", ["stratified=1,by=notes"], DataError, "Did you mean 'note'"),
        ("no.csv", ["last=1"], DataError, "does not exist"),
        ("ml-100", ["last=1"], UnknownNameError, "Did you mean 'ml-100k'"),
    ],
)
def test_refusals(tmp_path: Path, source: str, steps: list[str], kind: type[SeqrecError], said: str) -> None:
    write_log(tmp_path / "log.csv")
    columns = COLUMNS if source == "log.csv" else {}
    with pytest.raises(kind) as caught:
        sample(tmp_path / source if source.endswith("csv") else source, tmp_path / "out", steps, **columns)
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        sample(write_log(tmp_path / "log.csv"), tmp_path / "out", ["last=1"], **COLUMNS)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [(",x,1600000000,,", "line 7, column 'uid'"), ("1,x,soon,,", "line 7, column 'ts': not a time, found 'soon'"),
     ("1,x,16,,", "line 7, column 'ts': not a time in s")],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, line: str, said: str) -> None:
    log = write_log(tmp_path / "log.csv")
    log.write_text(log.read_text() + line + "\n")
    with pytest.raises(DataError) as caught:
        sample(log, tmp_path / "out", ["last=1"], **COLUMNS)
    assert said in str(caught.value)


def test_columns_that_differ_in_case_only(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("uid,iid,ts,Note,note\n1,2,1600000000,a,b\n")
    with pytest.raises(DataError, match="'Note'"):
        sample(tmp_path / "log.csv", tmp_path / "out", ["last=1"], **COLUMNS)


def test_memory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--memory lots"):
        sample(write_log(tmp_path / "log.csv"), tmp_path / "out", ["last=1"], memory="lots", **COLUMNS)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_nothing(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    numbers = {"uid": random.integers(0, 9000, 400_000), "iid": random.integers(0, 900_000, 400_000)}
    pq.write_table(pa.table({**numbers, "ts": range(400_000)}), tmp_path / "log.parquet")
    options: dict[str, Any] = {**COLUMNS, "time_unit": "order"}
    with pytest.raises(DiskError, match=r"disk is full: .*out was not written"):
        sample(tmp_path / "log.parquet", small_disk / "out", ["rows=0.9"], **options)
    assert list(small_disk.iterdir()) == []
    monkeypatch.setenv("SEQREC_CACHE", str(small_disk / "cache"))
    with pytest.raises(DiskError, match=r"disk is full: .*cache takes"):
        sample(tmp_path / "log.parquet", tmp_path / "out", ["users=0.9", "cap=10"], memory="40MB", **options)
    assert not (tmp_path / "out").exists()
    assert list((small_disk / "cache").iterdir()) == []
