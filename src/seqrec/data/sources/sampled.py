"""What a sample keeps of the data set it was taken from, beside its parts: titles, people, and whether items are
come back to. The names begin with `_`, so that readers of Parquet folders skip these files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seqrec.data.interactions import Interactions
from seqrec.errors import DataError
from seqrec.files import read_json

RECORD = "_sample.json"
TABLES = {"items": "_items.parquet", "users": "_users.parquet"}


@dataclass(frozen=True)
class Known:
    """What is known beside the events; `items`, `users` and `revisits` as in `Interactions`."""

    items: pa.Table | None = None
    users: pa.Table | None = None
    revisits: bool | None = None

    @classmethod
    def of(cls, log: Interactions) -> Known:
        """What a data set with a name, or a folder of RecBole files, knows."""
        return cls(log.items, log.users, log.revisits)

    @classmethod
    def read(cls, folder: Path) -> Known:
        """What lies in a sample's folder; of anything else nothing is known.

        Raises:
            DataError: a file in it is damaged.
        """
        if not (folder / RECORD).is_file():
            return cls()
        try:
            record = read_json(folder / RECORD)
            revisits = record.get("revisits")
        except (ValueError, AttributeError) as error:
            raise DataError(f"{folder / RECORD} is damaged. Take the sample again, or remove that file.") from error
        tables = {name: _table(folder / file) for name, file in TABLES.items() if (folder / file).is_file()}
        return cls(**tables, revisits=revisits if isinstance(revisits, bool) else None)

    def save(self, folder: Path, items: pa.Array, users: pa.Array) -> None:
        """Write what is known about those ids (strings)."""
        for name, ids in (("items", items), ("users", users)):
            table = getattr(self, name)
            if table is not None:
                left = table.filter(pc.is_in(table["id"], value_set=ids))
                pq.write_table(left, folder / TABLES[name], compression="zstd")

    def add_to(self, log: Interactions) -> Interactions:
        """The same events with what is known."""
        return replace(log, items=self.items, users=self.users, revisits=self.revisits)

    def __bool__(self) -> bool:
        return any(part is not None for part in (self.items, self.users, self.revisits))


def _table(path: Path) -> pa.Table:
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]}). Take the sample again.") from error
    if "id" not in table.column_names or not pa.types.is_string(table["id"].type):
        raise DataError(f"{path} has no column 'id' of text. Take the sample again.")
    return table
