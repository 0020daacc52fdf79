"""Files with one object a line: JSON, or the Python dicts of older data sets ("loose JSON").

JSON is read by DuckDB. Dicts are parsed by `literals`, and spooled to disk a batch at a time.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from seqrec.data.download import cache_folder
from seqrec.data.sources.literals import parse_literal
from seqrec.data.sources.text import Source, glob_escaped, quoted, refuse_damaged_gzip
from seqrec.errors import DataError
from seqrec.files import explained, scratch_folder

#: Longest line in bytes. The longest reviews are some 40 KB. A buffer of DuckDB holds two lines of JSON; a literal
#: takes some twenty times its length while it is parsed.
LONGEST_JSON, LONGEST_LITERAL = 1 << 24, 1 << 22
#: Lines of literals that are in memory at once.
BATCH = 1 << 15
_in_json = json.JSONEncoder(ensure_ascii=False).encode
_AGAIN = "Correct or remove that line, or get the file again."


@dataclass(frozen=True)
class LinesSource(Source):
    """A source with one object a line; errors tell the line."""

    def place(self, row: int) -> str:
        """`line 17`; blank lines count as lines and not as rows."""
        assert self.path is not None
        with closing(_lines(self.path, self.where)) as lines:
            return next((f"line {number}" for k, (number, _) in enumerate(lines) if k == row), f"row {row + 1}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """DuckDB counts lines within its buffers, not always from the start: the line is looked for again."""
        try:
            yield
        except (duckdb.Error, pa.ArrowException, UnicodeDecodeError, OSError) as error:
            assert self.path is not None
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's; DuckDB's errors arrive through Arrow as one without a number
            if not isinstance(error, duckdb.OutOfMemoryException):
                _raise_for_damage(self.path, self.where)
            said = str(error).split("\n")[0].removeprefix("Invalid Input Error: ")
            raise DataError(f"{self.where}: {said} {_AGAIN}") from error


def json_source(path: Path, columns: Mapping[str, str], where: str | None = None) -> Source:
    """A file of newline-delimited JSON objects, plain or `.gz`; blank lines are skipped.

    Args:
        columns: keys that are read, and DuckDB's type of each. VARCHAR takes any value: a number as written, a list
            as JSON; a value that does not fit another type is an error. A key that a line lacks is null there.
        where: what errors call it, if not its path.

    Raises:
        DataError: no such file; and when it is read, a damaged line or file: which line, and why.
    """
    where = where or str(path)
    _refuse_absent(path, where)
    refuse_damaged_gzip(path, where)
    typed = ", ".join(f"{quoted(key)}: {quoted(kind)}" for key, kind in columns.items())
    relation = (
        f"read_json({quoted(glob_escaped(path))}, format = 'newline_delimited', records = 'true', "
        f"columns = {{{typed}}}, maximum_object_size = {LONGEST_JSON}, "
        f"compression = '{'gzip' if path.suffix == '.gz' else 'uncompressed'}') AS source({_numbered(len(columns))})"
    )
    return LinesSource(where, tuple(columns), tuple(columns.values()), relation, path)


@contextmanager
def literal_source(path: Path, keys: Sequence[str], where: str | None = None) -> Iterator[Source]:
    """A file of Python dicts, one a line, plain or `.gz`; blank lines are skipped.

    The values pass through a file on the disk of the cache, which is removed when the block ends.

    Args:
        keys: what is read, each as VARCHAR: a number as Python writes it, a list or dict as JSON, None and a key
            that a line lacks as null.
        where: what errors call it, if not its path.

    Raises:
        DataError: no such file, or a line that is no dict of literals: which line, and why.
        DiskError: the disk of the cache is full.
    """
    where = where or str(path)
    _refuse_absent(path, where)
    schema = pa.schema([(key, pa.string()) for key in keys])
    with parquet_spool(_literal_batches(path, schema, where), schema) as relation:
        yield LinesSource(where, tuple(keys), ("VARCHAR",) * len(keys), relation, path)


@contextmanager
def object_source(path: Path, keys: Sequence[str], where: str | None = None) -> Iterator[Source]:
    """JSON or Python dicts, whichever the first line is: publishers call both `.json`.

    Args:
        keys: what is read, each as VARCHAR; the first line must have one of them.
        where: what errors call it, if not its path.

    Raises:
        DataError: as `json_source` and `literal_source`; or the file has other keys, or no lines.
    """
    where = where or str(path)
    _refuse_absent(path, where)
    with closing(_lines(path, where)) as lines:
        number, line = next(lines, (1, ""))
    if not line:
        raise DataError(f"{where} is empty. Get the file again.")
    if not any(f"{quote}{key}{quote}" in line for key in keys for quote in "\"'"):
        wanted = f"an object with {', '.join(keys)}"
        raise DataError(
            f"{where}, line {number}: {wanted} belongs here, found {line.strip()[:120]!r}. Is it this file?"
        )
    if re.match(r"\s*\{\s*u?'", line):
        with literal_source(path, keys, where) as source:
            yield source
    else:
        yield json_source(path, dict.fromkeys(keys, "VARCHAR"), where)


@contextmanager
def parquet_spool(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[str]:
    """Write batches to a Parquet file on the disk of the cache; it is removed when the block ends.

    Yields:
        What stands after FROM, with the columns called c0, c1, ...

    Raises:
        DiskError: the disk is full or may not be written.
    """
    with scratch_folder(cache_folder() / "spool") as temporary:
        file = temporary / "rows.parquet"
        with explained(file), pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
        yield f"read_parquet({quoted(glob_escaped(file))}) AS source({_numbered(len(schema))})"


def _literal_batches(path: Path, schema: pa.Schema, where: str) -> Iterator[pa.RecordBatch]:
    rows: list[list[str | None]] = []
    for number, line in _lines(path, where, LONGEST_LITERAL):
        try:
            value = parse_literal(line)
            rows.append([_text(value.get(key)) for key in schema.names])
        except (ValueError, RecursionError, MemoryError) as error:
            raise _damaged(where, number, "a Python dict", line, error) from error
        if len(rows) == BATCH:
            yield _batch(rows, schema)
            rows = []
    yield _batch(rows, schema)


def _batch(rows: list[list[str | None]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [[]] * len(schema)
    return pa.record_batch([pa.array(column, pa.string()) for column in columns], schema=schema)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return _in_json(value) if isinstance(value, (list, dict)) else str(value)


def _lines(path: Path, where: str, longest: int = LONGEST_JSON) -> Generator[tuple[int, str], None, None]:
    """Lines that are not blank, with their numbers from 1, never more than `longest` bytes in memory."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while line := file.readline(longest + 1):
                number += 1
                if len(line) > longest:
                    raise DataError(f"{where}, line {number} is longer than {longest:,} bytes. {_AGAIN}")
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise DataError(f"{where}, line {number} is not UTF-8 text ({error.reason}). {_AGAIN}") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{where} cannot be read beyond line {number} ({reason}). Get the file again.") from error


def _raise_for_damage(path: Path, where: str) -> None:
    """Raise the DataError of the first line that is not a JSON object, if there is one."""
    for number, line in _lines(path, where):
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError(f"a {type(value).__name__} where an object belongs")
            _in_json(value).encode()  # half a surrogate pair is no text
        except (ValueError, RecursionError) as error:
            raise _damaged(where, number, "a JSON object", line, error) from error


def _damaged(where: str, number: int, wanted: str, line: str, error: BaseException) -> DataError:
    found = line.strip()[:60]
    return DataError(f"{where}, line {number} is not {wanted} ({error}), found {found!r}. {_AGAIN}")


def _refuse_absent(path: Path, where: str) -> None:
    if not path.is_file():
        raise DataError(f"{where} is not a file. Give the path of a file with one object a line.")


def _numbered(count: int) -> str:
    return ", ".join(f"c{k}" for k in range(count))
