"""RetailRocket: four and a half months of a shop's visitors: what they viewed and what they bought.

Source: the RetailRocket recommender system dataset on Kaggle, 2016; all values in it are hashed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from seqrec.data.interactions import Interactions
from seqrec.data.sources.events import read_events
from seqrec.data.sources.named import (
    Added,
    Members,
    Report,
    keep_source,
    not_downloadable,
    open_members,
    raw_folder,
    raw_source,
)
from seqrec.data.sources.text import Dialect
from seqrec.errors import DataError, unknown_name

EVENTS = "events.csv"
PROPERTIES = ("item_properties_part1.csv", "item_properties_part2.csv")
TREE = "category_tree.csv"
#: Data set -> the kind of event in it.
KINDS: Mapping[str, str] = {"retailrocket": "view", "retailrocket-buys": "transaction"}


def load(name: str, *, cache: Path, report: Report) -> Interactions:
    """Read RetailRocket from `cache/raw/<name>/`, where the zip or its files are; both data sets come from one zip.

    Args:
        name: `retailrocket` (views) or `retailrocket-buys` (transactions).
        cache: the cache folder (`download.cache_folder()`).
        report: told in words what is being done.

    Raises:
        DownloadError: it is not there; it cannot be downloaded without agreeing to its terms.
        DataError: it cannot be read.
    """
    _known(name)
    found = (raw_source(raw_folder(known, cache)) for known in (name, *KINDS))
    path = next((path for path in found if path is not None), None)
    if path is None:
        raise not_downloadable(name, "RetailRocket recommender system dataset page on Kaggle", "the zip")
    report(f"Reading {path}")
    return read_retailrocket(name, path, cache)


def add(name: str, path: Path, cache: Path) -> Added:
    """Copy the zip, or the files of a folder, into the cache, once they have been read.

    Raises:
        DataError: they are damaged or something else; the cache is left as it was.
        UnknownNameError: no such data set.
    """
    rows = len(read_retailrocket(name, path, cache))
    return keep_source(name, path, (EVENTS, *PROPERTIES, TREE), cache, rows=rows)


def read_retailrocket(name: str, path: Path, cache: Path) -> Interactions:
    """Read the zip, or a folder with its files.

    Args:
        name: which kind of event; see `KINDS`.
        cache: on whose disk a zip is unpacked meanwhile.

    Returns:
        Interactions; items, where the properties are there, with categories from the widest to the narrowest. An
        item that changed its category has the last.

    Raises:
        DataError: a damaged zip, a missing file, or a line that cannot be used, each named.
    """
    kind = _known(name)
    with open_members(path, cache) as members:
        source = members.text(EVENTS, Dialect())
        events, _ = read_events(source, user="visitorid", item="itemid", time="timestamp", time_unit="ms")
        kinds = source.strings(["event"])["event"]
        events = events.filter(pc.fill_null(pc.equal(kinds, kind), False))
        if events.num_rows == 0:
            held = ", ".join(map(str, pc.unique(kinds).to_pylist()[:6]))
            raise DataError(
                f"{source.where}, column 'event': no {kind!r} in it, which {name} is made of; found {held}."
            )
        categories = _categories(members)
    items = None
    if categories is not None:
        table = {"id": list(categories), "categories": list(categories.values())}
        items = pa.table(table, schema=pa.schema([("id", pa.string()), ("categories", pa.list_(pa.string()))]))
    return Interactions(name, events, items, revisits=True)


def _known(name: str) -> str:
    if name not in KINDS:
        raise unknown_name("RetailRocket data set", name, KINDS)
    return KINDS[name]


def _categories(members: Members) -> dict[str, list[str]] | None:
    """Item -> its last category and those above it, the widest first; None without a file of properties."""
    last: dict[str, tuple[int, str]] = {}
    present = [part for part in PROPERTIES if members.has(part)]
    for part in present:
        source = members.text(part, Dialect())
        item, value = (f"trim({source.column(name)})" for name in ("itemid", "value"))
        when, kind = source.number_sql("timestamp", "BIGINT"), f"trim({source.column('property')})"
        usable = f"{kind} = 'categoryid' AND {item} <> '' AND {value} <> '' AND {when} IS NOT NULL"
        latest = f"max(struct_pack(t := {when}, category := {value}))"
        for row in source.select(f"WHERE {usable} GROUP BY 1 ORDER BY 1", item=item, latest=latest).to_pylist():
            found = (row["latest"]["t"], row["latest"]["category"])
            last[row["item"]] = max(last.get(row["item"], found), found)
    if not present:
        return None
    parents = _parents(members)
    return {item: _path(category, parents) for item, (_, category) in last.items()}


def _parents(members: Members) -> dict[str, str]:
    if not members.has(TREE):
        return {}
    table = members.text(TREE, Dialect()).strings(["categoryid", "parentid"])
    pairs = zip(table["categoryid"].to_pylist(), table["parentid"].to_pylist(), strict=True)
    return {category: parent for category, parent in pairs if category and parent}


def _path(category: str, parents: Mapping[str, str]) -> list[str]:
    path = [category]
    while (parent := parents.get(path[-1])) and parent not in path:  # a damaged tree may go round
        path.append(parent)
    return path[::-1]
