"""The steps of a sample: each says in SQL which events of a log stay, and in a sentence what that does to timelines.

A log has the columns `row`, `"user"`, `"item"`, `timestamp`, and `c0`, `c1`, ... of its source, in the order of `row`.
Whatever is random is MD5 of a seed and an id or row: the same on every machine, with any number of threads, and in
any other engine that has MD5. "Earlier" always means (timestamp, row).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from seqrec.errors import ConfigError, DataError, nearest

SEED = 42


@dataclass(frozen=True)
class Log:
    """A log inside DuckDB.

    Attributes:
        relation: what stands after FROM.
        columns: name in the source -> name in SQL, in the order of the source.
        clock: whether `timestamp` is milliseconds since 1970 UTC.
    """

    relation: str
    columns: Mapping[str, str] = field(default_factory=dict)
    clock: bool = True


class Step(ABC):
    """Part of a sample. A step is a frozen dataclass whose first field has the name of the step."""

    @property
    def user_wise(self) -> bool:
        """Whether what stays of a user depends on that user's events only; such steps commute with `users`."""
        return True

    @property
    @abstractmethod
    def effect(self) -> str:
        """What the step does to timelines, in a sentence."""

    def groups(self, log: Log) -> str | None:
        """SQL of a small table, one row per group, that `kept` needs; None where it needs none."""
        return None

    @abstractmethod
    def kept(self, log: Log, groups: str) -> str:
        """SQL of the events that stay, in the order of the log.

        Args:
            groups: name of the table that `groups` describes.
        """

    def __str__(self) -> str:
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return ",".join(f"{name}={_text(value)}" for name, value in given.items() if value is not None)


@dataclass(frozen=True)
class Rows(Step):
    """Every row stays with probability `rows`, whatever it is."""

    rows: float
    seed: int = SEED

    def __post_init__(self) -> None:
        _check_share("rows", self.rows)

    @property
    def effect(self) -> str:
        return f"Random rows: timelines are full of holes; about {self.rows:.2%} of each is left."

    def kept(self, log: Log, groups: str) -> str:
        return f"SELECT * FROM {log.relation} WHERE {_hash(self.seed, 'row', 'row')} < '{_bound(self.rows)}'"


@dataclass(frozen=True)
class Stratified(Step):
    """The same share of every group, at least one event; which ones is random. `by`: user, item, or a column."""

    stratified: float
    by: str = "user"
    seed: int = SEED

    def __post_init__(self) -> None:
        _check_share("stratified", self.stratified)

    @property
    def user_wise(self) -> bool:
        return self.by == "user"

    @property
    def effect(self) -> str:
        return f"The same share of every {self.by}, chosen at random: timelines are full of holes."

    def _part(self, log: Log) -> str:
        if self.by in ("user", "item"):
            return f'"{self.by}"'
        if self.by not in log.columns:
            guess = nearest(self.by, ("user", "item", *log.columns))
            hint = f" Did you mean {guess!r}?" if guess else ""
            raise DataError(f"{self}: no column {self.by!r}.{hint} Columns: user, item, {', '.join(log.columns)}.")
        return f"coalesce(CAST({log.columns[self.by]} AS VARCHAR), '')"

    def groups(self, log: Log) -> str:
        part, share = self._part(log), self.stratified
        hashed = f"SELECT {part} AS part, {_hash(self.seed, 'row', 'row')} AS hash, row FROM {log.relation}"
        return f"""SELECT part, hash AS last_hash, row AS last_row FROM (
            SELECT *, row_number() OVER (PARTITION BY part ORDER BY hash, row) AS place,
                count(*) OVER (PARTITION BY part) AS total FROM ({hashed})
        ) WHERE place = greatest(1, CAST(floor({share!r}::DOUBLE * total + 0.5) AS BIGINT))"""

    def kept(self, log: Log, groups: str) -> str:
        hashed = _hash(self.seed, "row", "l.row")
        return f"""SELECT l.* FROM {log.relation} AS l JOIN {groups} AS g ON {self._part(log)} = g.part
            WHERE {hashed} < g.last_hash OR ({hashed} = g.last_hash AND l.row <= g.last_row)"""


@dataclass(frozen=True)
class Every(Step):
    """Every `every`-th event of what is there, in the order of the source, beginning with number `offset` (from 0)."""

    every: int
    offset: int = 0

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 <= self.offset < self.every:
            raise ConfigError(f"{self}: every is at least 1, and offset lies between 0 and every - 1.")

    @property
    def user_wise(self) -> bool:
        return False

    @property
    def effect(self) -> str:
        return f"One row in {self.every}, evenly spaced: timelines are full of holes; patterns in the file become bias."

    def kept(self, log: Log, groups: str) -> str:
        numbered = f"SELECT *, row_number() OVER () - 1 AS place FROM {log.relation}"
        return f"SELECT * EXCLUDE (place) FROM ({numbered}) WHERE place % {self.every} = {self.offset}"


@dataclass(frozen=True)
class Window(Step):
    """Events from `since` on and before `until`: ISO dates (UTC where they name no zone), or order numbers."""

    since: str | None = None
    until: str | None = None

    def __post_init__(self) -> None:
        for value in (self.since, self.until):
            if value is not None and _date(value) is None and not _is_whole(value):
                raise ConfigError(f"{self}: {value!r} is neither an ISO date such as 2020-01-31 nor a whole number.")

    @property
    def effect(self) -> str:
        cut = " and ".join(
            text for value, text in ((self.since, "beginnings"), (self.until, "ends")) if value is not None
        )
        return f"A window in time: timelines that cross its edges lose their {cut}; what is inside is unbroken."

    def kept(self, log: Log, groups: str) -> str:
        edges = [
            f"timestamp {sign} {self._number(value, log)}"
            for sign, value in ((">=", self.since), ("<", self.until))
            if value is not None
        ]
        return f"SELECT * FROM {log.relation} WHERE {' AND '.join(edges)}"

    def _number(self, value: str, log: Log) -> int:
        moment = _date(value)
        if log.clock and moment is not None:
            return round(moment.timestamp() * 1000)
        if log.clock:
            raise ConfigError(f"{self}: the log has clock times; write {value!r} as a date such as 2020-01-31.")
        if not _is_whole(value):
            raise ConfigError(f"{self}: the log has order numbers, no clock times; {value!r} is not a whole number.")
        return int(value)


@dataclass(frozen=True)
class Users(Step):
    """Users whose MD5 lies in the lowest `users` of all values: complete histories, and a smaller share is a subset."""

    users: float
    seed: int = SEED

    def __post_init__(self) -> None:
        _check_share("users", self.users)

    @property
    def effect(self) -> str:
        return f"About {self.users:.2%} of the users, by a hash of their id: a timeline stays as it is or goes."

    def kept(self, log: Log, groups: str) -> str:
        hashed = _hash(self.seed, "user", '"user"')
        return f"SELECT * FROM {log.relation} WHERE {hashed} < '{_bound(self.users)}'"


@dataclass(frozen=True)
class Last(Step):
    """The last `last` events of every user."""

    last: int

    def __post_init__(self) -> None:
        _check_count("last", self.last)

    @property
    def effect(self) -> str:
        return f"The last {self.last:,} events of each user: longer timelines lose their beginning and stay recent."

    def groups(self, log: Log) -> str:
        return _nth(log, self.last, "DESC")

    def kept(self, log: Log, groups: str) -> str:
        return _up_to_nth(log, groups, ">")


@dataclass(frozen=True)
class Cap(Step):
    """The first `cap` events of every user. For the most recent ones there is `last`."""

    cap: int

    def __post_init__(self) -> None:
        _check_count("cap", self.cap)

    @property
    def effect(self) -> str:
        return f"The first {self.cap:,} events of each user: longer timelines are unbroken and end early."

    def groups(self, log: Log) -> str:
        return _nth(log, self.cap, "ASC")

    def kept(self, log: Log, groups: str) -> str:
        return _up_to_nth(log, groups, "<")


@dataclass(frozen=True)
class MinEvents(Step):
    """Users with at least `min_events` events."""

    min_events: int

    def __post_init__(self) -> None:
        _check_count("min_events", self.min_events)

    @property
    def effect(self) -> str:
        return f"Users with fewer than {self.min_events:,} events go; other timelines stay as they are."

    def groups(self, log: Log) -> str:
        return _frequent(log, "user", self.min_events)

    def kept(self, log: Log, groups: str) -> str:
        return _of_groups(log, "user", groups)


@dataclass(frozen=True)
class MinItemEvents(Step):
    """Items with at least `min_item_events` events. Once, not again and again as the k-core does."""

    min_item_events: int

    def __post_init__(self) -> None:
        _check_count("min_item_events", self.min_item_events)

    @property
    def user_wise(self) -> bool:
        return False

    @property
    def effect(self) -> str:
        return f"Items with fewer than {self.min_item_events:,} events go: timelines lose their rarest items."

    def groups(self, log: Log) -> str:
        return _frequent(log, "item", self.min_item_events)

    def kept(self, log: Log, groups: str) -> str:
        return _of_groups(log, "item", groups)


def _hash(seed: int, kind: str, column: str) -> str:
    """SQL for the 32 hexadecimal digits of the MD5 of `seed:kind:value`; `kind` is `user` or `row`."""
    return f"md5('{seed}:{kind}:' || {column})"


def _bound(share: float) -> str:
    """Digits below which lies that share of all hashes: of 2^64 values of the first 16; `g` is above every digit."""
    return "g" if share >= 1 else format(int(share * 2**64), "016x")


def _nth(log: Log, n: int, order: str) -> str:
    """SQL for the n-th event of every user that has so many."""
    return f"""SELECT "user", timestamp AS edge, row AS edge_row FROM (
        SELECT "user", timestamp, row, row_number() OVER (
            PARTITION BY "user" ORDER BY timestamp {order}, row {order}) AS place FROM {log.relation}
    ) WHERE place = {n}"""


def _up_to_nth(log: Log, groups: str, side: str) -> str:
    """SQL for the events on one side of each user's edge, with the edge; whoever has none keeps all."""
    return f"""SELECT l.* FROM {log.relation} AS l LEFT JOIN {groups} AS g ON l."user" = g."user"
        WHERE g.edge IS NULL OR timestamp {side} edge OR (timestamp = edge AND row {side}= edge_row)"""


def _frequent(log: Log, column: str, n: int) -> str:
    return f'SELECT "{column}" FROM {log.relation} GROUP BY "{column}" HAVING count(*) >= {n}'


def _of_groups(log: Log, column: str, groups: str) -> str:
    return f'SELECT l.* FROM {log.relation} AS l SEMI JOIN {groups} AS g ON l."{column}" = g."{column}"'


def _check_share(name: str, share: float) -> None:
    if not 0 < share <= 1:
        raise ConfigError(f"{name}={share:g}: a share is above 0 and at most 1; one per cent is 0.01.")


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ConfigError(f"{name}={count}: a whole number of at least 1.")


def _text(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _is_whole(value: str) -> bool:
    return value.removeprefix("-").isdecimal()


def _date(value: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
