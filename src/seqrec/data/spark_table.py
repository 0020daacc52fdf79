"""A table as Spark reads it: its columns, the position of every row in it, and what a row that cannot be used is told.

Text is read by one task, whole: only so is a line break within quotes told from the end of a row, and rows are
counted right. Parquet is read by as many as there are.
"""

from __future__ import annotations

import re
import tempfile
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa

from seqrec.data.sources.events import PEEKED
from seqrec.data.sources.table import PARQUET_SUFFIXES, TEXT_SUFFIXES, natural_order, open_table, parquet_parts
from seqrec.data.sources.text import Dialect, Source, connect
from seqrec.errors import DataError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: Characters in a cell; more is a quote that was never closed.
LONGEST = 1 << 20


@dataclass(frozen=True)
class SparkTable:
    """Rows and columns of a table on Spark.

    Attributes:
        where: what errors call it: a path or an address.
        names: columns as the source names them.
        rows: column k as `ck`, and `position` (bigint, from 0, in the order of the source); of text also
            `malformed`, the text of a row that has more or fewer columns than the header.
        first: the rows of `rows` from which the unit of times is guessed.
        parts: first position and name of every file, in order.
        path, dialect: of a text file on a disk of this machine.
        quote: of text; None of anything else.
    """

    where: str
    names: tuple[str, ...]
    rows: DataFrame
    first: DataFrame
    parts: Sequence[tuple[int, str]]
    path: Path | None = None
    dialect: Dialect | None = None
    quote: str | None = None

    def source(self) -> Source:
        """The names, to look for columns in."""
        return Source(self.where, self.names, ("",) * len(self.names), "nothing")

    def peeked(self, names: Sequence[str]) -> Source:
        """The first rows of some columns, in the types in which Spark hands them to Python."""
        return self._arrow(Source, self.where, self.first, names)

    def row(self, position: int, names: Sequence[str]) -> Source:
        """One row of some columns as a source that knows where it stood."""
        part, place = self.place(position)
        found = self.rows.filter(self.rows["position"] == position)
        return self._arrow(_Row, part, found, names, at=place)

    def place(self, position: int) -> tuple[str, str]:
        """File, and line (text on this machine) or row in it, from 1."""
        if self.path is not None and self.dialect is not None:
            text = Source(self.where, self.names, ("VARCHAR",) * len(self.names), "", self.path, self.dialect)
            with suppress(UnicodeDecodeError):  # then lines cannot be counted
                return self.where, text.place(position)
        before, part = self.parts[bisect_right(self.parts, position, key=lambda found: found[0]) - 1]
        return part, f"row {position - before + 1}"

    def _arrow(self, kind: Any, where: str, rows: DataFrame, names: Sequence[str], **more: Any) -> Any:
        columns = self.source()
        used = [columns.column(name) for name in dict.fromkeys(names)]
        table: pa.Table = rows.select(*used).toArrow()
        connection = connect()
        connection.register("frame", table)
        described = dict(row[:2] for row in connection.sql("DESCRIBE SELECT * FROM frame").fetchall())
        types = tuple(described.get(f"c{k}", "") for k in range(len(self.names)))
        return kind(where, self.names, types, "frame", connection=connection, **more)


@dataclass(frozen=True)
class _Row(Source):
    """A source of one row that stood at `at` in its file."""

    at: str = ""

    def place(self, row: int) -> str:
        return self.at


def open_on_spark(session: SparkSession, source: str | Path) -> SparkTable:
    """A CSV, TSV or TXT file (each also `.gz`), a Parquet file or a folder of them: a path, or a URI that Spark reads.

    Raises:
        DataError: it is nothing that can be read.
    """
    where = str(source)
    remote = "://" in where
    found = None if remote else open_table(Path(where))  # says what is wrong with a path better than Spark does
    if where.lower().endswith(TEXT_SUFFIXES):
        return _text(session, where, found)
    if remote:
        return _parquet(session, where, where, [where])
    path = Path(where).absolute()
    return _parquet(session, where, _uri(path), [_literal(_uri(part)) for part in parquet_parts(path) or [path]])


def _text(session: SparkSession, where: str, found: Source | None) -> SparkTable:
    from pyspark.sql import functions

    here = found is not None
    found = found or _header(session, where)
    dialect = found.dialect or Dialect()
    columns = ", ".join(f"c{k} STRING" for k in range(len(found.names)))
    rows = session.read.csv(
        _literal(_uri(Path(where).absolute())) if here else where,
        schema=f"{columns}, malformed STRING",
        columnNameOfCorruptRecord="malformed",
        sep=dialect.delimiter,
        quote=dialect.quote,
        escape=dialect.quote,
        unescapedQuoteHandling="RAISE_ERROR",
        header=True,
        multiLine=True,
        maxCharsPerColumn=LONGEST,
        encoding="UTF-8",
    ).withColumn("position", functions.monotonically_increasing_id())  # of one partition: 0, 1, ...
    table = SparkTable(where, found.names, rows, rows.limit(PEEKED), [(0, where)], quote=dialect.quote)
    return replace(table, path=found.path, dialect=dialect) if here else table


def _header(session: SparkSession, where: str) -> Source:
    """Columns and dialect of a text file elsewhere: its first line is read here, as a file of one line."""
    line = session.read.text(where).first()
    with tempfile.TemporaryDirectory() as folder:
        head = Path(folder, "head.csv")
        head.write_text("" if line is None else line[0] + "\n", encoding="utf-8")
        try:
            return open_table(head)
        except DataError as error:
            raise DataError(str(error).replace(str(head), where)) from None


def _parquet(session: SparkSession, where: str, root: str, paths: Sequence[str]) -> SparkTable:
    from pyspark.sql import functions

    # Names of folders such as `day=3` are no columns here; with `mergeSchema` parts that disagree are an error.
    reader = session.read.option("recursiveFileLookup", "true").option("mergeSchema", "true")
    table = reader.option("pathGlobFilter", f"*{{{','.join(PARQUET_SUFFIXES)}}}").parquet(*paths)
    names = tuple(table.columns)
    hidden = table.metadataColumn("_metadata")
    located = table.select("*", hidden.getField("file_path"), hidden.getField("row_index"))
    located = located.toDF(*(f"c{k}" for k in range(len(names))), "file", "place")
    counts = {row["file"]: row["count"] for row in located.groupBy("file").count().collect()}
    files = sorted(counts, key=lambda file: natural_order(_relative(file, root)))
    before, total = {}, 0
    for file in files:
        before[file] = total
        total += counts[file]
    offsets = functions.broadcast(session.createDataFrame([*before.items()], "file STRING, before LONG"))

    def placed(found: DataFrame) -> DataFrame:
        joined = found.join(offsets, "file")
        return joined.withColumn("position", joined["before"] + joined["place"]).drop("file", "place", "before")

    start = placed(located.filter(located["file"].isin([file for file in files if before[file] < PEEKED])))
    parts = [(before[file], unquote(file).removeprefix("file://")) for file in files]
    if len(parts) == 1:
        parts = [(0, where)]
    return SparkTable(where, names, placed(located), start.filter(start["position"] < PEEKED), parts)


def _relative(file: str, root: str) -> str:
    """Name of a file under its root, as it is on disk: Spark escapes what it tells of a file."""
    return unquote(file).replace("file:///", "/").removeprefix(root.replace("file:///", "/")).lstrip("/")


def _uri(path: Path) -> str:
    """A path of this machine whatever Spark's own file system is. Not `as_uri`: Spark would not unescape it."""
    return f"file://{path.as_posix()}"


def _literal(uri: str) -> str:
    """An address that Spark takes literally: these letters are patterns to it."""
    return re.sub(r"([\[\]*?{}\\])", r"\\\1", uri)
