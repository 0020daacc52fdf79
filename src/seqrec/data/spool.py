"""Columns that grow on disk and are read as arrays: logs that are larger than memory pass through here.

A spool is written with ordinary writes, so that a full disk is an error and not a crash, and read through a map,
so that the system may drop its pages. Its file has no name from the start: nothing is left behind, come what may.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from seqrec.files import explained

#: Events handled at once where a whole column would not fit: 16 to 64 MiB a column.
BLOCK = 1 << 23


class Spool:
    """One column of numbers, appended block by block.

    Args:
        dtype: of the numbers.
        folder: on the disk that takes it; made when it is not there.

    Raises:
        DiskError: the disk is full or the folder may not be written.
    """

    def __init__(self, dtype: npt.DTypeLike, folder: Path) -> None:
        self.dtype = np.dtype(dtype)
        self._folder = folder
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  closed when the spool goes
        weakref.finalize(self, self._file.close)  # a map holds the file open by itself
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, values: npt.NDArray[Any]) -> None:
        """Add values (n,) at the end."""
        with explained(self._folder):
            _write(self._file, np.ascontiguousarray(values, dtype=self.dtype))
        self._length += len(values)

    def array(self) -> npt.NDArray[Any]:
        """All values (N,), read-only; they outlive the spool."""
        if not self._length:
            return np.empty(0, self.dtype)
        return np.memmap(self._file, dtype=self.dtype, mode="r", shape=(self._length,))


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """As `np.save`, in blocks; where `np.save` would hide that the disk is full, the OSError says so."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        for block in blocks(len(array)):
            _write(file, np.ascontiguousarray(array[block]))


def blocks(length: int) -> Iterator[slice]:
    """Slices of up to `BLOCK` that cover 0..length-1."""
    return (slice(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK))


def _write(file: IO[bytes], values: npt.NDArray[Any]) -> None:
    data = values.reshape(-1).view(np.uint8).data
    while len(data):
        data = data[file.write(data) :]
