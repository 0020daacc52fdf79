"""RecBole's atomic files: `.inter`, and where there are any `.item` and `.user`.

Tab separated text whose header types every column: `user_id:token`, `rating:float`, `movie_title:token_seq`.
Format: Zhao et al. 2021, "RecBole: Towards a unified, comprehensive and efficient framework".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqrec.data.interactions import Interactions
from seqrec.data.sources.events import read_events
from seqrec.data.sources.text import Dialect, Source, one_per_id, shown, text_file
from seqrec.errors import DataError

#: Quotes are ordinary characters here, as titles have them.
ATOMIC = Dialect("\t", quote="")
TYPES = ("token", "token_seq", "float", "float_seq")
TITLES = ("movie_title", "title", "name", "item_name", "product_name", "track_name", "game_name")
CATEGORIES = ("class", "genres", "genre", "categories", "category", "tags")
YEARS = ("release_year", "year")
TEXTS = ("description", "text", "abstract")
#: `<name>.train.inter` and so on: a log that somebody has split. Read in this order where there is no whole one.
BENCHMARK = ("train", "valid", "test")


def read_recbole(
    path: Path | str,
    *,
    user: str = "user_id",
    item: str = "item_id",
    time: str | None = "timestamp",
    value: str | None = None,
    time_unit: str = "auto",
    name: str | None = None,
) -> Interactions:
    """Read a folder of atomic files.

    Args:
        path: a folder with one log, its `.inter` file, or the files' common path without suffix. A log may also
            be in three parts, `<name>.train.inter`, `.valid.inter` and `.test.inter`, which follow one another.
        user, item, time: names of columns, without their types; `time` None takes the order of the rows.
        value: column of the rating; None is `rating` where there is one.
        time_unit: as in `read_table`.
        name: of the data set; default is the files' name.

    Returns:
        Interactions; `items` with id, title, categories (list, split at blanks where the column is a
        `token_seq`) and year where the `.item` file has columns for them; `users` with all their attributes.

    Raises:
        DataError: no such files, a header without types, or a value that cannot be used: where and what.
    """
    base, files = _find(Path(path))
    tables = [_atomic(file)[0] for file in files]
    if value is None and all("rating" in table.names for table in tables):
        value = "rating"
    time_unit = "order" if time is None else time_unit
    for file, table in zip(files, tables, strict=True):
        if len(files) > 1 and f"{item}_list" in table.names:
            raise DataError(
                f"{file}: its rows hold whole histories ({item}_list), so that its parts are no log. "
                f"Put the log beside it, as {base.name}.inter."
            )
    read = [read_events(table, user=user, item=item, time=time, value=value, time_unit=time_unit) for table in tables]
    items, users = base.with_name(f"{base.name}.item"), base.with_name(f"{base.name}.user")
    return Interactions(
        name=name or base.name,
        events=_joined([events for events, _ in read], by_row=time is None),
        items=_read_items(items, item) if items.is_file() else None,
        users=_read_users(users, user) if users.is_file() else None,
        clock=read[0][1],
    )


def _find(path: Path) -> tuple[Path, list[Path]]:
    """Common path of the files without suffix, and the `.inter` files that are the log."""
    if path.is_dir():
        found = sorted(path.glob("*.inter"))
        parts = "|".join(BENCHMARK)
        names = {re.sub(rf"(\.({parts}))?\.inter$", "", file.name) for file in found}
        if len(names) != 1:
            what = ", ".join(file.name for file in found) or "none"
            raise DataError(f"{path}: one .inter file is needed here, found {what}. Give the path of the file itself.")
        path = path / names.pop()
    base = path.with_suffix("") if path.suffix == ".inter" else path
    whole, *parts_of_it = (base.with_name(f"{base.name}{part}.inter") for part in ("", *(f".{p}" for p in BENCHMARK)))
    files = [whole] if whole.is_file() else [file for file in parts_of_it if file.is_file()]
    if not files:
        raise DataError(f"{whole} does not exist. Give a folder of RecBole files, or the path of its .inter file.")
    return base, files


def _joined(tables: Sequence[pa.Table], by_row: bool) -> pa.Table:
    """The events of all parts, numbered through."""
    if len(tables) == 1:
        return tables[0]
    events = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    rows = pa.array(np.arange(len(events), dtype=np.int64))
    events = events.set_column(events.column_names.index("row"), "row", rows)
    return events.set_column(events.column_names.index("timestamp"), "timestamp", rows) if by_row else events


def _atomic(path: Path) -> tuple[Source, dict[str, str]]:
    """The columns of an atomic file under their own names, and the type of each."""
    source = text_file(path, ATOMIC)
    types = {}
    for name in source.names:
        column, colon, kind = name.rpartition(":")
        if not colon or kind not in TYPES:
            raise DataError(
                f"{path}, line 1: column {shown(name)} has no type. The header of a RecBole file reads "
                f"name:type<TAB>name:type, with the types {', '.join(TYPES)}."
            )
        types[column] = kind
    return replace(source, names=tuple(name.rpartition(":")[0] for name in source.names)), types


def _read_items(path: Path, item: str) -> pa.Table:
    source, types = _atomic(path)
    table = {"id": source.ids(item)}
    if title := _first_known(TITLES, source.names):
        table["title"] = source.strings([title])[title]
    if categories := _first_known(CATEGORIES, source.names):
        texts = pc.fill_null(source.strings([categories])[categories], "")
        table["categories"] = _split(texts, blanks=types[categories] == "token_seq")
    if year := _first_known(YEARS, source.names):
        number = source.number_sql(year)
        years = f"CASE WHEN {number} BETWEEN 1 AND 9999 AND {number} = trunc({number}) THEN {number} END"
        table["year"] = source.select(year=f"CAST({years} AS INTEGER)")["year"]
    if text := _first_known(TEXTS, source.names):
        table["text"] = source.strings([text])[text]
    return one_per_id(pa.table(table))


def _read_users(path: Path, user: str) -> pa.Table:
    source, _ = _atomic(path)
    names = [name for name in source.names if name != user]
    ids = source.ids(user)
    columns = source.strings(names).columns if names else []
    return one_per_id(pa.table([ids, *columns], names=["id", *names]))


def _first_known(guesses: Sequence[str], names: Sequence[str]) -> str | None:
    return next((guess for guess in guesses if guess in names), None)


def _split(texts: pa.ChunkedArray, blanks: bool) -> pa.Array:
    """Categories of each text: separated by blanks, or the whole text as the only one; none where it is empty."""
    lists = [text.split() if blanks else [text] if text else [] for text in texts.to_pylist()]
    return pa.array(lists, pa.list_(pa.string()))
