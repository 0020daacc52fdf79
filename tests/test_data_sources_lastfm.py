"""Last.fm 1K's layout, with ids that are missing, quotes, tabs and broken lines."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from seqrec.data.sources import lastfm
from seqrec.data.sources.lastfm import PLAYS, PROFILES, add, load, read_lastfm
from seqrec.errors import DataError, DownloadError

ARTIST, TRACK = "f1b1cf71-bd35-4e99-8624-24a6e15f133a", "aa7dbea2-a0c0-4d0a-9241-5bb98a372b11"
PROFILE = (
    "#id\tgender\tage\tcountry\tregistered\nuser_000001\tm\t\tJapan\tAug 13, 2006\nuser_000002\t\t\t\tFeb 24, 2007\n"
)


def play(user: str, time: str, artist: str, track: str, mbid: str = "") -> str:
    return f"{user}\t{time}\t{ARTIST}\t{artist}\t{mbid}\t{track}\n"


LINES = (
    play("user_000001", "2009-05-04T23:08:57Z", "Deep Dish", "Fuck Me Im Famous (Pacha Ibiza)-09-28-2007"),
    play("user_000001", "2009-05-04T13:54:10Z", "坂本龍一", '12" Mix, "live', TRACK),
    play("user_000001", "2009-05-04T13:52:04Z", "Deep Dish", "Second of two"),
    play("user_000001", "2009-05-04T13:52:04Z", "Deep Dish", "First of two"),
    play("user_000002", "2006-08-13T14:59:59Z", "坂本龍一", "Later spelling", TRACK),
    play("user_000002", "2006-08-13T14:00:00Z", "Tabs", "one\ttwo"),
)


def write(path: Path, plays: str = "".join(LINES), profile: str | None = PROFILE, called: str = PLAYS) -> Path:
    """The archive, or a folder where the path has no suffix."""
    files = {called: plays.encode("utf-8", "surrogateescape")}
    if profile is not None:
        files[PROFILES] = profile.encode()
    if not path.suffix:
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
        return path
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"lastfm-dataset-1K/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path.write_bytes(gzip.compress(buffer.getvalue()))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_lastfm(path, path.parent / "cache")
    return str(caught.value)


@pytest.mark.parametrize("name", ["lastfm-dataset-1K.tar.gz", "folder"])
def test_plays_tracks_and_people(tmp_path: Path, name: str) -> None:
    said: list[str] = []
    log = read_lastfm(write(tmp_path / name), tmp_path / "cache", said.append)
    assert said == []
    assert (log.name, log.clock, log.revisits, len(log)) == ("lastfm-1k", True, True, 6)
    first = log.events.slice(0, 1).to_pylist()[0]
    deep = "Deep Dish - Fuck Me Im Famous (Pacha Ibiza)-09-28-2007"
    assert first == {"row": 5, "user": "user_000001", "item": deep, "timestamp": 1241478537000}
    assert log.items is not None
    assert log.items.to_pylist()[:2] == [
        {"id": deep, "title": deep.removeprefix("Deep Dish - "), "artist": "Deep Dish"},
        {"id": TRACK, "title": '12" Mix, "live', "artist": "坂本龍一"},
    ]
    assert log.items["id"].to_pylist()[-1] == "Tabs - one two"
    assert log.users is not None
    assert log.users.to_pylist() == [
        {"id": "user_000001", "gender": "m", "age": None, "country": "Japan", "registered": "Aug 13, 2006"},
        {"id": "user_000002", "gender": None, "age": None, "country": None, "registered": "Feb 24, 2007"},
    ]


def test_plays_of_one_second_stand_as_they_happened(tmp_path: Path) -> None:
    events = read_lastfm(write(tmp_path / "a.tar.gz"), tmp_path / "cache").events
    tied = [row for row in events.to_pylist() if row["timestamp"] == 1241445124000]
    assert [row["item"] for row in sorted(tied, key=lambda row: row["row"])] == [
        "Deep Dish - First of two",
        "Deep Dish - Second of two",
    ]
    turned = "".join(reversed(LINES))
    again = read_lastfm(write(tmp_path / "b.tar.gz", turned), tmp_path / "cache").events
    assert sorted(again["row"].to_pylist()) == again["row"].to_pylist() == list(range(6))


def test_broken_lines_are_left_out_and_told(tmp_path: Path) -> None:
    many = "".join(LINES) * 500
    broken = many + play("user_000001", "2009-05-04T13:52:04Z", "Deep Dish", "a line\nbreak within") + many
    said: list[str] = []
    log = read_lastfm(write(tmp_path / "a.tar.gz", broken), tmp_path / "cache", said.append)
    assert len(log) == 6001
    assert len(said) == 1
    assert f"{PLAYS}: 1 of 6,002 lines cannot be used, the first is line 3002; left out." in said[0]


@pytest.mark.parametrize(
    "line",
    [
        play("", "2009-05-04T13:52:04Z", "Deep Dish", "Flashdance"),
        play("user_000001", "lately", "Deep Dish", "Flashdance"),
        play("user_000001", "2009-05-04T13:52:04Z", "Deep Dish", " "),
        "not five tabs\t\t\n",
    ],
)
def test_too_many_broken_lines_are_refused(tmp_path: Path, line: str) -> None:
    said = refusal(write(tmp_path / "a.tar.gz", "".join(LINES) + line * 2))
    assert "2 of 8 lines cannot be used, the first is line 7. A line has user, time as 2009-05-04T23:08:57Z" in said


def test_carriage_returns_a_byte_order_mark_and_no_profiles(tmp_path: Path) -> None:
    plays = "\ufeff" + "".join(LINES).replace("\n", "\r\n")
    log = read_lastfm(write(tmp_path / "a.tar.gz", plays, profile=None), tmp_path / "cache")
    assert len(log) == 6
    assert log.users is None
    assert log.codes("user")[1] == ["user_000001", "user_000002"]
    nobody = read_lastfm(write(tmp_path / "b.tar.gz", profile=PROFILE.splitlines()[0] + "\n"), tmp_path / "cache")
    assert nobody.users is not None
    assert nobody.users.num_rows == 0


def test_other_files_are_refused(tmp_path: Path) -> None:
    said = refusal(write(tmp_path / "360k.tar.gz", called="usersha1-artmbid-artname-plays.tsv"))
    assert "is Last.fm 360K" in said
    assert "Give Last.fm 1K" in said
    assert f"{PLAYS} should be in it once, is 0 times" in refusal(write(tmp_path / "a.tar.gz", called="plays.tsv"))
    latin = refusal(write(tmp_path / "b.tar.gz", play("user_000001", "2009-05-04T13:52:04Z", "Mot\udcf6rhead", "Ace")))
    assert PLAYS in latin
    assert "not utf-8" in latin
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(write(tmp_path / "c.tar.gz").read_bytes()[:-20])
    assert "is not a whole tar file" in refusal(cut)


# The only blank is " ": which others are trimmed from the ends is DuckDB's affair.
letters = st.characters(codec="utf-8", exclude_categories=["Zs"], exclude_characters="\t\r\n\ufeff\x00")
fields = st.text(st.one_of(letters, st.just(" ")), min_size=1, max_size=8)


@settings(max_examples=10, phases=[Phase.explicit, Phase.generate])
@given(st.lists(st.tuples(fields, fields), min_size=20, max_size=60))
def test_any_name_survives(tmp_path_factory: pytest.TempPathFactory, names: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("names")
    named = [(artist, track) for artist, track in names if artist.strip(" ") and track.strip(" ")]
    plays = "".join(play("user_000001", "2009-05-04T13:52:04Z", *pair) for pair in [*named, ("A", "B")])
    log = read_lastfm(write(folder / "files", plays), folder / "cache")
    found = log.events["item"].to_pylist()
    assert found == [f"{artist.strip(' ')} - {track.strip(' ')}" for artist, track in [*named, ("A", "B")]]


def test_add_then_load(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    added = add("lastfm-1k", write(tmp_path / "mine.tgz"), cache)
    assert (added.path, added.rows, added.official) == (cache / "raw" / "lastfm-1k" / "lastfm-1k.tgz", 6, False)
    assert len(load("lastfm-1k", cache=cache, report=print)) == 6
    folder = add("lastfm-1k", write(tmp_path / "folder"), cache)
    assert (folder.path, folder.official) == (cache / "raw" / "lastfm-1k", None)
    assert len(load("lastfm-1k", cache=cache, report=print)) == 6


def test_no_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lastfm, "URLS", ("http://127.0.0.1:1/a.tar.gz",))
    with pytest.raises(DownloadError, match="seqrec data add lastfm-1k PATH"):
        load("lastfm-1k", cache=tmp_path, report=print)
