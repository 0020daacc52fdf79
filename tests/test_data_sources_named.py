"""Files in folders and archives, and what is taken over into the cache."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from seqrec.data.download import md5_file
from seqrec.data.sources.named import keep, keep_source, open_members, raw_folder, raw_source
from seqrec.errors import DataError
from seqrec.files import sha256_file


def write(path: Path, text: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def held(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_one_file_is_kept_with_its_digests(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.txt")
    added = keep("log", {"log.zip": mine}, tmp_path / "cache", rows=3, md5=md5_file(mine))
    assert added.path == tmp_path / "cache" / "raw" / "log" / "log.zip"
    assert (added.sha256, added.md5, added.official, added.rows) == (sha256_file(mine), md5_file(mine), True, 3)
    record = json.loads((added.path.parent / "added.json").read_text())
    assert record == {
        "name": "log",
        "path": "log.zip",
        "sha256": added.sha256,
        "md5": added.md5,
        "official": True,
        "rows": 3,
        "files": {"log.zip": added.sha256},
    }
    assert keep("log", {"log.zip": added.path}, tmp_path / "cache", rows=3, md5="0" * 32).official is False


def test_several_files_share_a_digest_whatever_their_order(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", "1"), write(tmp_path / "b", "2")
    added = keep("log", {"a": a, "b": b}, tmp_path / "cache", rows=3)
    assert (added.path, added.official) == (tmp_path / "cache" / "raw" / "log", None)
    listing = f"{sha256_file(a)}  a\n{sha256_file(b)}  b\n"
    assert added.sha256 == hashlib.sha256(listing.encode()).hexdigest()
    assert keep("log", {"b": b, "a": a}, tmp_path / "cache", rows=3).sha256 == added.sha256


def test_what_was_added_before_goes_and_the_rest_stays(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    keep("log", {"a": write(tmp_path / "a"), "b": write(tmp_path / "b")}, cache, rows=1)
    other = write(raw_folder("log", cache) / "by hand")
    keep_source("log", write(tmp_path / "Mine.TAR.GZ"), (), cache, rows=1)
    assert held(other.parent) == ["added.json", "by hand", "log.tar.gz"]
    (other.parent / "added.json").write_text('{"files": {"../../../a": ""}}')
    keep("log", {"c": write(tmp_path / "c")}, cache, rows=1)
    assert (tmp_path / "a").exists()
    write(other.parent / "added.json", "damaged")
    keep("log", {"c": write(tmp_path / "c")}, cache, rows=1)
    assert held(other.parent) == ["added.json", "by hand", "c", "log.tar.gz"]


def test_the_archive_comes_before_the_folder(tmp_path: Path) -> None:
    assert raw_source(tmp_path / "none") is None
    for unfinished in (".hidden", "log.zip.part", "added.json"):
        write(tmp_path / unfinished)
    assert raw_source(tmp_path) is None
    write(tmp_path / "events.csv")
    assert raw_source(tmp_path) == tmp_path
    write(tmp_path / "log.TGZ")
    assert raw_source(tmp_path) == tmp_path / "log.TGZ"
    write(tmp_path / "log.zip")
    with pytest.raises(DataError, match=r"holds log\.TGZ, log\.zip\. Leave one"):
        raw_source(tmp_path)


def test_files_are_found_by_name_in_any_folder(tmp_path: Path) -> None:
    for name in ("events.csv", "deep/down/items.csv", ".hidden/events.csv", "__MACOSX/._events.csv"):
        write(tmp_path / "mine" / name, "a,b\n1,2\n")
    zipped = tmp_path / "mine.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for name in held(tmp_path / "mine"):
            if ".hidden" not in name:
                archive.write(tmp_path / "mine" / name, name)
    for path, where in ((tmp_path / "mine", f"{tmp_path}/mine/deep"), (zipped, f"{zipped}: deep")):
        with open_members(path, tmp_path / "cache") as members:
            assert members.has("events.csv")
            assert not members.has("down")
            for _ in range(2):
                file, called = members.file("items.csv")
                assert file.read_text() == "a,b\n1,2\n"
                assert called == f"{where}/down/items.csv"
            with pytest.raises(DataError, match=r"users\.csv should be in it once, is 0 times. It holds"):
                members.file("users.csv")
    assert held(tmp_path / "cache") == []


def test_whole_lines_end_in_any_way(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "a.tsv").write_bytes('\ufeffa\t"b\r\n\nc::d,e\nf\r\n\r\n'.encode())
    with open_members(tmp_path / "mine", tmp_path) as members:
        source = members.lines("a.tsv")
        assert source.select(line=source.column("line"))["line"].to_pylist() == ['a\t"b', "c::d,e", "f"]
        assert [source.place(row) for row in range(3)] == ["line 1", "line 3", "line 4"]
