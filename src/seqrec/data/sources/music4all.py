"""Music4All-Onion: a quarter of a billion plays from Last.fm, and what Music4All knows of the songs.

Sources: Moscati et al. 2022, "Music4All-Onion - A Large-Scale Multi-Faceted Content-Centric Music Recommendation
Dataset", https://zenodo.org/records/15394646; Santana et al. 2020, "Music4All: A New Music Database and Its
Applications". The songs' files are given by the authors of Music4All upon an agreement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from seqrec.data.interactions import Interactions
from seqrec.data.sources.events import read_events
from seqrec.data.sources.jsonlines import parquet_spool
from seqrec.data.sources.named import Added, keep, obtain, raw_folder
from seqrec.data.sources.published import brought, only_file, plain
from seqrec.data.sources.text import Dialect, Source, glob_escaped, one_per_id, quoted, text_file
from seqrec.errors import DataError

PLAYS = "userid_trackid_timestamp"
PACKED = f"{PLAYS}.tsv.bz2"
URLS = (f"https://zenodo.org/records/15394646/files/{PACKED}?download=1",)
MD5 = "dfe82201036765f7463e6f3ce3d0f991"
COLUMNS = ("user_id", "track_id", "timestamp")
INFORMATION, METADATA, GENRES = "id_information.csv", "id_metadata.csv", "id_genres.csv"
KINDS = ((PACKED, f"{PLAYS}.tsv", f"{PLAYS}.parquet"), (INFORMATION,), (METADATA,), (GENRES,))
#: Quotes are ordinary characters, as titles have them.
TABS = Dialect("\t", quote="")
#: Bytes parsed at once; no line is longer.
BLOCK = 1 << 24


def load(name: str, *, cache: Path, report: Callable[[str], None]) -> Interactions:
    """Read the plays from `cache/raw/<name>/`, downloading them (2.2 GB) first where they are not there.

    Args:
        name: `music4all`.
        cache: the cache folder (`download.cache_folder()`).
        report: told in words what is being done, and how to get titles where there are none.

    Returns:
        Interactions without `value`; where there is `id_information.csv`, all its songs with title and artist, and
        with categories (genres) and year where the other two files are there. `revisits` is True.

    Raises:
        DownloadError: the plays could not be fetched.
        DataError: a file cannot be read; the message names its line.
    """
    folder = raw_folder(name, cache)
    if only_file(folder, KINDS[0]) is None:
        obtain(name, URLS, folder / PACKED, publisher="Zenodo", report=report, md5=MD5)
    plays, *songs = (only_file(folder, names) for names in KINDS)
    assert plays is not None
    if songs[0] is None:
        report(
            f"There are no titles: the authors of Music4All give {INFORMATION}, {METADATA} and {GENRES} upon an "
            f"agreement. With them in a folder run: seqrec data add {name} FOLDER"
        )
    return _read(name, plays, *songs)


def add(name: str, path: Path, cache: Path) -> Added:
    """Copy files that the user brought into the cache, once they have been read.

    Args:
        path: the plays as Zenodo has them (`.tsv.bz2`), or unpacked, `.tsv.gz` or Parquet; or a folder with them and
            Music4All's files; or only the latter, where the cache has the plays.

    Raises:
        DataError: the files are not what they should be; the cache is left as it was.
    """
    plays, *songs = brought(path, KINDS, raw_folder(name, cache))
    if plays is None:
        raise DataError(f"{path}: there are no plays with the songs, nor in the cache. Add a folder with {PACKED}.")
    rows = len(_read(name, plays, *songs))
    files = {file.name: file for file in (plays, *songs) if file}
    return keep(name, files, cache, rows=rows, md5=MD5 if list(files) == [PACKED] else None)


def _read(
    name: str, plays: Path, information: Path | None = None, metadata: Path | None = None, genres: Path | None = None
) -> Interactions:
    with _opened(plays) as source:
        events, _ = read_events(source, user="user_id", item="track_id", time="timestamp", time_unit="iso")
    songs = _songs(information, metadata, genres) if information else None
    return Interactions(name, events, songs, revisits=True)


@dataclass(frozen=True)
class _SpooledPlays(Source):
    """Plays from a packed file whose every line, even a blank one, is a row."""

    def place(self, row: int) -> str:
        """`line 17`: the header is line 1."""
        return f"line {row + 2}"


@contextmanager
def _opened(plays: Path) -> Iterator[Source]:
    if plays.suffix == ".bz2":
        schema = pa.schema([(column, pa.string()) for column in COLUMNS])
        with parquet_spool(_unpacked(plays, schema), schema) as relation:
            yield _SpooledPlays(str(plays), COLUMNS, ("VARCHAR",) * 3, relation)
    elif plays.suffix == ".parquet":
        yield _parquet(plays)
    else:
        source = text_file(plays, TABS)
        _refuse_other_columns(plays, source.names)
        yield source


def _unpacked(plays: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows of a bzip2 file as strings, a block at a time."""
    rows = 0
    try:
        with pa.input_stream(plays, compression="bz2") as stream:
            reader = pyarrow.csv.open_csv(
                stream,
                pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK),  # threads would lose the line of an error
                pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
                pyarrow.csv.ConvertOptions(column_types=schema, strings_can_be_null=False),
            )
            _refuse_other_columns(plays, reader.schema.names)
            for batch in reader:
                yield batch.select(schema.names)
                rows += batch.num_rows
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        line = re.search(r"Row #(\d+)", str(error))
        place = f", line {line[1]} cannot be read" if line else f" cannot be read beyond line {rows + 1}"
        raise DataError(f"{plays}{place} ({error}). Get the file again.") from error


def _parquet(plays: Path) -> Source:
    try:
        names = pq.read_schema(plays).names
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{plays} cannot be read ({error}). Get the file again.") from error
    _refuse_other_columns(plays, names)
    columns = ", ".join(f"CAST({column} AS VARCHAR) AS c{k}" for k, column in enumerate(COLUMNS))
    relation = f"(SELECT {columns} FROM read_parquet({quoted(glob_escaped(plays))}))"
    return Source(str(plays), COLUMNS, ("VARCHAR",) * 3, relation)


def _refuse_other_columns(plays: Path, found: Sequence[str]) -> None:
    if not set(COLUMNS) <= set(found):
        raise DataError(
            f"{plays}, line 1: a header with {', '.join(COLUMNS)} belongs here, found {', '.join(found)[:120]!r}. "
            "Is it this file?"
        )


def _songs(information: Path, metadata: Path | None, genres: Path | None) -> pa.Table:
    songs = text_file(information, TABS)
    table = songs.strings(["song", "artist"])
    ids = songs.ids("id")
    columns = {
        "id": ids,
        "title": pa.array([_unquoted(text) for text in table["song"].to_pylist()], pa.string()),
        "artist": pa.array([_unquoted(text) for text in table["artist"].to_pylist()], pa.string()),
    }
    if genres:
        found = _by_song(genres, "genres")
        lists = [
            [genre for word in found.get(song, "").split(",") if (genre := word.strip())] for song in ids.to_pylist()
        ]
        columns["categories"] = pa.array(lists, pa.list_(pa.string()))
    if metadata:
        found = _by_song(metadata, "release")
        years = (re.match(r"[12]\d{3}\b", found.get(song, "")) for song in ids.to_pylist())
        columns["year"] = pa.array([int(year[0]) if year else None for year in years], pa.int32())
    return one_per_id(pa.table(columns))


def _by_song(path: Path, column: str) -> dict[str, str]:
    """What a file says of each song; of several lines the first counts."""
    source = text_file(path, TABS)
    texts = source.strings([column])[column].to_pylist()
    pairs = zip(reversed(source.ids("id").to_pylist()), reversed(texts), strict=True)
    return {song: text for song, text in pairs if text is not None}


def _unquoted(text: str | None) -> str | None:
    """A CSV writer puts quotes around a text that has some, and doubles those in it."""
    if text and len(text) > 1 and text[0] == text[-1] == '"' and '""' in text:
        text = text[1:-1].replace('""', '"')
    return plain(text)
