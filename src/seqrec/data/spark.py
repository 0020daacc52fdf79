"""A table prepared on Spark: read, checked, numbered and sorted there, and handed over to `prepare.finish`.

What an id and a time are is said once, in the SQL of `sources.events`; DuckDB runs it inside Spark, batch by batch.
Ids are numbered by first appearance without anybody counting them: until the end an id is called by the row where it
first stands. Between Spark and this machine lie sorted Parquet parts in a folder that both see.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from seqrec.data.config import DataConfig, milliseconds
from seqrec.data.prepare import Log, finish, refuse_unfit
from seqrec.data.prepared import PreparedData
from seqrec.data.sources.events import EventSql, bad_time, event_sql, value_sql
from seqrec.data.sources.table import find_columns
from seqrec.data.spark_handover import Ids, fingerprint, histories, repeated_row, require_rows
from seqrec.data.spark_session import explained, spark_session
from seqrec.data.spark_table import SparkTable, open_on_spark
from seqrec.errors import DataError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: What two readers of CSV take differently: bytes that are no UTF-8, other ends of lines than the first, a blank
#: before an opening quote.
_DOUBTFUL = r"\x{FFFD}|\r$|^\s+" + '"'
#: What is computed of each row, in Spark's types.
KINDS = {
    "position": "LONG", "row": "LONG", "user": "STRING", "item": "STRING", "timestamp": "LONG", "value": "DOUBLE",
    "bad": "BOOLEAN", "problem": "STRING",
}  # fmt: skip


def prepare_on_spark(
    source: str | Path,
    config: DataConfig,
    folder: Path,
    *,
    master: str = "local[*]",
    session: SparkSession | None = None,
    row: str | None = None,
) -> PreparedData:
    """As `prepare` of `read_table(source)`: the same folder, byte for byte; the log may exceed this machine's memory.

    Python on the executors needs duckdb, pyarrow and pandas. Executors and this machine share the disk of `folder`.

    Args:
        source: path of a CSV, TSV, TXT (each also `.gz`) or Parquet file or of a folder of Parquet parts, or a URI of
            one that Spark reads. Text is read by one task.
        config: columns, filters and split; `config.source` only gives the prepared log's name in its facts.
        folder: appears whole or not at all. Sorted parts lie beside it meanwhile.
        master: of the Spark that is started where there is none.
        session: used instead, and left running.
        row: column of whole numbers that says the order of the source, where that of the files does not. None: rows
            are in the order of the file's name (2 before 10) and of their position in it.

    Raises:
        DataError: as `read_table`, and what Spark cannot read; nothing is left after filtering.
        ConfigError: a setting does not fit the log.
        MissingExtraError: pyspark is not installed.
        SeqrecError: there is no Java, or Spark does not start.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with spark_session(master, session) as spark, explained(str(source)), _workspace(folder.parent) as workspace:
        log = _Preparation(spark, open_on_spark(spark, source), config, workspace, row).log(folder.parent)
    return finish(log, config, folder)


@contextmanager
def _workspace(parent: Path) -> Iterator[Path]:
    workspace = Path(tempfile.mkdtemp(prefix=".spark-", dir=parent.resolve()))
    try:
        yield workspace
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


@dataclass(frozen=True)
class _Preparation:
    """From a table on Spark to an ordered log."""

    spark: SparkSession
    table: SparkTable
    config: DataConfig
    workspace: Path
    row: str | None

    def log(self, spool: Path) -> Log:
        """All rows that pass `min_value`, `since` and `until`, in spools on the disk of `spool`."""
        from pyspark import StorageLevel

        given = {name: getattr(self.config, name) for name in ("user", "item", "time", "value")}
        unit = self.config.time_unit
        roles = find_columns(self.table.source(), given, by_position=unit == "order" and given["time"] is None)
        used = [column for column in (*roles.values(), self.row) if column is not None]
        peeked = self.table.peeked(used)
        sql = event_sql(peeked, user=roles["user"], item=roles["item"], time=roles["time"], time_unit=unit)
        columns = self._expressions(peeked, sql, roles)
        events = _computed(self.table.rows, [peeked.column(name) for name in used], columns).persist(
            StorageLevel.DISK_ONLY
        )
        try:
            count, valued = self._checked(events, sql, roles, used)
            users, items = self._numbered(events, "user"), self._numbered(events, "item")
            kept = self._write_sorted(events, valued)
        finally:
            events.unpersist()
        require_rows(self.workspace / "rows", count)
        require_rows(self.workspace / "histories", kept)
        name = Path(self.table.where).name.partition(".")[0]
        if len(users.names) < 2:
            raise DataError(
                f"{name}: all events belong to one user ({users.names[0]!r}); there is nobody to learn from. "
                "Is --user the right column?"
            )
        if self.row is not None and (twice := repeated_row(self.workspace / "rows")) is not None:
            raise DataError(
                f"{self.table.where}, column {self.row!r}: {twice} stands in several rows. It says the order of the "
                "source: every row needs a number of its own."
            )
        hashed = ["row", "user", "item", "timestamp", *(["value"] if valued else [])]
        numbered = ["row"] if roles["time"] is not None else ["row", "timestamp"]
        return Log(
            name=name,
            sequences=histories(self.workspace / "histories", users, items, spool, valued),
            user_ids=users.names,
            item_ids=items.names,
            facts={
                "source_events": count,
                "fingerprint": fingerprint(self.workspace / "rows", users, items, hashed, numbered),
            },
            clock=sql.clock,
        )

    def _expressions(self, source: Any, sql: EventSql, roles: Mapping[str, Any]) -> dict[str, str]:
        """SQL for what is kept of a row; `problem` names the first thing for which it cannot be used."""
        row = "position" if self.row is None else source.number_sql(self.row, "BIGINT")
        time = row if roles["time"] is None else sql.timestamp
        value = {"value": "CAST(NULL AS DOUBLE)", "bad": "false"}
        if roles["value"] is not None:
            value = value_sql(source, roles["value"])
        problems = {"user": f"{sql.user} IS NULL", "item": f"{sql.item} IS NULL", "time": f"{time} IS NULL"}
        if self.row is not None:
            problems["row"] = f"{row} IS NULL"
        if self.config.value is not None:
            problems["value"] = value["bad"]
        if self.table.quote is not None:
            text = {role: source.column(roles[role]) for role in ("user", "item")}
            doubts = {f"doubt {role}": f"regexp_matches({c}, '{_DOUBTFUL}')" for role, c in text.items()}
            problems = {"malformed": "malformed IS NOT NULL"} | (doubts if self.table.quote else {}) | problems
        cases = " ".join(f"WHEN {found} THEN '{name}'" for name, found in problems.items())
        kept = {"position": "position", "row": row, "user": sql.user, "item": sql.item, "timestamp": time}
        return kept | value | {"problem": f"CASE {cases} END"}

    def _checked(self, events: DataFrame, sql: EventSql, roles: Mapping[str, Any], used: list[str]) -> tuple[int, bool]:
        """Number of rows, and whether they have values; or the error for the first row that cannot be used."""
        from pyspark.sql import functions as f

        problem = f.when(f.col("problem").isNotNull(), f.struct("position", "problem"))
        (found,) = events.agg(f.count("*").alias("rows"), f.min(problem).alias("first"), f.max("bad").alias("bad"))\
            .collect()  # fmt: skip
        if found["first"] is not None:
            raise self._refusal(found["first"]["position"], found["first"]["problem"], sql, roles, used)
        if not found["rows"]:
            raise DataError(f"{self.table.where} has columns ({', '.join(self.table.names)}) but no rows.")
        valued = roles["value"] is not None and not found["bad"]
        refuse_unfit(self.table.where, self.config, clock=sql.clock, valued=valued)
        return found["rows"], valued

    def _refusal(
        self, position: int, problem: str, sql: EventSql, roles: Mapping[str, Any], used: list[str]
    ) -> DataError:
        if problem == "malformed":
            where, place = self.table.place(position)
            _, text = self.table.rows.filter(f"position = {position}").select("c0", "malformed").first() or ("", "")
            return DataError(
                f"{where}, {place}: the row has more or fewer columns than the {len(self.table.names)} of the header, "
                f"found {text!r}. Correct that line, or save the table again as UTF-8 CSV or as Parquet."
            )
        row = self.table.row(position, used)
        if problem.startswith("doubt"):
            doubt = "characters that are not UTF-8, a blank before a quote, or a line that ends otherwise"
            return row.error(roles[problem[6:]], 0, doubt, "Save the table again as UTF-8 CSV or as Parquet.")
        if problem == "row":
            return row.error(
                str(self.row), 0, "not a whole number", "It says the order of the source: every row needs one."
            )
        if problem == "time":
            return bad_time(row, sql, roles["time"], 0)
        if problem == "value":
            return row.error(roles["value"], 0, "not a number", "Correct it, or leave it empty.")
        return row.no_id(roles[problem], 0)

    def _numbered(self, events: DataFrame, name: str) -> Ids:
        """The ids of a column in order of first appearance; they lie in the workspace too, for Spark."""
        from pyspark.sql import functions as f

        self._write(events.groupBy(name).agg(f.min("row").alias("first")).sort("first"), name)
        return Ids.read(self.workspace / name, name)

    def _write_sorted(self, events: DataFrame, valued: bool) -> int:
        """`rows`: the log in the order of the source, ids as first rows; `histories`: by user, what is kept of it.

        Returns:
            The number of rows that are kept.
        """
        rows = events.select("row", "user", "item", "timestamp", *(["value"] if valued else []))
        for name in ("user", "item"):
            firsts = self.spark.read.parquet(_address(self.workspace / name))
            rows = rows.join(firsts, name).drop(name).withColumnRenamed("first", name)
        self._write(rows.sort("row"), "rows")
        rows = self.spark.read.parquet(_address(self.workspace / "rows"))
        for condition in self._conditions():
            rows = rows.filter(condition)
        self._write(rows.sort("user", "timestamp", "row").drop("row"), "histories")
        kept: int = rows.count()
        return kept

    def _conditions(self) -> list[str]:
        """What `prepare` asks of a row alone."""
        config, found = self.config, []
        if config.min_value is not None:
            found.append(f"value >= {config.min_value!r}D")
        if config.since is not None:
            found.append(f"timestamp >= {milliseconds(config.since)}")
        if config.until is not None:
            found.append(f"timestamp < {milliseconds(config.until)}")
        return found

    def _write(self, rows: DataFrame, name: str) -> None:
        rows.write.parquet(_address(self.workspace / name))


def _computed(rows: DataFrame, used: Sequence[str], columns: Mapping[str, str]) -> DataFrame:
    """One column per SQL expression of DuckDB, over the columns of `rows` that are used."""
    needed = [name for name in rows.columns if name in (*used, "position", "malformed")]
    query = "SELECT " + ", ".join(f'{sql} AS "{name}"' for name, sql in columns.items()) + " FROM batch"
    schema = ", ".join(f"{name} {KINDS[name]}" for name in columns)
    return rows.select(*needed).mapInArrow(_runner(query, list(columns)), schema)


def _runner(query: str, names: Sequence[str]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What an executor does; it needs DuckDB and Arrow, but not seqrec: a function in a function travels whole."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import duckdb
        import pyarrow

        connection = duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": False})
        connection.execute("SET TimeZone = 'UTC'")
        for batch in batches:
            connection.register("batch", pyarrow.Table.from_batches([batch]))
            yield from connection.sql(query).to_arrow_table().select(names).to_batches()
            connection.unregister("batch")

    return run


def _address(path: Path) -> str:
    """A folder of this machine's file system, whatever Spark's own one is."""
    return f"file://{path}"
