"""RePlay: the log and its three parts, with the columns that its splitters and `FeatureSchema` expect by default."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seqrec.data.export.events import PARTS, Events, features
from seqrec.data.prepared import PreparedData

SCHEMA = pa.schema(
    [("query_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.timestamp("us")), ("rating", pa.float64())]
)


def write(data: PreparedData, folder: Path, name: str, max_length: int) -> None:
    """`interactions.parquet` (all), `train`, `validation` and `test.parquet`; `item_features.parquet` in long format.

    `rating` is the source's, 1 where there is none. The input of a case is what its user did before, in
    `interactions.parquet`.
    """
    events = Events(data)
    with ExitStack() as stack:
        files = {
            part: stack.enter_context(pq.ParquetWriter(folder / f"{part}.parquet", SCHEMA))
            for part in ("interactions", "train", "validation", "test")
        }
        for block in events.blocks():
            users, items = events.users(block), events.items(block)
            times = pa.array(events.microseconds[block], pa.timestamp("us"))
            table = pa.table([users, items, times, pa.array(events.ratings(block))], schema=SCHEMA)
            files["interactions"].write_table(table)
            parts = pa.array(events.parts[block])
            for part in ("train", "validation", "test"):
                files[part].write_table(table.filter(pc.equal(parts, PARTS.index(part))))
    if (known := features(data)) is not None:
        pq.write_table(known, folder / "item_features.parquet")
