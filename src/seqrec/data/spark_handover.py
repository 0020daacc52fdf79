"""Sorted Parquet parts that Spark wrote, taken over in order and a block at a time.

Shapes: n rows of a block, k ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from seqrec.data.sequences import Ints, Sequences
from seqrec.data.sources.table import parquet_parts
from seqrec.data.spool import Spool
from seqrec.errors import DataError

#: Rows of a part that are looked at together.
ROWS = 1 << 20


@dataclass(frozen=True)
class Ids:
    """Ids of users or items in order of first appearance; Spark calls an id by the row where it first stands.

    Attributes:
        names: id in the source of code 0, 1, ...
        firsts: (k,) int64, the row where each first stands, ascending.
    """

    names: list[str]
    firsts: Ints

    def codes(self, firsts: pa.Array) -> npt.NDArray[np.int32]:
        """Codes (n,) of ids that are given by their first rows."""
        return np.searchsorted(self.firsts, firsts.to_numpy()).astype(np.int32)

    @classmethod
    def read(cls, folder: Path, name: str) -> Ids:
        """From parts with the columns `name` and `first`, sorted by `first`."""
        names: list[str] = []
        firsts = [np.empty(0, dtype=np.int64)]
        for batch in batches(folder, [name, "first"]):
            names += batch[name].to_pylist()
            firsts.append(batch["first"].to_numpy())
        return cls(names, np.concatenate(firsts))


def batches(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Rows of the parts in a folder, in the order in which Spark sorted them.

    Raises:
        DataError: there are no parts, so that Spark wrote them to another machine's disk.
    """
    parts = parquet_parts(folder)
    if not parts:
        raise unseen(folder)
    for part in parts:
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(ROWS, columns=columns)


def require_rows(folder: Path, rows: int) -> None:
    """Refuse a folder whose parts hold another number of rows than Spark wrote.

    Raises:
        DataError: some are missing, so that they lie on another machine's disk.
    """
    if sum(pq.read_metadata(part).num_rows for part in parquet_parts(folder)) != rows:
        raise unseen(folder)


def unseen(folder: Path) -> DataError:
    """The error for parts that are not here."""
    return DataError(
        f"{folder}: what Spark wrote there is not there, or not all of it. Executors and this machine have to share "
        "that disk: set SEQREC_CACHE to a folder that all of them see."
    )


def histories(folder: Path, users: Ids, items: Ids, spool: Path, valued: bool) -> Sequences:
    """Histories of all users from parts sorted by user, time and row, in spools on the disk of `spool`."""
    counts = np.zeros(len(users.names), dtype=np.int64)
    columns = {"items": Spool(np.int32, spool), "times": Spool(np.int64, spool)}
    if valued:
        columns["values"] = Spool(np.float32, spool)
    for batch in batches(folder):
        counts += np.bincount(users.codes(batch["user"]), minlength=len(counts))
        columns["items"].append(items.codes(batch["item"]) + 1)
        columns["times"].append(batch["timestamp"].to_numpy())
        if valued:
            columns["values"].append(batch["value"].to_numpy(zero_copy_only=False))
    ends = np.cumsum(counts)
    return Sequences(
        starts=ends - counts,
        ends=ends,
        num_items=len(items.names),
        **{name: column.array() for name, column in columns.items()},
    )


def repeated_row(folder: Path) -> int | None:
    """The first `row` of parts sorted by it that stands there twice; None where there is none."""
    before: int | None = None
    for batch in batches(folder, ["row"]):
        rows = batch["row"].to_numpy()
        rows = rows if before is None else np.r_[before, rows]
        if len(same := np.flatnonzero(rows[1:] == rows[:-1])):
            return int(rows[same[0]])
        before = int(rows[-1])
    return None


def fingerprint(folder: Path, users: Ids, items: Ids, columns: Sequence[str], numbered: Sequence[str]) -> str:
    """What `Interactions.fingerprint` gives for the same log; from parts in the order of the source.

    Args:
        columns: of the log: `row`, `user`, `item`, `timestamp` and, where it has one, `value`.
        numbered: those of them that only count the rows.
    """
    digest = hashlib.sha256()
    ids: Mapping[str, Ids] = {"user": users, "item": items}
    for name in sorted(columns):
        digest.update(name.encode())
        at = 0
        for batch in batches(folder, [name]):
            block: npt.NDArray[Any] = np.arange(at, at + batch.num_rows, dtype=np.int64)
            at += batch.num_rows
            if name in ids:
                block = ids[name].codes(batch[name])
            elif name not in numbered:
                block = batch[name].to_numpy(zero_copy_only=False)
            digest.update(np.ascontiguousarray(block).data)
        if name in ids:
            digest.update(json.dumps(ids[name].names).encode())
    for _ in ("items", "users"):  # a table knows nothing about them
        digest.update(json.dumps(None).encode())
    return digest.hexdigest()
