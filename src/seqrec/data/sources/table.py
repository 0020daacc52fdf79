"""Any table of events: CSV, TSV, TXT and Parquet files, and pandas, polars and Arrow frames."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from seqrec.data.interactions import Interactions
from seqrec.data.sources.events import TIME_UNITS, read_events
from seqrec.data.sources.text import Dialect, Source, connect, first_line, glob_escaped, listed, quoted, text_file
from seqrec.errors import DataError, unknown_name

#: Common names of columns, likeliest first, in lower case without punctuation.
GUESSES: Mapping[str, Sequence[str]] = {
    "user": ("userid", "user", "uid", "queryid", "visitorid", "customerid", "customer", "reviewerid", "memberid",
             "member", "sessionid", "session", "username", "userkey", "u"),
    "item": ("itemid", "item", "iid", "movieid", "movie", "productid", "product", "parentasin", "asin", "trackid",
             "track", "songid", "song", "artistid", "bookid", "isbn", "articleid", "newsid", "gameid", "appid",
             "businessid", "videoid", "sku", "itemkey", "i"),
    "time": ("timestamp", "time", "ts", "datetime", "date", "unixreviewtime", "eventtime", "createdat",
             "playedat", "ratingtimestamp", "reviewtime", "unixtime", "epoch", "t"),
    "value": ("rating", "value", "score", "stars", "overall", "playcount", "plays"),
}  # fmt: skip

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
PARQUET_SUFFIXES = (".parquet", ".pq")


def read_table(
    source: Any,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    value: str | None = None,
    time_unit: str = "auto",
    name: str | None = None,
) -> Interactions:
    """Read a table with one row per event.

    Ids are kept as written: 1 in a Parquet column, 1.0 in a float column and "1" in a CSV file are the same id.
    Rows stay in the order of the source, and rows that occur twice stay twice: repeats are real.

    Args:
        source: path of a `.csv`, `.tsv`, `.txt` (each also `.gz`) file, whose first line names the columns, of a
            `.parquet` file or a folder of them (read in the order of their names, 2 before 10); or a pandas, polars
            or Arrow frame.
        user, item, time, value: names of columns; what is None is looked for among common names. `value` is
            optional, and one that was found, not named, is left out when it is not numeric.
        time_unit: `auto`, `s`, `ms` or `us` since 1970 UTC, `iso` dates, or `order`: the time column holds whole
            numbers that only order events, and with `time=None` the order of the rows is the order of events.
        name: of the data set; default is the file's name.

    Returns:
        Interactions whose `timestamp` is int64 milliseconds since 1970 UTC; with `order`, the numbers themselves
        and `clock` False.

    Raises:
        DataError: a column is missing, or a value cannot be used; the message names the file, the line (or row,
            from 1), the column, what was found and the remedy.
        UnknownNameError: an unknown time unit.
    """
    if time_unit not in TIME_UNITS:
        raise unknown_name("time unit", time_unit, TIME_UNITS)
    table = open_table(source)
    named = {"user": user, "item": item, "time": time, "value": value}
    columns = find_columns(table, named, by_position=time_unit == "order" and time is None)
    events, clock = read_events(table, **columns, time_unit=time_unit, optional_value=value is None)
    if name is None:
        name = Path(source).name.partition(".")[0] if isinstance(source, (str, Path)) else "table"
    return Interactions(name=name, events=events, clock=clock)


def find_columns(table: Source, named: Mapping[str, str | None], by_position: bool) -> dict[str, Any]:
    """Role -> column: as named, else the likeliest common name, else None (only `value`, and `time` by position).

    Raises:
        DataError: a column is missing, or one was named for two roles.
    """
    found = dict(named)
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in reversed(table.names)}
    for role, guesses in GUESSES.items():
        if (given := named[role]) is not None:
            table.column(given)
        elif not (role == "time" and by_position):
            taken = {column for column in found.values() if column}
            known = (plain[guess] for guess in guesses if guess in plain and plain[guess] not in taken)
            found[role] = next(known, None)
    lacking = [role for role in ("user", "item", "time") if not found[role] and not (role == "time" and by_position)]
    if lacking:
        raise _lacking(table, lacking)
    used = [column for column in found.values() if column]
    if len(set(used)) < len(used):
        raise DataError(f"{table.where}: one column was named for two things: {found}.")
    return found


def _lacking(table: Source, roles: Sequence[str]) -> DataError:
    said = f"{table.where}: no column found for {' and '.join(roles)}. Columns found: {listed(table.names)}."
    if all(re.fullmatch(r"[\d.\s-]+", name) for name in table.names):
        said += " The first line looks like data: put one with the names of the columns above it."
    said += f" Name {'them' if len(roles) > 1 else 'it'}: {' '.join(f'--{role} COLUMN' for role in roles)}"
    said += f" (in Python: {', '.join(f'{role}=...' for role in roles)})."
    if "time" in roles:
        said += " Without a time, --time-unit order takes the order of the rows."
    return DataError(said)


def open_table(source: Any) -> Source:
    """The columns of anything that `read_table` reads.

    Raises:
        DataError: it is nothing that can be read.
    """
    if isinstance(source, (str, Path)):
        return _open_file(Path(source))
    if isinstance(source, (pa.Table, pa.RecordBatch)):
        return _arrow(pa.table(source))
    package = type(source).__module__.partition(".")[0]
    if package == "pandas" and hasattr(source, "columns"):
        return _arrow(pa.table([_pandas_column(source.iloc[:, k]) for k in range(source.shape[1])],
                               names=[str(name) for name in source.columns]))  # fmt: skip
    if package == "polars" and hasattr(source, "to_arrow"):
        return _arrow(source.to_arrow())
    raise DataError(
        f"A {type(source).__module__}.{type(source).__qualname__} is not a table that can be read. Give a path, or a "
        "pandas, polars (collected) or Arrow frame."
    )


def _open_file(path: Path) -> Source:
    lower = path.name.lower()
    if parts := parquet_parts(path):
        files = ", ".join(quoted(glob_escaped(part)) for part in parts)
        return _relation(str(path), f"read_parquet([{files}], hive_partitioning = false)", connect())
    if not path.is_file():
        what = "is a folder without Parquet files" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}. Give the path of a {', '.join(TEXT_SUFFIXES + PARQUET_SUFFIXES)} file.")
    if lower.endswith(PARQUET_SUFFIXES):
        return _relation(str(path), f"read_parquet({quoted(glob_escaped(path))})", connect())
    if not lower.endswith(TEXT_SUFFIXES):
        raise DataError(f"{path}: not a kind of table that is read: {', '.join(TEXT_SUFFIXES + PARQUET_SUFFIXES)}.")
    line = first_line(path, "utf-8", str(path))
    delimiter = max((",", "\t", ";", "|", "::"), key=line.count)  # of equals, the first
    return text_file(path, Dialect(delimiter, quote="" if delimiter == "::" else '"'))


def parquet_parts(path: Path) -> list[Path]:
    """The Parquet files under a folder, in the order of their rows: by name, numbers by size. None for a file."""
    found = (part for suffix in PARQUET_SUFFIXES for part in path.rglob(f"*{suffix}") if part.is_file())
    names = {part: part.relative_to(path).as_posix() for part in found}
    visible = [part for part, name in names.items() if not re.search(r"(^|/)[._]", name)]
    return sorted(visible, key=lambda part: natural_order(names[part]))


def natural_order(name: str) -> list[str]:
    """What sorts names with numbers in them by size: `part-2` before `part-10`."""
    return [word.zfill(20) for word in re.findall(r"\d+|\D+", name)]


def _arrow(table: pa.Table) -> Source:
    connection = connect()
    connection.register("frame", table)
    return _relation("the table", "frame", connection)


def _relation(where: str, relation: str, connection: Any) -> Source:
    """A relation that has names and types of its own."""
    try:
        described = connection.sql(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    except duckdb.Error as error:
        raise DataError(f"{where} cannot be read: {error}") from error
    names, types = tuple(row[0] for row in described), tuple(row[1] for row in described)
    numbered = ", ".join(f"c{k}" for k in range(len(names)))
    return Source(where, names, types, f"{relation} AS source({numbered})", connection=connection)


def _pandas_column(series: Any) -> pa.Array:
    """A pandas column as Arrow; what has no single type becomes text, value by value."""
    try:
        return pa.Array.from_pandas(series)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return pa.Array.from_pandas(series.map(str, na_action="ignore"))
