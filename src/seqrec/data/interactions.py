"""The table everything starts from: who (user) did what (item) when (timestamp), in the order of the source."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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
    """

    name: str
    events: pa.Table
    items: pa.Table | None = None
    users: pa.Table | None = None
    clock: bool = True

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
        """Codes 0..k-1 of `user` or `item` (N,), and the id of each code, in order of first appearance."""
        encoded = self.events[column].combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
        return _by_first_appearance(encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist())

    def timestamps(self) -> npt.NDArray[np.int64]:
        """Timestamps (N,), in source order."""
        return np.asarray(self.events["timestamp"].to_numpy(), dtype=np.int64)

    def keep(self, mask: npt.NDArray[np.bool_]) -> Interactions:
        """The rows where `mask` (N,) is true; `row` keeps its value."""
        return replace(self, events=self.events.filter(pa.array(mask)))

    def fingerprint(self) -> str:
        """SHA-256 of what the tables say, independent of how they are chunked or encoded."""
        digest = hashlib.sha256()
        for name in sorted(self.events.column_names):
            digest.update(name.encode())
            if name in ("user", "item"):
                codes, ids = self.codes(name)
                digest.update(np.ascontiguousarray(codes).tobytes() + json.dumps(ids).encode())
            else:
                digest.update(np.ascontiguousarray(self.events[name].to_numpy()).tobytes())
        for table in (self.items, self.users):
            digest.update(json.dumps(table.to_pydict() if table is not None else None, sort_keys=True).encode())
        return digest.hexdigest()


def encode_ids(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Ids of any type as dictionary-encoded strings; 1 and "1" become the same id, " 1" another."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values.cast(pa.string()).dictionary_encode()


def _by_first_appearance(codes: Any, ids: list[str]) -> tuple[npt.NDArray[np.int32], list[str]]:
    present, first = np.unique(codes, return_index=True)
    order = present[np.argsort(first, kind="stable")]
    rank = np.full(len(ids), -1, dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank[codes], [ids[code] for code in order]
