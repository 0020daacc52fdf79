"""Text, Parquet and frames as named columns, read by DuckDB in the order of the source.

Text is read as text and cast with TRY_CAST, so that what does not fit is named: file, line, column, value, remedy.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import sys
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from seqrec.errors import DataError, nearest

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_FLOATS = {"FLOAT": 1 << 24, "DOUBLE": 1 << 53}  # above these, neighbouring whole numbers are one float
#: How much of a value, and how many names, an error shows.
LONGEST_SHOWN, MOST_LISTED = 120, 40


@dataclass(frozen=True)
class Dialect:
    """How a text file is written. `quote` is empty where quotes are ordinary characters."""

    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Source:
    """Named columns that DuckDB can read.

    Attributes:
        where: what errors call it: a path, or `the table`.
        names: columns as the source names them; in SQL column k is `ck`.
        types: DuckDB's type of each column.
        relation: what stands after FROM.
        path, dialect: of a text file, to tell the line of a row; None otherwise.
    """

    where: str
    names: tuple[str, ...]
    types: tuple[str, ...]
    relation: str
    path: Path | None = None
    dialect: Dialect | None = None
    connection: Any = field(default_factory=lambda: connect(), repr=False)

    def column(self, name: str) -> str:
        """The SQL name of a column.

        Raises:
            DataError: there is none of that name, or several.
        """
        if self.names.count(name) == 1:
            return f"c{self.names.index(name)}"
        guess = nearest(name, self.names)
        problem = "several columns" if name in self.names else "no column"
        hint = f" Did you mean {guess!r}?" if guess and guess != name else ""
        raise DataError(f"{self.where}: {problem} {name!r}.{hint} Columns found: {listed(self.names)}.")

    def type(self, name: str) -> str:
        """DuckDB's type of a column, without what is in brackets."""
        return self.types[int(self.column(name)[1:])].partition("(")[0]

    def select(self, clause: str = "", /, **expressions: str) -> pa.Table:
        """One column per SQL expression, all rows in the order of the source.

        Args:
            clause: what stands behind the relation, such as `LIMIT 10`.

        Raises:
            DataError: the file cannot be read; the message names the line where DuckDB knows it.
        """
        with self._explained():
            return self.connection.sql(self._query(expressions, clause)).to_arrow_table()

    def batches(self, **expressions: str) -> Generator[pa.RecordBatch, None, None]:
        """As `select`, a few hundred thousand rows at a time, so that the whole need not fit into memory."""
        rows = 1 << 18
        with self._explained(), self.connection.sql(self._query(expressions)).to_arrow_reader(rows) as reader:
            yield from reader

    def _query(self, expressions: Mapping[str, str], clause: str = "") -> str:
        columns = ", ".join(f'{expression} AS "{name}"' for name, expression in expressions.items())
        return f"SELECT {columns} FROM {self.relation} {clause}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, pa.ArrowException, UnicodeDecodeError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's; DuckDB's errors arrive through Arrow as one without a number
            raise DataError(f"{self.where}: {_explain(error)}") from error

    def strings(self, names: Sequence[str]) -> pa.Table:
        """Columns as strings, trimmed, null where empty, under their own names."""
        texts = {f"c{k}": f"nullif(trim(CAST({self.column(name)} AS VARCHAR)), '')" for k, name in enumerate(names)}
        return self.select(**texts).rename_columns(list(names))

    def ids(self, name: str) -> pa.Array:
        """A column of ids as strings, as events have them.

        Raises:
            DataError: an id is missing.
        """
        ids = self.select(id=self.id_sql(name))["id"]
        self.refuse_nulls(name, ids)
        return ids.combine_chunks()

    def id_sql(self, name: str) -> str:
        """SQL for ids: 1, 1.0 in a float column and "1" are one id. Null where there is no usable id."""
        column, kind = self.column(name), self.type(name)
        if kind in _FLOATS:
            whole = f"isfinite({column}) AND {column} = trunc({column}) AND abs({column}) <= {_FLOATS[kind]}"
            return f"CASE WHEN {whole} THEN CAST(CAST({column} AS BIGINT) AS VARCHAR) END"
        if kind in (*_WHOLE, "BOOLEAN", "DECIMAL", "UUID"):
            return f"CAST({column} AS VARCHAR)"
        if kind in ("VARCHAR", "ENUM"):
            return f"CASE WHEN trim(CAST({column} AS VARCHAR)) <> '' THEN CAST({column} AS VARCHAR) END"
        raise DataError(f"{self.where}: column {name!r} is of type {kind}. Ids are text or whole numbers.")

    def number_sql(self, name: str, kind: str = "DOUBLE") -> str:
        """SQL for a number of DuckDB's type `kind`; null where the value is not one."""
        column = self.column(name)
        # DuckDB 2.0 pushes TRY_CAST of a bare CSV column into its reader, where it raises instead of giving null
        # (duckdb/duckdb issue 23818). trim is in the way of that, and harmless.
        return f"TRY_CAST({f'trim({column})' if self.type(name) == 'VARCHAR' else column} AS {kind})"

    def refuse_nulls(self, name: str, ids: pa.ChunkedArray) -> None:
        """Raise the DataError that names the first missing id."""
        if ids.null_count:
            raise self.no_id(name, first(pc.is_null(ids)))

    def no_id(self, name: str, row: int) -> DataError:
        """The error for a missing id in a row (from 0)."""
        return self.error(name, row, "no usable id", "Every row needs one: text, or a whole number. Remove the row.")

    def error(self, name: str, row: int, problem: str, remedy: str) -> DataError:
        """The error for a value: where it stands (row counts from 0), what it is, and what to do."""
        query = f"SELECT CAST({self.column(name)} AS VARCHAR) FROM {self.relation} LIMIT 1 OFFSET {row}"
        with self._explained():
            ((value,),) = self.connection.sql(query).fetchall()
        found = "nothing" if value is None else shown(value)
        return DataError(f"{self.where}, {self.place(row)}, column {name!r}: {problem}, found {found}. {remedy}")

    def place(self, row: int) -> str:
        """`line 17` of a text file, `row 16` of anything else; both count from 1."""
        if self.path is None or self.dialect is None:
            return f"row {row + 1}"
        try:
            return f"line {_line(self.path, self.dialect, row)}"
        except (OSError, EOFError, zlib.error, csv.Error, ValueError):  # a damaged file, which DuckDB read further
            return f"row {row + 1}"


def connect() -> Any:
    """A DuckDB that keeps the order of rows, reads times without a zone as UTC, and fetches nothing."""
    connection = duckdb.connect(config={"preserve_insertion_order": True, "autoinstall_known_extensions": False})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def text_file(path: Path, dialect: Dialect, names: Sequence[str] | None = None, where: str | None = None) -> Source:
    """A delimited text file, plain or `.gz`; blank lines are skipped.

    Args:
        names: its columns, where it has no header.
        where: what errors call it, if not its path.

    Raises:
        DataError: no such file, an empty file, or a header that is not text in that encoding.
    """
    where = where or str(path)
    found = tuple(names) if names is not None else header(path, dialect, where)
    refuse_damaged_gzip(path, where)
    columns = ", ".join(f"'c{k}': 'VARCHAR'" for k in range(len(found)))
    relation = (
        f"read_csv({quoted(glob_escaped(path))}, auto_detect = false, columns = {{{columns}}}, "
        f"delim = {quoted(dialect.delimiter)}, quote = {quoted(dialect.quote)}, escape = {quoted(dialect.quote)}, "
        f"header = {str(dialect.header).lower()}, encoding = {quoted(dialect.encoding)}, "
        f"compression = '{'gzip' if path.suffix == '.gz' else 'none'}')"
    )
    return Source(where, found, ("VARCHAR",) * len(found), relation, path, dialect)


def header(path: Path, dialect: Dialect, where: str) -> tuple[str, ...]:
    """The names in the first line of a text file, trimmed; a nameless column k is called `column k`."""
    line = first_line(path, dialect.encoding, where)
    if dialect.quote:
        with _long_cells():
            cells = next(csv.reader([line], delimiter=dialect.delimiter, quotechar=dialect.quote))
    else:
        cells = line.split(dialect.delimiter)
    return tuple(cell.strip() or f"column {k}" for k, cell in enumerate(cells, start=1))


def first_line(path: Path, encoding: str, where: str) -> str:
    """The first line of a text file, without its end and without a byte order mark.

    Raises:
        DataError: no such file, an empty file, or not text in that encoding.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            begin: bytes = file.readline(1 << 20)
        # Decoded alone: what stands behind it is DuckDB's to read, which names the line that is no text.
        cut = re.split(rb"[\r\n]", begin, maxsplit=1)[0]
        decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
        line = decoder.decode(cut, final=len(cut) < len(begin))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: the first line is not {encoding} text ({error.reason}). Save it as UTF-8."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if not line.strip():
        raise DataError(f"{where} is empty, or its first line is. It needs a first line and events below it.")
    return line


def refuse_damaged_gzip(path: Path, where: str) -> None:
    """Read a `.gz` to its end: DuckDB does not look at its checksum, and would take damage for data.

    Raises:
        DataError: it is cut short or damaged.
    """
    if path.suffix != ".gz":
        return
    lines = 0
    try:
        with gzip.open(path) as file:
            while block := file.read(1 << 16):
                lines += block.count(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{where} cannot be read beyond line {lines} ({reason}). Get the file again.") from error


def first(mask: pa.Array | pa.ChunkedArray) -> int:
    """Position of the first true value, -1 where there is none."""
    return int(pc.index(mask, True).as_py())


def one_per_id(table: pa.Table) -> pa.Table:
    """The first row of every `id`, in the order of the source."""
    rows = pa.array(range(table.num_rows), pa.int64())
    kept = table.select(["id"]).append_column("row", rows).group_by("id").aggregate([("row", "min")])
    return table.take(kept["row_min"].sort())


def shown(text: str) -> str:
    """A value for an error: quoted, and cut where it is long."""
    return repr(text) if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]!r}... ({len(text):,} characters)"


def listed(names: Sequence[str]) -> str:
    """Names for an error; of many, the first."""
    cut = [name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}..." for name in names[:MOST_LISTED]]
    return ", ".join(cut) + (f" and {len(names) - MOST_LISTED:,} more" if len(names) > MOST_LISTED else "")


def quoted(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"


def glob_escaped(path: Path) -> str:
    """A path that DuckDB takes literally: `[`, `*` and `?` are patterns to it."""
    return "".join(f"[{letter}]" if letter in "[*?" else letter for letter in str(path))


def _explain(error: Exception) -> str:
    """DuckDB's message without the list of its options, and what to do."""
    said = str(error).split("Possible ")[0].split("  file = ")[0].split("\n\n")[0].strip()
    lines = said.removeprefix("Invalid Input Error: ").split("\n")
    said = "\n".join(line if len(line) <= 400 else f"{line[:400]}..." for line in lines[:8])
    return f"{said}\nCorrect that line, or save the table again as UTF-8 CSV or as Parquet."


def _line(path: Path, dialect: Dialect, row: int) -> int:
    """Line (from 1) where row `row` (from 0) begins: blank lines and line breaks within quotes count too."""
    wanted = row + dialect.header
    with _open_text(path, dialect.encoding) as file:
        if not dialect.quote:
            written = (number for number, line in enumerate(file, start=1) if line.strip("\r\n"))
            return next((number for k, number in enumerate(written) if k == wanted), row + 1)
        reader = csv.reader(file, delimiter=dialect.delimiter, quotechar=dialect.quote)
        begins = 1
        with _long_cells():
            for cells in reader:
                if cells and not wanted:
                    break
                wanted, begins = wanted - bool(cells), reader.line_num + 1
        return begins


@contextmanager
def _long_cells() -> Iterator[None]:
    """Python's csv refuses cells of more than 128 KiB, which DuckDB reads; the limit belongs to the whole process."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _open_text(path: Path, encoding: str) -> IO[str]:
    encoding = "utf-8-sig" if encoding == "utf-8" else encoding
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")
