"""Any source's columns as events: ids, times in milliseconds, values. Streamed, so that a log may exceed memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from seqrec.data.download import cache_folder
from seqrec.data.interactions import IdEncoder
from seqrec.data.sources.text import Source, first, listed
from seqrec.data.spool import Spool
from seqrec.errors import DataError

#: Units of numeric times, in one second. `auto` finds which; `iso` is dates; `order` is not clock time at all.
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
TIME_UNITS = ("auto", *PER_SECOND, "iso", "order")

#: Clock times lie from 1970 to 2100. Where the unit is guessed they lie after 1973-03-03: what is smaller is a
#: counter, a missing value, or a time in a coarser unit than its neighbours.
FIRST_SECOND, FIRST_GUESSED_SECOND, LAST_SECOND = 0, 100_000_000, 4_102_444_800
#: What is kept of each event, and how.
COLUMNS: Mapping[str, npt.DTypeLike] = {
    "user": np.int32, "item": np.int32, "timestamp": np.int64, "value": np.float64,
}  # fmt: skip
#: Rows from which `auto` guesses the unit; every later row is held to it.
PEEKED = 100_000
_REMEDY = (
    "Times are epoch seconds, milliseconds or microseconds (--time-unit s, ms, us), ISO dates such as "
    "2024-05-31T12:00:00Z, or, with --time-unit order, whole numbers that only say what came first."
)


@dataclass(frozen=True)
class EventSql:
    """SQL over `source.relation` for the columns of events.

    Attributes:
        user, item: ids as text, null where there is no usable one.
        timestamp: BIGINT milliseconds since 1970 UTC, or what orders events; null where it cannot be used.
        clock: whether timestamps are clock times.
        raw_time: whether the column holds a time at all; tells a missing time from one out of range.
        problems: what an unusable time is called: where there is none, and where one is out of range.
    """

    user: str
    item: str
    timestamp: str
    clock: bool
    raw_time: str
    problems: tuple[str, str]


def event_sql(source: Source, *, user: str, item: str, time: str | None, time_unit: str = "auto") -> EventSql:
    """Find out what the time column holds and say how to read the source.

    Args:
        user, item, time: names of columns; `time` None (only with `order`): the order of the rows.
        time_unit: one of `TIME_UNITS`.

    Raises:
        DataError: there is no such column, or it cannot be one of ids.
    """
    ids = source.id_sql(user), source.id_sql(item)
    if time is None:
        return EventSql(*ids, "row_number() OVER () - 1", False, "true", ("", ""))
    if time_unit == "order":
        return EventSql(*ids, _order_sql(source, time), False, "false", ("not a whole number", ""))
    number, moment = _time_sql(source, time, time_unit)
    peeked = source.select(f"LIMIT {PEEKED}", number=number, moment=moment)
    numbers, moments = peeked["number"], peeked["moment"]
    guessed = False
    if _is_dated(source, time) or time_unit == "iso" or moments.null_count < numbers.null_count:
        unit, raw, kind = "ms", f"CAST({moment} AS DOUBLE)", "date"
        timestamp = moment
    else:
        guessed = time_unit == "auto"
        unit, raw, kind = _unit(numbers) if guessed else time_unit, number, "time"
        timestamp = f"CAST(round_even({number} * {1_000 / PER_SECOND[unit]}, 0) AS BIGINT)"
    low = FIRST_GUESSED_SECOND if guessed else FIRST_SECOND
    within = f"{raw} >= {low * PER_SECOND[unit]} AND {raw} < {LAST_SECOND * PER_SECOND[unit]}"
    span = f"not a time in {unit} between {'1973-03-03' if guessed else '1970'} and 2100"
    span += " (the unit is the median's; are several units mixed?)" if guessed else ""
    checked = f"CASE WHEN {within} THEN {timestamp} END"
    return EventSql(*ids, checked, True, f"coalesce(isfinite({raw}), false)", (f"not a {kind}", span))


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

    The columns lie in files without a name on the disk of the cache, mapped, for as long as the table is used.

    Args:
        user, item, time, value: names of columns; `time` None (only with `order`): the order of the rows.
        time_unit: one of `TIME_UNITS`.
        optional_value: a value column with something other than numbers is left out instead of refused.

    Raises:
        DataError: a missing id, a time that cannot be, a value that is no number: where, what, and the remedy.
        DiskError: the disk of the cache is full.
    """
    sql = event_sql(source, user=user, item=item, time=time, time_unit=time_unit)
    columns = {"user": sql.user, "item": sql.item, "timestamp": sql.timestamp}
    if value is not None:
        columns |= value_sql(source, value)
    spooled = _Spooled(optional_value)
    with closing(source.batches(**columns)) as batches:  # DuckDB answers nothing else while a reader is open
        problem = next((found for batch in batches if (found := spooled.add(batch))), None)
    if problem is None:
        return spooled.table(source), sql.clock
    column, row = problem
    if column == "timestamp":
        raise bad_time(source, sql, str(time), row)
    if column == "bad":
        raise source.error(str(value), row, "not a number", "Correct it, or leave it empty.")
    raise source.no_id({"user": user, "item": item}[column], row)


class _Spooled:
    """Columns of events as they arrive; they stop at the first row that cannot be used."""

    def __init__(self, optional_value: bool) -> None:
        folder = cache_folder() / "spool"
        self.ids = {"user": IdEncoder(), "item": IdEncoder()}
        self.columns = {name: Spool(kind, folder) for name, kind in COLUMNS.items()}
        self.optional_value = optional_value
        self.valued = True

    def add(self, batch: pa.RecordBatch) -> tuple[str, int] | None:
        """Take a batch; the column and row (of the whole) of its first problem, if it has one."""
        row = len(self.columns["timestamp"])
        for name in ("user", "item", "timestamp"):
            if batch[name].null_count:
                return name, row + first(pc.is_null(batch[name]))
        for name, encoder in self.ids.items():
            self.columns[name].append(encoder.encode(batch[name]))
        self.columns["timestamp"].append(batch["timestamp"].to_numpy())
        if "value" not in batch.schema.names or not self.valued:
            return None
        if (bad := first(batch["bad"])) < 0:
            self.columns["value"].append(batch["value"].to_numpy(zero_copy_only=False))
        elif self.optional_value:
            self.valued = False
        else:
            return "bad", row + bad
        return None

    def table(self, source: Source) -> pa.Table:
        """All events."""
        rows = len(self.columns["timestamp"])
        if rows == 0:
            raise DataError(f"{source.where} has columns ({listed(source.names)}) but no rows.")
        events = {"row": pa.array(np.arange(rows, dtype=np.int64))}
        for name, encoder in self.ids.items():
            ids = pa.array(encoder.ids(), pa.string())
            events[name] = pa.DictionaryArray.from_arrays(pa.array(self.columns[name].array()), ids, safe=False)
        events["timestamp"] = pa.array(self.columns["timestamp"].array())
        if self.valued and len(self.columns["value"]):
            events["value"] = pa.array(self.columns["value"].array(), from_pandas=True)
        return pa.table(events)


def value_sql(source: Source, name: str) -> dict[str, str]:
    """SQL for a number, null where empty, and for whether it is neither a finite number nor empty."""
    number, text = source.number_sql(name), f"trim(CAST({source.column(name)} AS VARCHAR))"
    empty = f"coalesce(lower({text}) IN ('', 'nan', 'null'), true)"
    usable = f"coalesce(isfinite(TRY_CAST({number} AS FLOAT)), false)"  # prepared data hold 32 bits
    return {
        "value": f"CASE WHEN {usable} THEN {number} END",
        "bad": f"NOT ({empty} OR {usable})",
    }


def _is_dated(source: Source, name: str) -> bool:
    return source.type(name).startswith("TIMESTAMP") or source.type(name) == "DATE"


def _order_sql(source: Source, name: str) -> str:
    if _is_dated(source, name):
        return f"epoch_ms(CAST({source.column(name)} AS TIMESTAMPTZ))"
    whole = source.number_sql(name, "BIGINT")
    return f"CASE WHEN {source.number_sql(name)} = {whole} THEN {whole} END"


def _time_sql(source: Source, name: str, unit: str) -> tuple[str, str]:
    """SQL for a time as a number and as a moment in milliseconds; null where it is not one."""
    column = source.column(name)
    if _is_dated(source, name):  # without a zone: UTC, as the connection is set
        return "CAST(NULL AS DOUBLE)", f"epoch_ms(CAST({column} AS TIMESTAMPTZ))"
    number = source.number_sql(name)
    text = f"trim(CAST({column} AS VARCHAR))"
    if unit != "iso":  # a number is never also a date
        text = f"CASE WHEN {number} IS NULL THEN {text} END"
    return number, f"epoch_ms(TRY_CAST({text} AS TIMESTAMPTZ))"


def _unit(numbers: pa.ChunkedArray) -> str:
    """The unit in which the median is nearest to our days: clock times in s, ms and us are 1,000 apart."""
    values = numbers.drop_null().to_numpy()
    values = values[np.isfinite(values)]
    median = float(np.median(values)) if len(values) else 0.0
    return next((unit for unit, per_second in PER_SECOND.items() if median < 1e11 * per_second), "us")


def bad_time(source: Source, sql: EventSql, name: str, row: int) -> DataError:
    """The error for a time (in column `name`, row from 0) that cannot be used."""
    there = source.select(f"LIMIT 1 OFFSET {row}", there=sql.raw_time)["there"][0].as_py()
    return source.error(name, row, sql.problems[1 if there else 0], _REMEDY)
