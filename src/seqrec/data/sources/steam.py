"""Reviews of games on Steam, as Kang & McAuley 2018, "Self-Attentive Sequential Recommendation", published them.

Dates are days, so that ties are many. Players are told apart by name, as in the papers that use this log. Source:
https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data, "Version 2: Review Data" and "Item Metadata".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from seqrec.data.interactions import Interactions
from seqrec.data.sources.events import read_events
from seqrec.data.sources.jsonlines import object_source
from seqrec.data.sources.named import Added, keep, raw_folder
from seqrec.data.sources.published import Row, brought, fetch_packed, only_file, plain, price, read_items, words
from seqrec.data.sources.text import Source
from seqrec.errors import DataError, DownloadError

REVIEWS, GAMES = "steam_reviews.json", "steam_games.json"
_PLACES = (
    "https://mcauleylab.ucsd.edu/public_datasets/data/steam/{}.gz",
    "https://cseweb.ucsd.edu/~wckang/{}.gz",
)
_GAME_KEYS = ("id", "title", "app_name", "genres", "tags", "price", "developer", "release_date")
_ITEMS = pa.schema(
    [
        ("id", pa.string()),
        ("title", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("year", pa.int32()),
        ("price", pa.float64()),
        ("developer", pa.string()),
    ]
)
_YEAR = re.compile(r"\b(19[789]\d|20\d\d)\b")


def load(name: str, *, cache: Path, report: Callable[[str], None]) -> Interactions:
    """Read the reviews from `cache/raw/<name>/`, downloading them first where they are not there.

    Args:
        name: `steam`.
        cache: the cache folder (`download.cache_folder()`).
        report: told in words what is being done.

    Returns:
        Interactions with `value` the hours played; where there are metadata, the games that were reviewed with title,
        categories (genres, then tags), year, price in dollars and developer. `revisits` is False.

    Raises:
        DownloadError: no mirror delivered the reviews.
        DataError: a file cannot be read; the message names its line.
    """
    folder = raw_folder(name, cache)
    if only_file(folder, [REVIEWS]) is None:
        _download(name, folder, report)
    reviews = only_file(folder, [REVIEWS])
    assert reviews is not None
    return _read(name, reviews, only_file(folder, [GAMES]))


def add(name: str, path: Path, cache: Path) -> Added:
    """Copy files that the user brought into the cache, once they have been read.

    Args:
        path: the file of reviews, under its publisher's name; or a folder with it and the metadata.

    Raises:
        DataError: the files are not what they should be; the cache is left as it was.
    """
    reviews, games = brought(path, [[REVIEWS], [GAMES]], raw_folder(name, cache))
    if reviews is None:
        raise DataError(f"{path}: there are no reviews with the games. Add a folder with {REVIEWS}.gz.")
    rows = len(_read(name, reviews, games))
    return keep(name, {file.name: file for file in (reviews, games) if file}, cache, rows=rows)


def _read(name: str, reviews: Path, games: Path | None) -> Interactions:
    with object_source(reviews, ["username", "user_id", "product_id", "date", "hours"]) as source:
        events, _ = read_events(
            source,
            user=_player(source),
            item="product_id",
            time="date",
            value="hours",
            time_unit="iso",
            optional_value=True,
        )
    items = None
    if games is not None:
        with object_source(games, _GAME_KEYS) as source:
            items = read_items(source, "id", events, _describe, _ITEMS)
    return Interactions(name, events, items, revisits=False)


def _player(source: Source) -> str:
    """Who played: the name, or in files without names the number."""
    first = source.select("LIMIT 1", name=source.column("username"))["name"].to_pylist()
    return "user_id" if first == [None] else "username"


def _describe(row: Row) -> Row:
    year = _YEAR.search(row["release_date"] or "")
    free = (row["price"] or "").strip().lower().startswith("free")
    return {
        "title": plain(row["title"]) or plain(row["app_name"]),
        "categories": words(row["genres"], row["tags"]),
        "year": int(year[1]) if year else None,
        "price": 0.0 if free else price(row["price"]),
        "developer": plain(row["developer"]),
    }


def _download(name: str, folder: Path, report: Callable[[str], None]) -> None:
    """Put games and reviews into the cache. Reviews come last: with them the data set is complete."""
    for file in (GAMES, REVIEWS):
        try:
            fetch_packed(name, [place.format(file) for place in _PLACES], folder / f"{file}.gz", report)
        except DownloadError as error:
            if file == REVIEWS:
                raise
            report(f"Going on without titles. {error}")
