"""Yelp Open Dataset: reviews of businesses with their stars.

Source: the Yelp Open Dataset page, whose terms each person agrees to; files with one JSON object a line.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from seqrec.data.interactions import Interactions
from seqrec.data.sources.events import read_events
from seqrec.data.sources.jsonlines import json_source
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
from seqrec.data.sources.text import Source, one_per_id

BUSINESSES = "yelp_academic_dataset_business.json"
REVIEWS = "yelp_academic_dataset_review.json"
USERS = "yelp_academic_dataset_user.json"


def load(name: str, *, cache: Path, report: Report) -> Interactions:
    """Read the Yelp Open Dataset from `cache/raw/yelp/`: the archive or its files.

    Args:
        name: `yelp`.
        cache: the cache folder (`download.cache_folder()`).
        report: told in words what is being done.

    Raises:
        DownloadError: it is not there; it cannot be downloaded without agreeing to its terms.
        DataError: it cannot be read.
    """
    path = raw_source(raw_folder(name, cache))
    if path is None:
        raise not_downloadable(name, "Yelp Open Dataset page", "the JSON archive (yelp_dataset.tar)")
    report(f"Reading {path}")
    return read_yelp(path, cache)


def add(name: str, path: Path, cache: Path) -> Added:
    """Copy the archive, or the three files of a folder, into the cache, once they have been read.

    Raises:
        DataError: they are damaged or something else; the cache is left as it was.
    """
    rows = len(read_yelp(path, cache))
    return keep_source(name, path, (BUSINESSES, REVIEWS, USERS), cache, rows=rows)


def read_yelp(path: Path, cache: Path) -> Interactions:
    """Read Yelp's tar, the zip that holds it, or a folder with its files.

    Args:
        cache: on whose disk an archive is unpacked meanwhile.

    Returns:
        Interactions with `value` the stars; items with title, categories, city and state; users, where the file is
        there, with `yelping_since`. Counts and averages are left out: they know the future.

    Raises:
        DataError: a damaged archive, a missing file, or a line that cannot be used, each named.
    """
    with open_members(path, cache) as members:  # businesses first, as the tar has them
        items = _items(_json(members, BUSINESSES, "business_id", "name", "categories", "city", "state"))
        reviews = _json(members, REVIEWS, "user_id", "business_id", "date", "stars")
        events, _ = read_events(
            reviews, user="user_id", item="business_id", time="date", value="stars", time_unit="iso"
        )
        users = _users(_json(members, USERS, "user_id", "yelping_since")) if members.has(USERS) else None
    return Interactions("yelp", events, items, users, revisits=False)


def _json(members: Members, name: str, *keys: str) -> Source:
    file, where = members.file(name)
    return json_source(file, dict.fromkeys(keys, "VARCHAR"), where)


def _items(businesses: Source) -> pa.Table:
    texts = businesses.strings(["name", "city", "state"])
    categories = f"trim({businesses.column('categories')}, ' ,')"  # "Bakeries, Food"
    split = businesses.select(
        split=f"CASE WHEN {categories} <> '' THEN regexp_split_to_array({categories}, '[ ,]*,[ ,]*') ELSE [] END"
    )
    table = {
        "id": businesses.ids("business_id"),
        "title": texts["name"],
        "categories": split["split"],
        "city": texts["city"],
        "state": texts["state"],
    }
    return one_per_id(pa.table(table))


def _users(source: Source) -> pa.Table:
    return one_per_id(source.strings(["yelping_since"]).add_column(0, "id", source.ids("user_id")))
