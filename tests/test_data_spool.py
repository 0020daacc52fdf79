"""Columns on disk: what goes in comes out, nothing stays behind, and a full disk is said."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from seqrec.data.spool import Spool, save_array
from seqrec.files import DiskError


def test_what_is_appended_is_read_and_outlives_the_spool(tmp_path: Path) -> None:
    spool = Spool(np.int32, tmp_path / "new")
    parts = [np.arange(5), np.arange(0), np.arange(10)[::2]]
    for part in parts:
        spool.append(part)
    array = spool.array()
    assert not list((tmp_path / "new").iterdir())
    del spool
    gc.collect()
    assert array.dtype == np.int32
    assert array.tolist() == np.concatenate(parts).tolist()
    assert not array.flags.writeable


def test_an_empty_column() -> None:
    assert Spool(np.float32, Path(os.environ["SEQREC_CACHE"])).array().shape == (0,)


def test_a_saved_array_is_what_numpy_saves(tmp_path: Path) -> None:
    for array in (np.arange(7, dtype=np.int32), np.arange(12).reshape(4, 3), np.empty((0, 2), np.float32)):
        save_array(tmp_path / "a.npy", array)
        np.save(tmp_path / "b.npy", array)
        assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    spool = Spool(np.int64, tmp_path)
    spool._file.close()
    spool._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(DiskError, match="disk is full"):
        spool.append(np.arange(10))
    spool._file.close()
    with pytest.raises(OSError, match="No space left"):
        save_array(Path("/dev/full"), np.arange(10))
