"""MovieLens in GroupLens' own zip files: 100K, latest-small and 1M.

Source: Harper & Konstan 2015, "The MovieLens Datasets: History and Context", https://grouplens.org/datasets/movielens/.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import pyarrow as pa

from seqrec.data.download import extract, fetch, fetch_from_wheel, md5_file, open_archive
from seqrec.data.interactions import Interactions
from seqrec.data.sources.recbole import read_recbole
from seqrec.data.sources.table import read_events
from seqrec.data.sources.text import Dialect, Source, one_per_id, text_file
from seqrec.errors import DataError, DownloadError, unknown_name
from seqrec.files import atomic_file, sha256_file, write_json

URL = "https://files.grouplens.org/datasets/movielens/{}.zip"

#: Official MD5 of each zip; GroupLens renews latest-small under the same name, so it has none.
MD5: Mapping[str, str | None] = {
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-latest-small": None,
}
#: ML-100K also travels in this wheel, as RecBole's atomic files.
WHEEL = "recbole==1.2.1"
WHEEL_FOLDER = "recbole/dataset_example/ml-100k/"
WHEEL_SHA256: Mapping[str, str] = {
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
}
#: A zip with this member keeps the order of each user's ratings, and no clock.
SURROGATE = "README-SURROGATE-TIME.txt"

RATINGS = ("user", "item", "rating", "timestamp")
NO_GENRES = "(no genres listed)"
AGES: Mapping[str, str] = {
    "1": "Under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56+",
}  # fmt: skip
OCCUPATIONS = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
)  # fmt: skip
# The year stands last, as (1995), (2006-2007) or (2011-); (V) after it marks a film that was never in cinemas.
_YEAR = re.compile(r"\s*\((\d{4})(?:\s*[-\u2013]\s*(?:\d{4})?)?\)\s*(?:\(V\)\s*)?$")


@dataclass(frozen=True)
class Added:
    """What `seqrec data add` took in: the copy, its digests, whether they are the official ones (None: there are
    none to compare with), and how many ratings were read from it."""

    name: str
    path: Path
    sha256: str
    md5: str
    official: bool | None
    rows: int


def load(name: str, *, cache: Path, report: Callable[[str], None]) -> Interactions:
    """Read a MovieLens data set from `cache/raw/<name>/`, downloading it first where it is not there.

    Args:
        name: `ml-100k`, `ml-latest-small` or `ml-1m`.
        cache: the cache folder (`download.cache_folder()`).
        report: told in words what is being done, and when ML-100K comes from its second source.

    Raises:
        DownloadError: no source delivered it.
        DataError: the file in the cache cannot be read.
    """
    _known(name)
    folder = cache / "raw" / name
    archive = folder / f"{name}.zip"
    if not archive.is_file() and not _has_wheel_files(name, folder):
        _obtain(name, archive, report)
    if archive.is_file():
        return read_zip(name, archive)
    return _read_wheel_files(folder)


def add(name: str, path: Path, cache: Path) -> Added:
    """Copy a zip that the user brought into the cache, once it has been read as the data set it should be.

    `added.json` beside the copy records what is returned.

    Raises:
        DataError: the zip is damaged or holds another data set; the cache is left as it was.
        UnknownNameError: no such MovieLens data set.
    """
    rows = len(read_zip(name, path))
    target = cache / "raw" / name / f"{name}.zip"
    with atomic_file(target) as temporary:
        shutil.copyfile(path, temporary)
    md5 = md5_file(target)
    official = None if MD5[name] is None else md5 == MD5[name]
    added = Added(name=name, path=target, sha256=sha256_file(target), md5=md5, official=official, rows=rows)
    write_json(target.with_name("added.json"), {**asdict(added), "path": target.name})
    return added


def read_zip(name: str, path: Path) -> Interactions:
    """Read GroupLens' zip of data set `name`; members that it does not know are ignored.

    Returns:
        Interactions with `value` the rating; items with title (without the year), categories and year; users
        with age, gender, occupation and zip, except in latest-small. `clock` is False for surrogate times.

    Raises:
        DataError: a damaged zip, a missing member, or a line that cannot be used, each named.
    """
    _known(name)
    read = {"ml-100k": _read_100k, "ml-latest-small": _read_latest, "ml-1m": _read_1m}[name]
    with open_archive(path) as archive, TemporaryDirectory() as folder:
        members = _Members(path, archive, Path(folder))
        interactions = read(members)
        return replace(interactions, name=name, clock=not members.has(SURROGATE))


def split_year(title: str) -> tuple[str, int | None]:
    """`Heat (1995)` as `Heat` and 1995; a title without a year stays, trimmed."""
    found = _YEAR.search(title)
    return (title[: found.start()].strip(), int(found[1])) if found else (title.strip(), None)


class _Members:
    """Members of one zip by file name, in whatever folder they lie, each extracted when asked for."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, folder: Path) -> None:
        self._path, self._archive, self._folder = path, archive, folder

    def _named(self, name: str) -> list[str]:
        return [member for member in self._archive.namelist() if PurePosixPath(member).name == name]

    def has(self, name: str) -> bool:
        return bool(self._named(name))

    def open(self, name: str, dialect: Dialect, names: Sequence[str] | None = None) -> Source:
        found = self._named(name)
        if len(found) != 1:
            held = ", ".join(self._archive.namelist()[:12])
            raise DataError(f"{self._path}: {name} should be in it once, is {len(found)} times. It holds {held}.")
        file = extract(self._archive, found[0], self._folder / name)
        return text_file(file, dialect, names, where=f"{self._path}: {found[0]}")


def _read_100k(members: _Members) -> Interactions:
    tabs, pipes = Dialect("\t", "", header=False), Dialect("|", "", header=False, encoding="latin-1")
    events = _ratings(members.open("u.data", tabs, RATINGS))
    genres = members.open("u.genre", pipes, ("genre", "number")).strings(["genre"])["genre"].to_pylist()
    films = members.open("u.item", pipes, ("item", "title", "released", "video", "url", *genres))
    flags = zip(*(column.to_pylist() for column in films.strings(genres).columns), strict=True)
    categories = [[genre for genre, flag in zip(genres, row, strict=True) if flag == "1"] for row in flags]
    users = members.open("u.user", pipes, ("id", "age", "gender", "occupation", "zip"))
    return Interactions("ml-100k", events, _items(films, "item", "title", categories), _users(users))


def _read_latest(members: _Members) -> Interactions:
    ratings = members.open("ratings.csv", Dialect())
    events, _ = read_events(ratings, user="userId", item="movieId", time="timestamp", value="rating", time_unit="s")
    films = members.open("movies.csv", Dialect())
    return Interactions("ml-latest-small", events, _items(films, "movieId", "title", _genres(films)))


def _read_1m(members: _Members) -> Interactions:
    plain = Dialect("::", "", header=False)
    latin = replace(plain, encoding="latin-1")
    events = _ratings(members.open("ratings.dat", plain, RATINGS))
    films = members.open("movies.dat", latin, ("item", "title", "genres"))
    users = _users(members.open("users.dat", latin, ("id", "gender", "age", "occupation", "zip")))
    occupations = {str(code): word for code, word in enumerate(OCCUPATIONS)}
    for column, words in (("age", AGES), ("occupation", occupations)):
        coded = [words.get(code, code) for code in users[column].to_pylist()]
        users = users.set_column(users.column_names.index(column), column, pa.array(coded, pa.string()))
    return Interactions("ml-1m", events, _items(films, "item", "title", _genres(films)), users)


def _ratings(source: Source) -> pa.Table:
    events, _ = read_events(source, user="user", item="item", time="timestamp", value="rating", time_unit="s")
    return events


def _genres(films: Source) -> list[list[str]]:
    texts = films.strings(["genres"])["genres"].to_pylist()
    return [[] if text in (None, NO_GENRES) else text.split("|") for text in texts]


def _items(films: Source, item: str, title: str, categories: list[list[str]]) -> pa.Table:
    titles = [split_year(text or "") for text in films.strings([title])[title].to_pylist()]
    table = {
        "id": films.ids(item),
        "title": pa.array([text or None for text, _ in titles], pa.string()),
        "categories": pa.array(categories, pa.list_(pa.string())),
        "year": pa.array([year for _, year in titles], pa.int32()),
    }
    return one_per_id(pa.table(table))


def _users(source: Source) -> pa.Table:
    attributes = source.strings(["age", "gender", "occupation", "zip"])
    return one_per_id(attributes.add_column(0, "id", source.ids("id")))


def _known(name: str) -> None:
    if name not in MD5:
        raise unknown_name("MovieLens data set", name, MD5)


def _has_wheel_files(name: str, folder: Path) -> bool:
    return name == "ml-100k" and all((folder / file).is_file() for file in WHEEL_SHA256)


def _obtain(name: str, archive: Path, report: Callable[[str], None]) -> None:
    """Put the zip, or ML-100K's files from the wheel, into the cache."""
    report(f"Downloading {name} from GroupLens")
    try:
        fetch(name, [URL.format(name)], archive, md5=MD5[name], progress=_every_tenth(report))
        _refuse_pages(archive)
    except DownloadError as error:
        if name != "ml-100k":
            raise
        report(f"GroupLens did not deliver {name}; taking the same ratings from the {WHEEL} package")
        try:
            fetch_from_wheel(WHEEL, WHEEL_FOLDER, WHEEL_SHA256, archive.parent)
        except DataError as second:
            raise DownloadError(f"{error}\nThe {WHEEL} package did not help either: {second}") from second


def _every_tenth(report: Callable[[str], None]) -> Callable[[int, int | None], None]:
    """Tell how far a download is, every tenth of it."""
    told = 0

    def progress(done: int, total: int | None) -> None:
        nonlocal told
        if total and done * 10 // total > told:
            told = done * 10 // total
            report(f"{told * 10}% of {total / 2**20:.1f} MiB")

    return progress


def _refuse_pages(archive: Path) -> None:
    """Without a checksum, the login page of a network would pass for the zip and stay in the cache."""
    try:
        with open_archive(archive):
            pass
    except DataError as error:
        archive.unlink()
        raise DownloadError(f"What arrived was not used: {error}") from error


def _read_wheel_files(folder: Path) -> Interactions:
    """ML-100K's atomic files in the words of the zip: the same events, and users with a `zip`."""
    interactions = read_recbole(folder / "ml-100k.inter", time_unit="s", name="ml-100k")
    assert interactions.items is not None
    assert interactions.users is not None
    titles = interactions.items["title"].to_pylist()
    split = [split_year(title or "") for title in titles]  # one film has its year left in the title
    years = [year or inner for year, (_, inner) in zip(interactions.items["year"].to_pylist(), split, strict=True)]
    items = interactions.items
    items = items.set_column(1, "title", pa.array([title or None for title, _ in split], pa.string()))
    items = items.set_column(3, "year", pa.array(years, pa.int32()))
    users = interactions.users.rename_columns(
        ["zip" if name == "zip_code" else name for name in interactions.users.column_names]
    )
    return replace(interactions, items=items, users=users)
