"""RecTools: frames with its `Columns`, the part of every event beside them, and item features in long format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqrec.data.export.events import PARTS, Events, features
from seqrec.data.prepared import PreparedData

INTERACTIONS = pa.schema(
    [("user_id", pa.string()), ("item_id", pa.string()), ("weight", pa.float64()), ("datetime", pa.timestamp("us"))]
)
SPLIT = pa.schema(
    [("user_id", pa.string()), ("item_id", pa.string()), ("datetime", pa.timestamp("us")), ("part", pa.string())]
)


def write(data: PreparedData, folder: Path, name: str, max_length: int) -> None:
    """`interactions.parquet`, `split.parquet` (the same rows in the same order) and `item_features.parquet`.

    `part` is train, validation, test, or unused: known to later cases, but neither trained on nor asked for.
    The input of a case is all that its user did before. `weight` is 1: RecTools multiplies losses by it.
    """
    events = Events(data)
    parts = pa.array(PARTS)
    with (
        pq.ParquetWriter(folder / "interactions.parquet", INTERACTIONS) as interactions,
        pq.ParquetWriter(folder / "split.parquet", SPLIT) as split,
    ):
        for block in events.blocks():
            users, items = events.users(block), events.items(block)
            times = pa.array(events.microseconds[block], pa.timestamp("us"))
            weights = pa.array(np.ones(len(users)))
            interactions.write_table(pa.table([users, items, weights, times], schema=INTERACTIONS))
            part = parts.take(pa.array(events.parts[block]))
            split.write_table(pa.table([users, items, times, part], schema=SPLIT))
    if (known := features(data)) is not None:
        pq.write_table(known, folder / "item_features.parquet")
