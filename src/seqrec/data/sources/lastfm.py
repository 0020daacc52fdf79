"""Last.fm 1K: what nearly a thousand people played over four years, to the second.

Source: Celma 2010, "Music Recommendation and Discovery in the Long Tail". Last.fm 360K, its sibling, counts plays
without saying when, so there is no sequence in it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from seqrec.data.interactions import Interactions
from seqrec.data.sources.events import read_events
from seqrec.data.sources.jsonlines import parquet_spool
from seqrec.data.sources.named import (
    Added,
    Members,
    Report,
    keep_source,
    obtain,
    open_members,
    raw_folder,
    raw_source,
)
from seqrec.data.sources.text import Dialect, Source, connect, one_per_id
from seqrec.errors import DataError

ARCHIVE = "lastfm-dataset-1K.tar.gz"
URLS = (
    f"https://zenodo.org/records/6090214/files/{ARCHIVE}",
    f"http://mtg.upf.edu/static/datasets/last.fm/{ARCHIVE}",
)
MD5 = "a79a6808f54f73354789a9fb02cb1e41"

PLAYS = "userid-timestamp-artid-artname-traid-traname.tsv"
PROFILES = "userid-profile.tsv"
WITHOUT_TIMES = "usersha1-artmbid-artname-plays.tsv"
#: Share of lines that may be broken, as those with a line break within a name are.
MOST_BROKEN = 0.001
SPOOLED = pa.schema(
    [(name, pa.string()) for name in ("user", "item", "title", "artist")] + [("time", pa.timestamp("us"))]
)


def load(name: str, *, cache: Path, report: Report) -> Interactions:
    """Read Last.fm 1K from `cache/raw/lastfm-1k/`, downloading it first where it is not there.

    Args:
        name: `lastfm-1k`.
        cache: the cache folder (`download.cache_folder()`).
        report: told in words what is being done, and how many lines were left out.

    Raises:
        DownloadError: no mirror delivered it.
        DataError: it cannot be read.
    """
    folder = raw_folder(name, cache)
    if raw_source(folder) is None:
        obtain(name, URLS, folder / ARCHIVE, publisher="Zenodo", report=report, md5=MD5)
    path = raw_source(folder)
    assert path is not None
    report(f"Reading {path}")
    return read_lastfm(path, cache, report)


def add(name: str, path: Path, cache: Path) -> Added:
    """Copy the archive, or the two files of a folder, into the cache, once they have been read.

    Raises:
        DataError: they are damaged or something else; the cache is left as it was.
    """
    rows = len(read_lastfm(path, cache))
    return keep_source(name, path, (PLAYS, PROFILES), cache, rows=rows, md5=None if path.is_dir() else MD5)


def read_lastfm(path: Path, cache: Path, report: Report = lambda line: None) -> Interactions:
    """Read the archive of Last.fm 1K, or a folder with its files.

    A track is its MusicBrainz id, or `artist - title` where it has none. Each person's plays stand newest first in
    the file; `row` counts from its end, so that plays of one second keep the order in which they happened.

    Args:
        cache: on whose disk an archive is unpacked meanwhile.
        report: told how many lines were left out: those without six fields, a time, or a name.

    Returns:
        Interactions; items with title and artist; users, where the file is there, with gender, age, country and
        registered.

    Raises:
        DataError: a damaged archive, a missing file, or more than one line in a thousand that is broken.
    """
    with open_members(path, cache) as members:
        if members.has(WITHOUT_TIMES):
            raise DataError(
                f"{path} is Last.fm 360K: it counts plays and does not say when they were, so there is no order to "
                f"learn. Give Last.fm 1K ({ARCHIVE})."
            )
        lines = members.lines(PLAYS)
        with parquet_spool(lines.batches(**_fields(lines)), SPOOLED) as relation:
            plays = _plays(lines.where, relation, report)
            events, _ = read_events(plays, user="user", item="item", time="time")
            items = _items(plays)
        users = _users(members)
    return Interactions("lastfm-1k", _oldest_first(events), items, users, revisits=True)


def _fields(lines: Source) -> dict[str, str]:
    """SQL for the fields of a line; `item` is null where the line cannot be used."""
    parts = f"string_split({lines.column('line')}, chr(9))"
    user, artist, track = (f"trim({parts}[{k}])" for k in (1, 4, 5))
    title = f"trim(array_to_string({parts}[6:], ' '))"  # a title may hold tabs
    time = f"TRY_CAST({parts}[2] AS TIMESTAMP)"
    named = f"CASE WHEN {artist} <> '' AND {title} <> '' THEN {artist} || ' - ' || {title} END"
    item = f"CASE WHEN length({track}) = 36 THEN {track} ELSE {named} END"
    usable = f"len({parts}) >= 6 AND {user} <> '' AND {time} IS NOT NULL"
    return {
        "user": user,
        "item": f"CASE WHEN {usable} THEN {item} END",
        "title": f"nullif({title}, '')",
        "artist": f"nullif({artist}, '')",
        "time": time,
    }


def _plays(where: str, relation: str, report: Report) -> Source:
    """The lines that can be used."""
    connection = connect()
    query = f"SELECT count(*), count(*) FILTER (c1 IS NULL) FROM {relation}"
    ((lines, broken),) = connection.sql(query).fetchall()
    if broken:
        numbered = f"(SELECT row_number() OVER () AS line, c1 FROM {relation})"
        ((line,),) = connection.sql(f"SELECT min(line) FROM {numbered} WHERE c1 IS NULL").fetchall()
        said = f"{where}: {broken:,} of {lines:,} lines cannot be used, the first is line {line}"
        if broken > max(1, MOST_BROKEN * lines):
            wanted = "user, time as 2009-05-04T23:08:57Z, artist id, artist, track id, track, separated by tabs"
            raise DataError(f"{said}. A line has {wanted}. Get the file again.")
        report(f"{said}; left out.")
    usable = f"(SELECT * FROM {relation} WHERE c1 IS NOT NULL) AS plays"
    types = ("VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", "TIMESTAMP")
    return Source(f"{where} (usable lines)", tuple(SPOOLED.names), types, usable, connection=connection)


def _items(plays: Source) -> pa.Table:
    """Title and artist of every track as its first line has them. SQL: millions of plays are no Python strings."""
    query = f"""
        SELECT c1 AS id, arg_min(c2, k) AS title, arg_min(c3, k) AS artist
        FROM (SELECT *, row_number() OVER () AS k FROM {plays.relation}) GROUP BY c1 ORDER BY min(k)
    """
    return plays.connection.sql(query).to_arrow_table()


def _users(members: Members) -> pa.Table | None:
    if not members.has(PROFILES):
        return None
    source = members.text(PROFILES, Dialect("\t", quote=""))
    attributes = source.strings(["gender", "age", "country", "registered"])
    return one_per_id(attributes.add_column(0, "id", source.ids("#id")))


def _oldest_first(events: pa.Table) -> pa.Table:
    """Rows counted from the end, where the file runs from new to old."""
    steps = np.diff(events["timestamp"].to_numpy())
    if np.count_nonzero(steps < 0) <= np.count_nonzero(steps > 0):
        return events
    rows = pa.array(np.arange(len(events) - 1, -1, -1, dtype=np.int64))
    return events.set_column(events.column_names.index("row"), "row", rows)
