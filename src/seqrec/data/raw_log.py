"""A log opened in DuckDB as it is: every column of the source, and beside them who, what, when and which row."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from seqrec.data.config import DataConfig
from seqrec.data.download import cache_folder
from seqrec.data.load import read_source
from seqrec.data.sampling_steps import Log
from seqrec.data.sources import SOURCES
from seqrec.data.sources.events import event_sql, read_events
from seqrec.data.sources.sampled import Known
from seqrec.data.sources.table import PARQUET_SUFFIXES, TEXT_SUFFIXES, find_columns, open_table, parquet_parts
from seqrec.data.sources.text import Source, connect
from seqrec.errors import ConfigError, DataError, unknown_name
from seqrec.files import DiskError, explained

if TYPE_CHECKING:
    from seqrec.data.interactions import Interactions

Report = Callable[[str], None]


@dataclass(frozen=True)
class RawLog:
    """An open log.

    Attributes:
        where: what errors call it.
        log: the relation, in the order of the source.
        connection: the DuckDB in which it is; one query at a time.
        roles: which column is the user, item and time (None: the order of the rows); empty for a named data set.
        source: of a table; None where the log came as `Interactions`.
        known: what is known about its items and users.
    """

    where: str
    log: Log
    connection: Any
    roles: dict[str, Any]
    source: Source | None = None
    time_unit: str = "auto"
    known: Known = field(default_factory=Known)

    def refuse_unusable(self) -> None:
        """Raise the DataError for the first row without a user, an item or a usable time."""
        if self.source is not None:  # reading it as events stops at that row and says what is wrong with it
            read_events(self.source, **self.roles, time_unit=self.time_unit)
        raise DataError(f"{self.where}: there are rows without a user, an item or a time.")


@contextmanager
def open_log(config: DataConfig, *, memory: str = "4GB", report: Report = lambda line: None) -> Iterator[RawLog]:
    """Open what `config` names; temporary files lie on the disk of the cache and go in the end.

    Args:
        memory: what DuckDB may use, such as `4GB`; beyond it DuckDB works on disk.

    Raises:
        ConfigError: `memory` is no amount of memory, or is too little.
        DataError, DiskError: the log cannot be read, or the cache cannot be written.
    """
    if not re.fullmatch(r"\d+(\.\d+)?\s*[KMGT]i?B", memory, re.IGNORECASE):
        raise ConfigError(f"--memory {memory}: write an amount such as 4GB or 500MB.")
    cache = cache_folder()
    with explained(cache):
        cache.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".sample-", dir=cache)
    with scratch as folder:
        opened = _table(config) if _is_table(config.source) else _interactions(_read(config, report))
        try:
            opened.connection.execute(f"SET memory_limit = '{memory}'")
            opened.connection.execute(f"SET temp_directory = '{_escaped(folder)}'")
            # Joins then read the log and look groups up, whatever their sizes: that keeps the order of rows.
            opened.connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
            with explained_queries(opened.where, memory):
                yield opened
        finally:
            opened.connection.close()


def _is_table(source: str) -> bool:
    path = Path(source)
    if source in SOURCES:  # whatever folder of that name there may be here
        return False
    return bool(parquet_parts(path)) or path.name.lower().endswith(PARQUET_SUFFIXES + TEXT_SUFFIXES)


def _read(config: DataConfig, report: Report) -> Interactions:
    """A named data set, or a folder of RecBole files."""
    path = Path(config.source)
    given = sorted(config.model_fields_set - {"source"})
    if config.source in SOURCES and given:
        raise ConfigError(f"{config.source} knows its columns; {', '.join(given)} are for tables.")
    if (path / "facts.json").is_file():
        raise ConfigError(f"{path} is prepared already, and nothing is sampled from it. Name the log itself.")
    if ":" not in config.source and config.source not in SOURCES and not path.exists():
        raise unknown_name("data set or file", config.source, SOURCES)
    return read_source(config, report)


@contextmanager
def explained_queries(where: str, memory: str) -> Iterator[None]:
    """What DuckDB raises in the block, as an error of ours."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, RuntimeError) as error:
        text = str(error)
        if "interrupted" in text.lower():
            raise KeyboardInterrupt from None
        if "No space left" in text or "max_temp_directory_size" in text:
            raise DiskError(f"The disk is full: {cache_folder()} takes DuckDB's temporary files. Free some space, or "
                            "set SEQREC_CACHE to a folder on another disk.") from error  # fmt: skip
        if isinstance(error, duckdb.OutOfMemoryException):
            raise ConfigError(f"{where}: {memory} of memory is too little. Give more with --memory.") from error
        if isinstance(error, RuntimeError) and not isinstance(error, duckdb.Error):
            raise
        raise DataError(f"{where}: {text.splitlines()[0]}") from error


def _table(config: DataConfig) -> RawLog:
    source = open_table(config.source)
    by_position = config.time_unit == "order" and config.time is None
    named = {"user": config.user, "item": config.item, "time": config.time, "value": None}
    roles = {role: column for role, column in find_columns(source, named, by_position).items() if role != "value"}
    sql = event_sql(source, **roles, time_unit=config.time_unit)
    _refuse_twins(source)
    row = _row_sql(source)
    columns = {name: f"c{k}" for k, name in enumerate(source.names)}
    events = (
        f'{sql.user} AS "user", {sql.item} AS "item", {row if roles["time"] is None else sql.timestamp} AS timestamp'
    )
    source.connection.execute(
        f"CREATE TEMP VIEW log AS SELECT {row} AS row, {events}, {', '.join(columns.values())} FROM {source.relation}"
    )
    log, known = Log("log", columns, sql.clock), Known.read(Path(config.source))
    return RawLog(source.where, log, source.connection, roles, source, config.time_unit, known)


def _row_sql(source: Source) -> str:
    """SQL for the position of a row; Parquet knows it without counting through, so that threads need not wait."""
    if not source.relation.startswith("read_parquet("):
        return "row_number() OVER () - 1"
    counts = dict(
        source.connection.execute(f"SELECT file_index, count(*) FROM {source.relation} GROUP BY ALL").fetchall()
    )
    starts, total = [], 0
    for file in range(max(counts, default=0) + 1):
        starts.append(total)
        total += counts.get(file, 0)
    return f"({starts}::BIGINT[])[file_index::BIGINT + 1] + file_row_number::BIGINT"


def _refuse_twins(source: Source) -> None:
    """DuckDB and many readers of Parquet take `A` and `a` for one column."""
    lower = [name.lower() for name in source.names]
    twins = [name for name in source.names if lower.count(name.lower()) > 1]
    if twins:
        raise DataError(f"{source.where}: several columns are called {twins[0]!r} (in any case). Rename one of them.")


def _interactions(interactions: Interactions) -> RawLog:
    """The events of a named data set, with the first category of each item where categories are known."""
    connection = connect()
    connection.register("events", interactions.events)
    names = [name for name in interactions.events.column_names if name != "row"]
    values = {name: f'CAST(e."{name}" AS VARCHAR)' if name in ("user", "item") else f'e."{name}"' for name in names}
    relation = "events AS e"
    items = interactions.items
    if items is not None and "categories" in items.column_names:
        connection.register("items", items.select(["id", "categories"]))
        relation += f" LEFT JOIN items AS k ON {values['item']} = k.id"
        values["category"] = "k.categories[1]"
    columns = {name: f"c{k}" for k, name in enumerate(values)}
    roles = f'{values["user"]} AS "user", {values["item"]} AS "item", e.timestamp AS timestamp'
    sources = ", ".join(f"{values[name]} AS {column}" for name, column in columns.items())
    connection.execute(f"CREATE TEMP VIEW log AS SELECT e.row AS row, {roles}, {sources} FROM {relation}")
    log, known = Log("log", columns, interactions.clock), Known.of(interactions)
    return RawLog(interactions.name, log, connection, {}, known=known)


def _escaped(path: str) -> str:
    return path.replace("'", "''")
