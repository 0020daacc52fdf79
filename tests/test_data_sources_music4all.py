"""Plays in every layout they come in, packed and not, and songs as Music4All describes them."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec.data.interactions import Interactions
from seqrec.data.sources import music4all
from seqrec.data.sources.music4all import add, load
from seqrec.errors import DataError, DownloadError

HEADER = "user_id\ttrack_id\ttimestamp\n"
PLAYS = (
    "user_007XIjOr\tDaTQ53TUmfP93FSr\t2019-02-20 12:28:00\n"
    'user_007XIjOr\t"quoted\t2019-02-20 12:21:00\n'
    "16\tDaTQ53TUmfP93FSr\t2019-02-20 12:21:00\n"
    "16\tDaTQ53TUmfP93FSr\t2019-02-20 12:21:00\n"
)
EVENTS = [
    {"row": 0, "user": "user_007XIjOr", "item": "DaTQ53TUmfP93FSr", "timestamp": 1550665680000},
    {"row": 1, "user": "user_007XIjOr", "item": '"quoted', "timestamp": 1550665260000},
    {"row": 2, "user": "16", "item": "DaTQ53TUmfP93FSr", "timestamp": 1550665260000},
    {"row": 3, "user": "16", "item": "DaTQ53TUmfP93FSr", "timestamp": 1550665260000},
]
SONGS = {
    "id_information.csv": (
        "id\tartist\tsong\talbum_name\n"
        'DaTQ53TUmfP93FSr\tSimon &amp; Garfunkel\t"The ""Boxer"""\tBridge\n'
        'x1\tDavid Bowie\t"Heroes"\t"Heroes"\n'
        "x1\tsomebody\tagain\tno\n"
        "x2\tBjörk\t\tDebut\n"
    ),
    "id_metadata.csv": (
        "id\tspotify_id\tpopularity\trelease\tdanceability\n"
        "DaTQ53TUmfP93FSr\tsp\t55.0\t1970\t0.4\nx1\tsp\t60.0\t1977-10-14\t0.4\nx2\tsp\t1.0\t\t0.4\n"
    ),
    "id_genres.csv": "id\tgenres\nDaTQ53TUmfP93FSr\tfolk,singer-songwriter\nx1\tart rock, rock\n",
}


def pack(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    if path.suffix == ".parquet":
        cells = [line.split("\t") for line in text.splitlines()]
        pq.write_table(pa.table(dict(zip(cells[0], zip(*cells[1:], strict=True), strict=True))), path)
    else:
        packed = {".bz2": bz2.compress, ".gz": gzip.compress}.get(path.suffix)
        path.write_bytes(packed(data) if packed else data)
    return path


def read(cache: Path, suffix: str, text: str, songs: dict[str, str] | None = None) -> Interactions:
    pack(cache / "raw" / "music4all" / f"userid_trackid_timestamp{suffix}", text)
    for file, content in (songs or {}).items():
        pack(cache / "raw" / "music4all" / file, content)
    return load("music4all", cache=cache, report=lambda line: None)


@pytest.mark.parametrize("suffix", [".tsv.bz2", ".tsv.gz", ".tsv", ".parquet"])
def test_plays_are_the_same_in_every_layout(own_cache: Path, suffix: str) -> None:
    log = read(own_cache, suffix, HEADER + PLAYS)
    assert (log.name, log.clock, log.revisits, log.items, log.users) == ("music4all", True, True, None, None)
    assert log.events.to_pylist() == EVENTS
    assert not list((own_cache / "spool").iterdir())


@pytest.mark.parametrize("suffix", [".tsv.bz2", ".tsv.gz"])
def test_line_ends_and_marks_of_other_systems(own_cache: Path, suffix: str) -> None:
    text = "\ufeff" + (HEADER + PLAYS).replace("\n", "\r\n")
    assert read(own_cache, suffix, text).events.to_pylist() == EVENTS


def test_bzip2_in_several_streams_and_blocks(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(music4all, "BLOCK", 1 << 10)
    path = own_cache / "raw" / "music4all" / "userid_trackid_timestamp.tsv.bz2"
    pack(path, HEADER + PLAYS)
    path.write_bytes(path.read_bytes() + bz2.compress((PLAYS * 100).encode()))
    log = load("music4all", cache=own_cache, report=lambda line: None)
    assert len(log) == 404
    assert log.events["timestamp"].to_pylist()[-4:] == [event["timestamp"] for event in EVENTS]


def test_columns_that_pandas_typed_are_taken(own_cache: Path) -> None:
    moments = pa.array([1550665680000, 1550665260000], pa.timestamp("ms"))
    table = pa.table({"timestamp": moments, "track_id": ["a", "b"], "user_id": [16, 17]})
    path = own_cache / "raw" / "music4all" / "userid_trackid_timestamp.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)
    events = load("music4all", cache=own_cache, report=lambda line: None).events.to_pylist()
    assert events[0] == {"row": 0, "user": "16", "item": "a", "timestamp": 1550665680000}


def test_songs(own_cache: Path) -> None:
    log = read(own_cache, ".tsv", HEADER + PLAYS, SONGS)
    assert log.items is not None
    assert log.items.to_pylist() == [
        {
            "id": "DaTQ53TUmfP93FSr",
            "title": 'The "Boxer"',
            "artist": "Simon & Garfunkel",
            "categories": ["folk", "singer-songwriter"],
            "year": 1970,
        },
        {"id": "x1", "title": '"Heroes"', "artist": "David Bowie", "categories": ["art rock", "rock"], "year": 1977},
        {"id": "x2", "title": None, "artist": "Björk", "categories": [], "year": None},
    ]


def test_titles_alone_will_do(own_cache: Path) -> None:
    log = read(own_cache, ".tsv", HEADER + PLAYS, {"id_information.csv": SONGS["id_information.csv"]})
    assert log.items is not None
    assert log.items.column_names == ["id", "title", "artist"]


MANY = HEADER + PLAYS * 500


@pytest.mark.parametrize("suffix", [".tsv.bz2", ".tsv.gz"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MANY + "16\ta\tyesterday\n", r"line 2002, column 'timestamp': not a date, found 'yesterday'"),
        (MANY + "\ta\t2019-02-20 12:21:00\n", r"line 2002, column 'user_id': no usable id"),
        ("user\tsong\ttimestamp\n" + PLAYS, r"line 1: a header with user_id, track_id, timestamp .*'user, song, time"),
        (PLAYS, r"line 1: a header with user_id"),
        ("", "empty|Empty"),
        (HEADER, "no rows"),
    ],
)
def test_what_cannot_be_used_is_named(own_cache: Path, suffix: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"userid_trackid_timestamp{re.escape(suffix)}.*({message})"):
        read(own_cache, suffix, text)
    assert not [path for path in own_cache.glob("spool/*") if path.is_dir()]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("16\ta\n", r"line 2002 cannot be read \(CSV parse error: Row #2002: Expected 3 columns, got 2"),
        ("16\ta\tb\tc\n", r"line 2002 cannot be read .*got 4"),
        ("\n16\ta\t2019-02-20 12:21:00\n", r"line 2002, column 'user_id': no usable id"),
        ("16\t" + "a" * 10_000_000 + "\t2019-02-20 12:21:00\n16\ta\n", r"line 2003 cannot be read"),
    ],
)
def test_damaged_lines_in_bzip2_are_named(own_cache: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(own_cache, ".tsv.bz2", MANY + line + PLAYS)


def test_a_line_longer_than_a_block_is_told_by_the_lines_before_it(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(music4all, "BLOCK", 1 << 12)
    with pytest.raises(DataError, match=r"cannot be read beyond line \d+ \(straddling"):
        read(own_cache, ".tsv.bz2", MANY + "16\t" + "a" * 100_000 + "\t2019-02-20 12:21:00\n")


@pytest.mark.parametrize("cut", [3, 200])
@pytest.mark.parametrize("suffix", [".tsv.bz2", ".tsv.gz", ".parquet"])
def test_files_that_end_early_are_named(own_cache: Path, suffix: str, cut: int) -> None:
    path = pack(own_cache / "raw" / "music4all" / f"userid_trackid_timestamp{suffix}", MANY)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=re.escape(path.name)):
        load("music4all", cache=own_cache, report=lambda line: None)


def test_what_is_no_bzip2_is_named(own_cache: Path) -> None:
    path = pack(own_cache / "raw" / "music4all" / "userid_trackid_timestamp.tsv", HEADER + PLAYS)
    path = path.rename(f"{path}.bz2")
    with pytest.raises(DataError, match=r"tsv\.bz2 cannot be read beyond line 1 .*not bz2-compressed"):
        load("music4all", cache=own_cache, report=lambda line: None)


def test_plays_then_songs_are_taken_over(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plays = pack(tmp_path / "userid_trackid_timestamp.tsv.bz2", HEADER + PLAYS)
    assert add("music4all", plays, own_cache).official is False
    monkeypatch.setattr(music4all, "MD5", hashlib.md5(plays.read_bytes(), usedforsecurity=False).hexdigest())
    added = add("music4all", plays, own_cache)
    assert (added.rows, added.official) == (4, True)
    told: list[str] = []
    load("music4all", cache=own_cache, report=told.append)
    assert "seqrec data add music4all FOLDER" in told[0]
    for file, content in SONGS.items():
        pack(tmp_path / "songs" / file, content)
    assert add("music4all", tmp_path / "songs", own_cache).official is None
    log = load("music4all", cache=own_cache, report=told.append)
    assert len(told) == 1
    assert log.items is not None
    assert log.items.num_rows == 3


def test_songs_without_plays_are_refused(own_cache: Path, tmp_path: Path) -> None:
    songs = pack(tmp_path / "id_information.csv", SONGS["id_information.csv"])
    with pytest.raises(DataError, match="no plays with the songs, nor in the cache"):
        add("music4all", songs, own_cache)
    assert not (own_cache / "raw").exists()


def test_plays_are_fetched_with_their_checksum(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plays = pack(tmp_path / "plays.tsv.bz2", HEADER + PLAYS)
    monkeypatch.setattr(music4all, "URLS", [plays.as_uri()])
    told: list[str] = []
    with pytest.raises(DownloadError, match="seqrec data add music4all PATH"):
        load("music4all", cache=own_cache, report=told.append)
    monkeypatch.setattr(music4all, "MD5", hashlib.md5(plays.read_bytes(), usedforsecurity=False).hexdigest())
    assert len(load("music4all", cache=own_cache, report=told.append)) == 4
    assert told[0] == "Downloading music4all from Zenodo"
