"""Any table of events: CSV, TSV, TXT and Parquet files, and pandas, polars and Arrow frames."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from seqrec.data.interactions import Interactions, encode_ids
from seqrec.data.sources.text import Dialect, Source, connect, first, first_line, glob_escaped, quoted, text_file
from seqrec.errors import DataError, unknown_name

#: Units of numeric times, in one second. `auto` finds which; `iso` is dates; `order` is not clock time at all.
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
TIME_UNITS = ("auto", *PER_SECOND, "iso", "order")

#: Clock times lie from 1970 to 2100. Where the unit is guessed they lie after 1973-03-03: what is smaller is a
#: counter, a missing value, or a time in a coarser unit than its neighbours.
FIRST_SECOND, FIRST_GUESSED_SECOND, LAST_SECOND = 0, 100_000_000, 4_102_444_800

#: Common names of columns, likeliest first, in lower case without punctuation.
GUESSES: Mapping[str, Sequence[str]] = {
    "user": ("userid", "user", "uid", "visitorid", "customerid", "customer", "reviewerid", "memberid", "member",
             "sessionid", "session", "username", "userkey", "u"),
    "item": ("itemid", "item", "iid", "movieid", "movie", "productid", "product", "parentasin", "asin", "trackid",
             "track", "songid", "song", "artistid", "bookid", "isbn", "articleid", "newsid", "gameid", "appid",
             "businessid", "videoid", "sku", "itemkey", "i"),
    "time": ("timestamp", "time", "ts", "datetime", "date", "unixreviewtime", "eventtime", "createdat",
             "playedat", "ratingtimestamp", "reviewtime", "unixtime", "epoch", "t"),
    "value": ("rating", "value", "score", "stars", "overall", "playcount", "plays"),
}  # fmt: skip

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
PARQUET_SUFFIXES = (".parquet", ".pq")
_REMEDY = (
    "Times are epoch seconds, milliseconds or microseconds (--time-unit s, ms, us), ISO dates such as "
    "2024-05-31T12:00:00Z, or, with --time-unit order, whole numbers that only say what came first."
)


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
        source: path of a `.csv`, `.tsv`, `.txt` (each also `.gz`) or `.parquet` file, whose first line names the
            columns; or a pandas, polars or Arrow frame.
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
    table = _open(source)
    named = {"user": user, "item": item, "time": time, "value": value}
    columns = _columns(table, named, by_position=time_unit == "order" and time is None)
    events, clock = read_events(table, **columns, time_unit=time_unit, optional_value=value is None)
    if name is None:
        name = Path(source).name.partition(".")[0] if isinstance(source, (str, Path)) else "table"
    return Interactions(name=name, events=events, clock=clock)


def read_events(
    source: Source,
    *,
    user: str,
    item: str,
    time: str | None,
    value: str | None = None,
    time_unit: str = "auto",
    optional_value: bool = False,
) -> tuple[pa.Table, bool]:
    """`Interactions.events` of a source, and whether its times are clock times.

    Args:
        user, item, time, value: names of columns; `time` None (only with `order`): the order of the rows.
        time_unit: one of `TIME_UNITS`.
        optional_value: a value column with something other than numbers is left out instead of refused.

    Raises:
        DataError: a missing id, a time that cannot be, a value that is no number: where, what, and the remedy.
    """
    columns = {"user": source.id_sql(user), "item": source.id_sql(item)}
    if time is not None:
        columns |= _time_sql(source, time, time_unit)
    if value is not None:
        columns |= _value_sql(source, value)
    table = source.select(**columns)
    if table.num_rows == 0:
        raise DataError(f"{source.where} has columns ({', '.join(source.names)}) but no rows.")
    for name, column in ((user, "user"), (item, "item")):
        source.refuse_nulls(name, table[column])
    rows = np.arange(table.num_rows, dtype=np.int64)
    events = {"row": rows, "user": encode_ids(table["user"]), "item": encode_ids(table["item"])}
    events["timestamp"] = rows if time is None else _times(source, time, time_unit, table)
    if value is not None:
        bad = pc.any(table["bad"]).as_py()
        if bad and not optional_value:
            raise source.error(value, first(table["bad"]), "not a number", "Correct it, or leave it empty.")
        if not bad:
            events["value"] = table["value"]
    return pa.table(events), time_unit != "order"


def _value_sql(source: Source, name: str) -> dict[str, str]:
    """SQL for a number, null where empty, and for whether it is neither a finite number nor empty."""
    number, text = source.number_sql(name), f"trim(CAST({source.column(name)} AS VARCHAR))"
    empty = f"coalesce(lower({text}) IN ('', 'nan', 'null'), true)"
    return {
        "value": f"CASE WHEN isfinite({number}) THEN {number} END",
        "bad": f"NOT ({empty} OR coalesce(isfinite({number}), false))",
    }


def _time_sql(source: Source, name: str, unit: str) -> dict[str, str]:
    """SQL for a time as a number (float64; int64 with `order`) and as milliseconds; null where it is not one."""
    column, kind = source.column(name), source.type(name)
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        moment = f"epoch_ms(CAST({column} AS TIMESTAMPTZ))"  # without a zone: UTC, as the connection is set
        return {"number": moment if unit == "order" else "CAST(NULL AS DOUBLE)", "moment": moment}
    number = source.number_sql(name)
    if unit == "order":
        whole = source.number_sql(name, "BIGINT")
        return {"number": f"CASE WHEN {number} = {whole} THEN {whole} END", "moment": "CAST(NULL AS BIGINT)"}
    text = f"trim(CAST({column} AS VARCHAR))"
    if unit != "iso":  # a number is never also a date
        text = f"CASE WHEN {number} IS NULL THEN {text} END"
    return {"number": number, "moment": f"epoch_ms(TRY_CAST({text} AS TIMESTAMPTZ))"}


def _times(source: Source, name: str, unit: str, table: pa.Table) -> npt.NDArray[np.int64]:
    """Times (N,) of the columns that `_time_sql` made: milliseconds, or with `order` the numbers themselves."""
    numbers, moments = table["number"], table["moment"]
    if unit == "order":
        return _complete(source, name, numbers, "whole number").astype(np.int64)
    typed = source.type(name).startswith("TIMESTAMP") or source.type(name) == "DATE"
    first_second = FIRST_SECOND
    if typed or unit == "iso" or (unit == "auto" and moments.null_count < numbers.null_count):
        values, unit = _complete(source, name, moments, "date"), "ms"
    else:
        values = _complete(source, name, numbers, "time")
        if unit == "auto":
            unit, first_second = _unit(values), FIRST_GUESSED_SECOND
    wrong = (values < first_second * PER_SECOND[unit]) | (values >= LAST_SECOND * PER_SECOND[unit])
    if wrong.any():
        span = f"in {unit} between {'1973-03-03' if first_second else '1970'} and 2100"
        guessed = " (the unit is the median's; are several units mixed?)" if first_second else ""
        problem = f"not a time {span}{guessed}"
        raise source.error(name, int(np.argmax(wrong)), problem, _REMEDY)
    return np.rint(values * (1_000 / PER_SECOND[unit])).astype(np.int64)


def _complete(source: Source, name: str, column: pa.ChunkedArray, kind: str) -> npt.NDArray[Any]:
    """The column as numpy (N,); a null, NaN or infinity in it is refused."""
    if column.null_count:
        raise source.error(name, first(pc.is_null(column)), f"not a {kind}", _REMEDY)
    values: npt.NDArray[Any] = column.to_numpy()
    finite = np.isfinite(values)
    if not finite.all():
        raise source.error(name, int(np.argmin(finite)), f"not a {kind}", _REMEDY)
    return values


def _unit(values: npt.NDArray[Any]) -> str:
    """The unit in which the median is nearest to our days: clock times in s, ms and us are 1,000 apart."""
    median = float(np.median(values))
    return next((unit for unit, per_second in PER_SECOND.items() if median < 1e11 * per_second), "us")


def _columns(table: Source, named: Mapping[str, str | None], by_position: bool) -> dict[str, Any]:
    """Role -> column: as named, else the likeliest common name, else None (only `value`, and `time` by position)."""
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
    said = f"{table.where}: no column found for {' and '.join(roles)}. Columns found: {', '.join(table.names)}."
    if all(re.fullmatch(r"[\d.\s-]+", name) for name in table.names):
        said += " The first line looks like data: put one with the names of the columns above it."
    said += f" Name {'them' if len(roles) > 1 else 'it'}: {' '.join(f'--{role} COLUMN' for role in roles)}"
    said += f" (in Python: {', '.join(f'{role}=...' for role in roles)})."
    if "time" in roles:
        said += " Without a time, --time-unit order takes the order of the rows."
    return DataError(said)


def _open(source: Any) -> Source:
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
    if not path.is_file():
        what = "is a folder, not a table" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}. Give the path of a {', '.join(TEXT_SUFFIXES + PARQUET_SUFFIXES)} file.")
    if lower.endswith(PARQUET_SUFFIXES):
        return _relation(str(path), f"read_parquet({quoted(glob_escaped(path))})", connect())
    if not lower.endswith(TEXT_SUFFIXES):
        raise DataError(f"{path}: not a kind of table that is read: {', '.join(TEXT_SUFFIXES + PARQUET_SUFFIXES)}.")
    line = first_line(path, "utf-8", str(path))
    delimiter = max((",", "\t", ";", "|", "::"), key=line.count)  # of equals, the first
    return text_file(path, Dialect(delimiter, quote="" if delimiter == "::" else '"'))


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
