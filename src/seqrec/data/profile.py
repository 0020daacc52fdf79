"""What is in a log, counted by DuckDB: for the table before and after a sample."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seqrec.data.sampling_steps import Log

#: Above so many rows distinct (user, item) pairs are counted in a sixteenth of them, chosen by hash.
EXACT_PAIRS = 50_000_000
_PART = 16


@dataclass(frozen=True)
class Profile:
    """A log in numbers.

    Attributes:
        rows, users, items: how many.
        first, last: earliest and latest timestamp; None in an empty log.
        clock: whether these are milliseconds since 1970 UTC.
        events_per_user: `mean`, `min`, `max`.
        density: rows / (users * items); above 1 where people repeat much.
        gini: of events over the items that occur; 0 where all are equally popular, near 1 where few take all.
        repeated: share of events whose (user, item) pair occurred in another event before.
        repeated_exact: False where `repeated` is an estimate: see `EXACT_PAIRS`. Its standard error is below
            0.0005 times the share of events that are not repeated, if there are 50 million of these.
        unusable: rows without a user, an item, or a timestamp.
    """

    rows: int
    users: int
    items: int
    first: int | None
    last: int | None
    clock: bool
    events_per_user: dict[str, float]
    density: float
    gini: float
    repeated: float
    repeated_exact: bool
    unusable: int

    def facts(self) -> dict[str, Any]:
        """As JSON has it; clock times also as dates."""
        facts = asdict(self)
        del facts["unusable"]
        if self.clock and self.first is not None and self.last is not None:
            facts["first_date"], facts["last_date"] = date(self.first), date(self.last)
        return facts


def profile(connection: Any, log: Log, exact_pairs: int = EXACT_PAIRS) -> Profile:
    """Count a log.

    Args:
        connection: a DuckDB connection in which `log.relation` is known.
        exact_pairs: up to so many rows distinct pairs are counted exactly.
    """
    ((rows, users, events, timed, least, most, first, last),) = connection.execute(_per_user(log)).fetchall()
    exact = rows <= exact_pairs
    popularity = connection.sql(_per_item(log)).to_arrow_table()["n"].to_numpy()
    ((pairs,),) = connection.execute(_pairs(log, exact)).fetchall()
    distinct = pairs if exact else min(rows, _PART * pairs)
    return Profile(
        rows=rows,
        users=users,
        items=len(popularity),
        first=first,
        last=last,
        clock=log.clock,
        events_per_user={"mean": events / max(1, users), "min": least or 0, "max": most or 0},
        density=rows / max(1, users * len(popularity)),
        gini=gini(popularity),
        repeated=1 - distinct / rows if rows else 0.0,
        repeated_exact=exact,
        unusable=(rows - events) + (rows - int(popularity.sum())) + (rows - timed),
    )


def gini(counts: npt.NDArray[np.int64]) -> float:
    """Gini coefficient of counts (n,): mean absolute difference over twice the mean; 0 for none."""
    if not counts.sum():
        return 0.0
    ranks = np.arange(1, len(counts) + 1)
    return float(2 * (ranks * np.sort(counts)).sum() / (len(counts) * counts.sum()) - (len(counts) + 1) / len(counts))


def date(milliseconds: int) -> str:
    """`2020-03-20 12:59:51`, UTC."""
    return str(np.datetime64(milliseconds, "ms").astype("datetime64[s]")).replace("T", " ")


def _per_user(log: Log) -> str:
    """Rows; users and their events; rows with a time; least and most events of a user; earliest and latest time."""
    times = "count(timestamp) AS timed, min(timestamp) AS first, max(timestamp) AS last"
    counted = f'SELECT "user", count(*) AS n, {times} FROM {log.relation} GROUP BY "user"'
    known = """FILTER (WHERE "user" IS NOT NULL)"""
    return f"""SELECT coalesce(sum(n), 0)::BIGINT, count("user"), coalesce(sum(n) {known}, 0)::BIGINT,
        coalesce(sum(timed), 0)::BIGINT, min(n) {known}, max(n) {known}, min(first), max(last) FROM ({counted})"""


def _per_item(log: Log) -> str:
    return f"""SELECT n FROM (SELECT "item", count(*) AS n FROM {log.relation} GROUP BY "item")
        WHERE "item" IS NOT NULL"""


def _pairs(log: Log, exact: bool) -> str:
    """How many distinct pairs there are; or distinct hashes of a sixteenth of them, which needs little memory."""
    if exact:
        known = '"user" IS NOT NULL AND "item" IS NOT NULL'
        return f'SELECT count(*) FROM (SELECT DISTINCT "user", "item" FROM {log.relation} WHERE {known})'
    hashes = f'SELECT hash("user", "item") AS pair FROM {log.relation}'
    return f"SELECT count(*) FROM (SELECT DISTINCT pair FROM ({hashes}) WHERE pair % {_PART} = 0)"
