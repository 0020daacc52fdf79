"""The table everything starts from: who (user) did what (item) when (timestamp), in the order of the source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from seqrec.data.spool import BLOCK, blocks
from seqrec.errors import DataError

#: Columns of `Interactions.events`. `value` (a rating, a play count) is optional.
EVENT_COLUMNS = ("row", "user", "item", "timestamp")


@dataclass(frozen=True)
class Interactions:
    """One row per event, with what is known about items and users.

    Attributes:
        name: short name of the data set.
        events: `row` int64 (position in the source), `user` and `item` (dictionary-encoded strings: the
            ids of the source, as written there), `timestamp` int64 (milliseconds since 1970 UTC, or any
            integer that orders a user's events when `clock` is False), optionally `value` float64.
        items: `id` string, and any of `title` string, `categories` list<string>, `year` int32,
            `text` string. At most one row per id.
        users: `id` string and attributes as strings. At most one row per id.
        clock: whether timestamps are clock times. Without clock times there is no split in time.
        revisits: whether people come back to the same item here. True (music, clicks): repeats are kept and seen
            items stay recommendable. False (ratings): a repeat is a correction of the first. None: not known.
    """

    name: str
    events: pa.Table
    items: pa.Table | None = None
    users: pa.Table | None = None
    clock: bool = True
    revisits: bool | None = None

    def __post_init__(self) -> None:
        missing = [column for column in EVENT_COLUMNS if column not in self.events.column_names]
        if missing:
            raise DataError(f"{self.name}: interactions lack {missing}; found {self.events.column_names}.")
        if self.events.num_rows == 0:
            raise DataError(f"{self.name}: there are no interactions in it.")
        for column in EVENT_COLUMNS:
            if self.events[column].null_count:
                row = int(np.flatnonzero(pc.is_null(self.events[column]).to_numpy())[0])
                raise DataError(f"{self.name}: column {column!r} is empty in row {self.events['row'][row]}.")

    def __len__(self) -> int:
        return int(self.events.num_rows)

    def codes(self, column: str) -> tuple[npt.NDArray[np.int32], list[str]]:
        """Codes 0..k-1 of `user` or `item` (N,), and the id of each code, in order of first appearance in the table."""
        encoded = self.events[column]
        if encoded.num_chunks > 1:
            encoded = encoded.unify_dictionaries().combine_chunks()
        encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
        return _by_first_appearance(encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist())

    def timestamps(self) -> npt.NDArray[np.int64]:
        """Timestamps (N,), in the order of the table."""
        return np.asarray(self.events["timestamp"].to_numpy(), dtype=np.int64)

    def values(self) -> npt.NDArray[np.float64] | None:
        """Ratings (N,) in the order of the table, NaN where an event has none; None where the source has none."""
        if "value" not in self.events.column_names:
            return None
        return np.asarray(self.events["value"].to_numpy(), dtype=np.float64)

    def by_row(self) -> npt.NDArray[np.int64] | None:
        """What sorts the events by `row` (N,), stably; None where they are sorted already, as sources give them."""
        rows = self.events["row"].to_numpy()
        if all((np.diff(rows[block]) >= 0).all() for block in _overlapping(len(rows))):
            return None
        return np.argsort(rows, kind="stable")

    def fingerprint(self) -> str:
        """SHA-256 of what the tables say, independent of how they are chunked or encoded."""
        digest = hashlib.sha256()
        for name in sorted(self.events.column_names):
            digest.update(name.encode())
            column, ids = self.codes(name) if name in ("user", "item") else (self.events[name].to_numpy(), None)
            for block in blocks(len(column)):
                digest.update(np.ascontiguousarray(column[block]).data)
            if ids is not None:
                digest.update(json.dumps(ids).encode())
        for table in (self.items, self.users):
            content = table.to_pydict() if table is not None else None
            digest.update(json.dumps(content, sort_keys=True, default=str).encode())
        return digest.hexdigest()


def encode_ids(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Ids of any type as dictionary-encoded strings; 1 and "1" become the same id, " 1" another."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values.cast(pa.string()).dictionary_encode()


def _overlapping(length: int) -> Iterator[slice]:
    """Blocks that share their last row with the next one."""
    return (slice(block.start, block.stop + 1) for block in blocks(length))


class IdEncoder:
    """Codes for ids that arrive in batches: 0, 1, ... in order of first appearance."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def encode(self, ids: pa.Array) -> npt.NDArray[np.int32]:
        """Codes (n,) of string ids without nulls."""
        encoded = ids.dictionary_encode()
        known = self._codes
        codes = [known.setdefault(name, len(known)) for name in encoded.dictionary.to_pylist()]
        return np.array(codes, dtype=np.int32)[encoded.indices.to_numpy()]

    def ids(self) -> list[str]:
        """The id of every code so far."""
        return list(self._codes)


def _by_first_appearance(codes: Any, ids: list[str]) -> tuple[npt.NDArray[np.int32], list[str]]:
    first = np.full(len(ids), len(codes), dtype=np.int64)
    for start in range(len(codes) - len(codes) % BLOCK, -1, -BLOCK):
        block = codes[start : start + BLOCK]
        first[block[::-1]] = np.arange(start + len(block) - 1, start - 1, -1)  # the last write stays: the earliest
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(codes))]
    if len(order) == len(ids) and np.array_equal(order, np.arange(len(ids))):
        return codes, ids
    rank = np.full(len(ids), -1, dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank[codes], [ids[code] for code in order]
