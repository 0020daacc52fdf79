"""Files of lists that any toolkit wrote: who was shown what, in which order, as numbers of a prepared data set.

Shapes: P entries (a person and an item shown), U users, N items.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Ints
from seqrec.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from seqrec.data.sources.text import Source

Floats = npt.NDArray[np.float64]
#: Common names of columns beside those of logs, in lower case without punctuation; `items` is a list per person.
GUESSES: Mapping[str, Sequence[str]] = {
    "score": ("score", "scores", "prediction", "predictions", "relevance", "logit", "rating"),
    "rank": ("rank", "position", "place"),
    "items": ("items", "recommended", "recommendations", "itemids", "itemlist"),
}
#: How many ids an error shows.
SHOWN = 3
_FORMS = (
    "One row per entry needs a user, an item, and a score (larger is better) or a rank (1 is best); one row per "
    "person needs a user and a list of items, best first, such as a Parquet column `items`."
)


@dataclass(frozen=True)
class Entries:
    """What a file lists.

    Attributes:
        users: (P,) int64 users of the data, by ascending number.
        items: (P,) int64 items 1..N, best first for each user.
        levels: (P,) int64, 0 for a user's best items, 1 for the next best: entries of one level tie.
        where: what errors call the file.
    """

    users: Ints
    items: Ints
    levels: Ints
    where: str


def read_entries(source: Any, data: PreparedData) -> Entries:
    """Read a Parquet or CSV file (or folder of Parquet parts, or frame) of entries or of lists.

    Raises:
        DataError: it cannot be read, is empty, has other columns, names people or items that are not in the data,
            an item twice for one person, a score that is not finite, a rank that contradicts it or is no whole number
            from 1, or ranks that are the same for all entries of a person where there are no scores.
    """
    import pyarrow as pa

    from seqrec.data.sources.table import open_table

    table = open_table(source)
    where, found = table.where, _columns(table)
    if "items" in found:
        table, found = _one_row_per_entry(table, found)
    columns = {role: table.id_sql(found[role]) for role in ("user", "item")}
    columns |= {role: table.number_sql(found[role]) for role in ("score", "rank") if role in found}
    rows = table.select(**columns)
    if rows.num_rows == 0:
        raise DataError(f"{where} is empty: it has columns and no entry.")
    for role in ("user", "item"):
        table.refuse_nulls(found[role], rows[role])
    users = _known(rows["user"], pa.array(data.user_ids(), pa.string()), ("person", "people"), where, data)
    items = _known(rows["item"], pa.array(data.catalogue.ids, pa.string()), ("item", "items"), where, data) + 1
    worth: dict[str, Floats] = {
        role: _finite(table, found[role], rows[role]) for role in ("score", "rank") if role in found
    }
    if "rank" in worth:
        _refuse_no_ranks(table, found["rank"], worth["rank"])
    return _sorted(users, items, worth, rows, where)


def _columns(table: Source) -> dict[str, str]:
    """Role -> column: `user`, and `item` with `score` or `rank`, or `items` perhaps with `score`, all lists."""
    from seqrec.data.sources.table import GUESSES as LOGS
    from seqrec.data.sources.text import listed

    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in reversed(table.names)}
    guesses = {"user": LOGS["user"], "item": LOGS["item"], **GUESSES}
    found = {role: [plain[guess] for guess in names if guess in plain] for role, names in guesses.items()}
    lists = {name for name, kind in zip(table.names, table.types, strict=True) if kind.endswith("]")}
    of_lists = {role: [name for name in names if name in lists] for role, names in found.items()}
    if (items := of_lists["items"] + of_lists["item"]) and found["user"]:
        chosen = {"user": found["user"][:1], "items": items[:1], "score": of_lists["score"][:1]}
    else:
        chosen = {role: [name for name in found[role] if name not in lists][:1] for role in ("user", "item")}
        chosen |= {role: [name for name in found[role] if name not in lists][:1] for role in ("score", "rank")}
        if not (chosen["user"] and chosen["item"] and (chosen["score"] or chosen["rank"])):
            raise DataError(f"{table.where} is no file of predictions. {_FORMS} Columns found: {listed(table.names)}.")
    return {role: names[0] for role, names in chosen.items() if names}


def _one_row_per_entry(table: Source, found: Mapping[str, str]) -> tuple[Source, dict[str, str]]:
    """Lists taken apart; the place in the list is the rank. Empty places are left out, equal rows taken once."""
    from seqrec.data.sources.table import open_table

    user, lists = table.id_sql(found["user"]), table.column(found["items"])
    several = table.select("GROUP BY 1 HAVING lists > 1 LIMIT 1", user=user, lists=f"count(DISTINCT {lists})")
    if several.num_rows:
        raise DataError(f"{table.where}: user {several['user'][0].as_py()!r} has several lists. Write one per person.")
    columns = {"user": user, "item": f"unnest({lists})", "rank": f"generate_subscripts({lists}, 1)"}
    if scored := found.get("score"):
        scores = table.column(scored)
        uneven = table.select(f"WHERE len({lists}) IS DISTINCT FROM len({scores}) LIMIT 1", user=user)
        if uneven.num_rows:
            raise DataError(f"{table.where}: user {uneven['user'][0].as_py()!r} has more items than scores, or fewer.")
        columns["score"] = f"unnest({scores})"
    names = list(columns)
    inner = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    entries = replace(table, relation=f"(SELECT DISTINCT {inner} FROM {table.relation})")
    filled = "WHERE item IS NOT NULL AND CAST(item AS VARCHAR) <> ''"
    rows = open_table(entries.select(filled, **{name: name for name in names}))
    return replace(rows, where=f"{table.where}, lists as one row per entry"), {name: name for name in names}


def _known(ids: pa.ChunkedArray, known: pa.Array, what: tuple[str, str], where: str, data: PreparedData) -> Ints:
    """(P,) number of each id; an id that the data do not have is refused. `what` is one of them, and several."""
    import pyarrow.compute as pc

    numbers = pc.index_in(ids, value_set=known)
    if numbers.null_count:
        unknown = pc.unique(ids.filter(pc.is_null(numbers)))
        found = f"1 {what[0]}" if len(unknown) == 1 else f"{len(unknown):,} {what[1]}"
        verb, such = ("is", ":") if len(unknown) == 1 else ("are", ", such as")
        raise DataError(
            f"{where}: {found} ({numbers.null_count:,} of {len(ids):,} rows) {verb} not in {data.name}{such} "
            f"{_some(unknown)}; there {what[1]} are called {_some(known)}. Write the ids of the source, not numbers "
            f"that a toolkit gave them, and leave out {what[1]} that were filtered away."
        )
    return np.asarray(numbers.to_numpy(), dtype=np.int64)


def _finite(table: Source, column: str, values: pa.ChunkedArray) -> Floats:
    numbers = np.asarray(values.to_numpy(), dtype=np.float64)  # null is NaN
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        remedy = f"{len(wrong):,} of {len(numbers):,} values are not finite numbers: such an entry has no place."
        raise table.error(column, int(wrong[0]), "no finite number", remedy)
    return numbers


def _refuse_no_ranks(table: Source, column: str, ranks: Floats) -> None:
    wrong = np.flatnonzero((ranks < 1) | (ranks != np.floor(ranks)))
    if len(wrong):
        remedy = (
            "Ranks are whole numbers, and the best item of a person has rank 1. Is this a score, or a count from 0?"
        )
        raise table.error(column, int(wrong[0]), "no rank", remedy)


def _sorted(users: Ints, items: Ints, worth: Mapping[str, Floats], rows: pa.Table, where: str) -> Entries:
    """By user, best first. Where there are scores they decide, so that equal scores tie."""

    def entry(row: int) -> str:
        return f"user {rows['user'][row].as_py()!r}, item {rows['item'][row].as_py()!r}"

    _refuse_twice(users, items, where, entry)
    keys = [-worth["score"]] if "score" in worth else []
    keys += [worth["rank"]] if "rank" in worth else []
    order = np.lexsort((*keys, users))  # by user, then by rank where there is one
    same_user = np.diff(users[order], prepend=-1) == 0
    falls = np.diff(keys[0][order], prepend=0.0)
    back = np.flatnonzero(same_user & (falls < 0))
    if len(back):
        raise DataError(
            f"{where}: rank and score contradict each other at {entry(int(order[back[0]]))}: a later rank has the "
            "larger score. Larger scores are better; leave out the column that does not say so."
        )
    first = np.maximum.accumulate(np.where(same_user, 0, np.arange(len(order))))
    steps = np.cumsum(~same_user | (falls != 0))
    if "score" not in worth:
        _refuse_one_rank(same_user, falls, lambda row: entry(int(order[row])), where)
    return Entries(users[order], items[order], steps - steps[first], where)


def _refuse_one_rank(same_user: Any, falls: Floats, entry: Callable[[int], str], where: str) -> None:
    """Ranks may tie, but ranks that are all equal order nothing: the column is something else."""
    starts = np.flatnonzero(~same_user)
    several, ordered = (np.logical_or.reduceat(x, starts) for x in (same_user, same_user & (falls != 0)))
    equal = starts[several & ~ordered]
    if len(equal):
        raise DataError(
            f"{where}: all entries have one rank for {len(equal):,} of {len(starts):,} people, the first at "
            f"{entry(int(equal[0]))}. Ranks count from 1, the best, for each person; or give a column `score`."
        )


def _refuse_twice(users: Ints, items: Ints, where: str, entry: Callable[[int], str]) -> None:
    keys = users * (int(items.max()) + 1) + items
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(twice):
        found = "1 entry occurs" if len(twice) == 1 else f"{len(twice):,} entries occur"
        raise DataError(
            f"{where}: {found} again, the first is {entry(int(order[twice[0] + 1]))}. "
            "An item has one place in a list. Are these lists of several parts or models? Write one file for each."
        )


def _some(ids: Any) -> str:
    return ", ".join(repr(name) for name in ids[:SHOWN].to_pylist())
