"""Amazon's reviews in the three editions of McAuley's group: 2014, 2018 and 2023, one data set per category.

Sources: He & McAuley 2016, "Ups and Downs"; Ni et al. 2019, "Justifying Recommendations using Distantly-Labeled
Reviews"; Hou et al. 2024, "Bridging Language and Items for Retrieval and Recommendation". Files and keys are those of
https://cseweb.ucsd.edu/~jmcauley/datasets.html and https://amazon-reviews-2023.github.io.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from seqrec.data.interactions import Interactions
from seqrec.data.sources.amazon_categories import data_sets
from seqrec.data.sources.events import read_events
from seqrec.data.sources.jsonlines import object_source
from seqrec.data.sources.named import Added, keep, raw_folder
from seqrec.data.sources.published import Row, brought, fetch_packed, only_file, plain, price, prose, read_items, words
from seqrec.data.sources.text import Dialect, Source, text_file
from seqrec.errors import DataError, DownloadError, unknown_name

_LAB = "https://mcauleylab.ucsd.edu/public_datasets/data/"
_OLD_LAB = "https://datarepo.eng.ucsd.edu/mcauley_group/data/"


@dataclass(frozen=True)
class _Edition:
    """How an edition calls its files and keys; `{}` is the category.

    Attributes:
        reviews: files with one review a line; the 5-core first, where it is a file of its own.
        ratings: the CSV with ratings only.
        columns: user, item, value and time of that CSV in its order, where it has no header.
        keys: user, item, value and time in reviews, and in a CSV with a header.
        time_unit: of times.
        metadata: the file with one product a line.
        product: keys of the id, title, price, brand and categories in it, and of what stands in for no categories.
        events_urls, metadata_urls: mirrors of the events that are downloaded, all `.gz`, and of the metadata.
    """

    reviews: Sequence[str]
    ratings: str
    columns: Sequence[str] | None
    keys: Sequence[str]
    time_unit: str
    metadata: str
    product: Sequence[str]
    events_urls: Sequence[str]
    metadata_urls: Sequence[str]


#: Key of what is written about a product, in all editions: a text, or a list of them.
_DESCRIPTION = "description"
_OLD_KEYS = ("reviewerID", "asin", "overall", "unixReviewTime")
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
_2014, _2018, _2023 = (f"{_LAB}amazon/categoryFiles/", f"{_LAB}amazon_v2/", f"{_LAB}amazon_2023/")
_EDITIONS: Mapping[int, _Edition] = {
    2014: _Edition(
        reviews=("reviews_{}_5.json", "reviews_{}.json"),
        ratings="ratings_{}.csv",
        columns=("user", "item", "value", "time"),
        keys=_OLD_KEYS,
        time_unit="s",
        metadata="meta_{}.json",
        product=("asin", "title", "price", "brand", "categories"),
        events_urls=tuple(f"{place}reviews_{{}}_5.json.gz" for place in (_2014, _SNAP)),
        metadata_urls=tuple(f"{place}meta_{{}}.json.gz" for place in (_2014, _SNAP)),
    ),
    2018: _Edition(
        reviews=("{}_5.json", "{}.json"),
        ratings="{}.csv",
        columns=("item", "user", "value", "time"),
        keys=_OLD_KEYS,
        time_unit="s",
        metadata="meta_{}.json",
        product=("asin", "title", "price", "brand", "category"),
        events_urls=tuple(f"{lab}amazon_v2/categoryFilesSmall/{{}}_5.json.gz" for lab in (_LAB, _OLD_LAB)),
        metadata_urls=tuple(f"{lab}amazon_v2/metaFiles2/meta_{{}}.json.gz" for lab in (_LAB, _OLD_LAB)),
    ),
    2023: _Edition(
        reviews=("{}.jsonl",),
        ratings="{}.csv",
        columns=None,
        keys=("user_id", "parent_asin", "rating", "timestamp"),
        time_unit="ms",
        metadata="meta_{}.jsonl",
        product=("parent_asin", "title", "price", "store", "categories", "main_category"),
        events_urls=tuple(f"{lab}amazon_2023/benchmark/0core/rating_only/{{}}.csv.gz" for lab in (_LAB, _OLD_LAB)),
        metadata_urls=tuple(f"{lab}amazon_2023/raw/meta_categories/meta_{{}}.jsonl.gz" for lab in (_LAB, _OLD_LAB)),
    ),
}
#: Reviews in the 5-cores of 2014 that most papers use.
_COUNTS = {"Beauty": 198_502, "Sports_and_Outdoors": 296_337, "Toys_and_Games": 167_597}
_ITEMS = pa.schema(
    [
        ("id", pa.string()),
        ("title", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("price", pa.float64()),
        ("brand", pa.string()),
        ("text", pa.string()),
    ]
)


def load(name: str, *, cache: Path, report: Callable[[str], None]) -> Interactions:
    """Read a category from `cache/raw/<name>/`, downloading it first where no events are there.

    Whichever layout lies there is read: reviews (the 5-core or all of them) or the CSV of ratings; metadata where
    there are any. What is downloaded is the 5-core of 2014 and 2018, all ratings of 2023, and the metadata.

    Args:
        name: `amazon-2014-beauty`, `amazon-2018-software`, `amazon-2023-all-beauty`, ...: see `amazon_categories`.
        cache: the cache folder (`download.cache_folder()`).
        report: told in words what is being done.

    Returns:
        Interactions with `value` the rating; where there are metadata, items that were rated with title,
        categories, price in dollars, brand and the beginning of the description. `revisits` is False.

    Raises:
        DownloadError: no mirror delivered the events.
        DataError: a file cannot be read; the message names its line.
    """
    edition, category = _known(name)
    folder = raw_folder(name, cache)
    events = only_file(folder, _event_names(edition, category))
    if events is None:
        events = _download(name, edition, category, folder, report)
    metadata = only_file(folder, [edition.metadata.format(category)])
    interactions = _read(name, edition, events, metadata)
    published = _COUNTS.get(category)
    if published and events.name.startswith(f"reviews_{category}_5.") and len(interactions) != published:
        report(f"{events.name} has {len(interactions):,} reviews; the published 5-core has {published:,}")
    return interactions


def add(name: str, path: Path, cache: Path) -> Added:
    """Copy files that the user brought into the cache, once they have been read.

    Args:
        path: the file of reviews or ratings, under its publisher's name; or a folder with it and the metadata.

    Raises:
        DataError: the files are not what they should be; the cache is left as it was.
        UnknownNameError: no such data set.
    """
    edition, category = _known(name)
    kinds = [_event_names(edition, category), [edition.metadata.format(category)]]
    events, metadata = brought(path, kinds, raw_folder(name, cache))
    if events is None:
        raise DataError(f"{path}: there are no reviews with the metadata. Add a folder with {' or '.join(kinds[0])}.")
    rows = len(_read(name, edition, events, metadata))
    return keep(name, {file.name: file for file in (events, metadata) if file}, cache, rows=rows)


def _read(name: str, edition: _Edition, events: Path, metadata: Path | None) -> Interactions:
    with _opened(edition, events) as (source, (user, item, value, time)):
        table, _ = read_events(source, user=user, item=item, time=time, value=value, time_unit=edition.time_unit)
    items = None
    if metadata is not None:
        with object_source(metadata, (*edition.product, _DESCRIPTION)) as source:
            items = read_items(source, edition.product[0], table, _describer(edition), _ITEMS)
    return Interactions(name, table, items, revisits=False)


@contextmanager
def _opened(edition: _Edition, events: Path) -> Iterator[tuple[Source, Sequence[str]]]:
    """The events, and the names of user, item, value and time in them."""
    if not events.name.removesuffix(".gz").endswith(".csv"):
        with object_source(events, edition.keys) as source:
            yield source, edition.keys
    elif edition.columns is None:
        yield text_file(events, Dialect()), edition.keys
    else:
        yield text_file(events, Dialect(header=False), edition.columns), ("user", "item", "value", "time")


def _describer(edition: _Edition) -> Callable[[Row], Row]:
    _, title, cost, brand, categories, *instead = edition.product

    def describe(row: Row) -> Row:
        named = plain(row[title])
        return {
            # some titles of 2018 are scripts of the page, all with a call of getTime
            "title": None if named and "getTime" in named else named,
            "categories": words(row[categories]) or words(*(row[key] for key in instead)),
            "price": price(row[cost]),
            "brand": plain(row[brand]),
            "text": prose(row[_DESCRIPTION]),
        }

    return describe


def _download(name: str, edition: _Edition, category: str, folder: Path, report: Callable[[str], None]) -> Path:
    """Put metadata and events into the cache. Events come last: with them the data set is complete."""
    metadata = folder / f"{edition.metadata.format(category)}.gz"
    if only_file(folder, [metadata.stem]) is None:
        try:
            fetch_packed(name, _filled(edition.metadata_urls, category), metadata, report)
        except DownloadError as error:
            report(f"Going on without titles. {error}")
    urls = _filled(edition.events_urls, category)
    events = folder / urls[0].rpartition("/")[2]
    fetch_packed(name, urls, events, report)
    return events


def _filled(patterns: Sequence[str], category: str) -> list[str]:
    return [pattern.format(category) for pattern in patterns]


def _event_names(edition: _Edition, category: str) -> list[str]:
    return _filled([*edition.reviews, edition.ratings], category)


def _known(name: str) -> tuple[_Edition, str]:
    known = data_sets()
    if name not in known:
        raise unknown_name("Amazon data set", name, known)
    year, category = known[name]
    return _EDITIONS[year], category
