"""Yelp's layout as a tar, as the zip around it and as a folder; and what is odd in it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from seqrec.data.sources.yelp import BUSINESSES, REVIEWS, USERS, add, load, read_yelp
from seqrec.errors import DataError, DownloadError
from seqrec.files import sha256_file

REVIEW = {
    "review_id": "KU_O5udG6zpxOg-VcAEodg", "user_id": "mh_-eMZ6K5RLWhZyISBhwA", "business_id": "XQfwVwDr-v0ZS3_CbbE5Xw",
    "stars": 3.0, "useful": 0, "funny": 0, "cool": 0, "text": 'Says "fine",\nthen: leaves\t\u00e9',
    "date": "2018-07-07 22:09:11",
}  # fmt: skip
LINES: dict[str, list[dict[str, Any]]] = {
    BUSINESSES: [
        {
            "business_id": "XQfwVwDr-v0ZS3_CbbE5Xw", "name": 'Tony\'s "Best" \u00c9clairs', "city": "Philadelphia",
            "state": "PA", "stars": 4.5, "review_count": 80, "is_open": 1, "attributes": {"Parking": "{'lot': False}"},
            "categories": "Bakeries, Coffee & Tea,  Food", "hours": {"Monday": "7:0-20:0"},
        },
        {"business_id": "b2", "name": "", "city": "", "state": "XMS", "categories": None, "attributes": None},
        {"business_id": "b3", "name": "Bare", "city": "Reno", "categories": " "},
        {"business_id": "b2", "name": "Again", "city": "Reno", "state": "NV", "categories": "Food"},
    ],
    REVIEWS: [REVIEW, {**REVIEW, "business_id": "b2", "stars": 5, "date": "2005-02-16 03:23:22"}],
    USERS: [{"user_id": "mh_-eMZ6K5RLWhZyISBhwA", "name": "Ann", "yelping_since": "2009-01-25 04:35:42",
             "friends": "a, b"}],
}  # fmt: skip


def contents(**changes: bytes) -> dict[str, bytes]:
    files = {name: "".join(json.dumps(line) + "\n" for line in lines).encode() for name, lines in LINES.items()}
    return files | {f"yelp_academic_dataset_{name}.json": content for name, content in changes.items()}


def write_tar(path: Path, files: dict[str, bytes], folder: str = "") -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(folder + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path.write_bytes(gzip.compress(buffer.getvalue()) if path.suffix == ".tgz" else buffer.getvalue())
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_yelp(path, path.parent / "cache")
    return str(caught.value)


@pytest.mark.parametrize("layout", ["tar", "tgz", "zip", "folder"])
def test_every_layout_reads_alike(tmp_path: Path, layout: str) -> None:
    if layout == "folder":
        path = write_folder(tmp_path / "yelp", contents())
    elif layout == "zip":
        inner = write_tar(tmp_path / "yelp_dataset.tar", contents())
        path = tmp_path / "Yelp-JSON.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(inner, "Yelp JSON/yelp_dataset.tar")
            archive.writestr("Yelp JSON/Dataset_User_Agreement.pdf", b"%PDF")
    else:
        path = write_tar(tmp_path / f"a.{layout}", contents(), folder="another name/")
    log = read_yelp(path, tmp_path / "cache")
    assert (log.name, log.clock, log.revisits) == ("yelp", True, False)
    assert log.events.to_pylist() == [
        {"row": 0, "user": REVIEW["user_id"], "item": REVIEW["business_id"], "timestamp": 1531001351000, "value": 3.0},
        {"row": 1, "user": REVIEW["user_id"], "item": "b2", "timestamp": 1108524202000, "value": 5.0},
    ]
    assert log.items is not None
    assert log.items.to_pylist() == [
        {
            "id": "XQfwVwDr-v0ZS3_CbbE5Xw",
            "title": 'Tony\'s "Best" \u00c9clairs',
            "categories": ["Bakeries", "Coffee & Tea", "Food"],
            "city": "Philadelphia",
            "state": "PA",
        },
        {"id": "b2", "title": None, "categories": [], "city": None, "state": "XMS"},
        {"id": "b3", "title": "Bare", "categories": [], "city": "Reno", "state": None},
    ]
    assert log.users is not None
    assert log.users.to_pylist() == [{"id": REVIEW["user_id"], "yelping_since": "2009-01-25 04:35:42"}]


def test_users_may_be_missing_or_empty(tmp_path: Path) -> None:
    files = contents()
    del files[USERS]
    assert read_yelp(write_tar(tmp_path / "a.tar", files), tmp_path / "cache").users is None
    users = read_yelp(write_tar(tmp_path / "b.tar", contents(user=b"")), tmp_path / "cache").users
    assert users is not None
    assert users.num_rows == 0


def test_carriage_returns_and_a_byte_order_mark(tmp_path: Path) -> None:
    files = {name: content.replace(b"\n", b"\r\n") for name, content in contents().items()}
    assert len(read_yelp(write_folder(tmp_path / "a", files), tmp_path / "cache")) == 2
    marked = write_folder(tmp_path / "b", contents(review=b"\xef\xbb\xbf" + contents()[REVIEWS]))
    assert len(read_yelp(marked, tmp_path / "cache")) == 2


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    good = contents()[REVIEWS]
    path = tmp_path / "a.tar"
    for line, said in (
        (json.dumps({**REVIEW, "user_id": None}), "line 3, column 'user_id': no usable id"),
        (json.dumps({**REVIEW, "date": "yesterday"}), "line 3, column 'date': not a date, found 'yesterday'"),
        (json.dumps({**REVIEW, "stars": "many"}), "line 3, column 'stars': not a number, found 'many'"),
        (json.dumps(REVIEW)[:-20], "line 3 is not a JSON object"),
        (json.dumps(REVIEW).replace("VcAEodg", "\udcff"), "line 3 is not UTF-8 text"),
    ):
        write_tar(path, contents(review=good + line.encode("utf-8", "surrogateescape") + b"\n"))
        assert f"{path}: {REVIEWS}, {said}" in refusal(path)
    write_tar(path, contents(business=contents()[BUSINESSES] + b'{"name": "nobody"}\n'))
    assert f"{BUSINESSES}, line 5, column 'business_id': no usable id" in refusal(path)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    files = contents()
    del files[REVIEWS]
    assert f"{REVIEWS} should be in it once, is 0 times" in refusal(write_tar(tmp_path / "a.tar", files))
    assert f"{REVIEWS} should be in it once, is 0 times" in refusal(write_folder(tmp_path / "folder", files))
    twice = tmp_path / "twice"
    twice.mkdir()
    for name in ("a", "b"):
        write_folder(twice / name, contents())
    assert f"{BUSINESSES} should be in it once, is 2 times" in refusal(twice)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(write_tar(tmp_path / "b.tar", contents()).read_bytes()[:3000])
    assert "is not a whole tar file" in refusal(cut)
    assert "cannot be read" in refusal(tmp_path / "none.tar")


def test_it_is_not_fetched_and_the_way_to_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"Yelp Open Dataset page.*seqrec data add yelp PATH"):
        load("yelp", cache=tmp_path, report=print)


def test_add_a_folder_then_a_tar(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = write_folder(tmp_path / "mine", contents() | {"yelp_academic_dataset_tip.json": b"{}"})
    added = add("yelp", folder, cache)
    assert (added.path, added.rows, added.official) == (cache / "raw" / "yelp", 2, None)
    assert sorted(file.name for file in added.path.glob("yelp*")) == sorted(LINES)
    said: list[str] = []
    assert len(load("yelp", cache=cache, report=said.append)) == 2
    assert said == [f"Reading {added.path}"]
    tar = write_tar(tmp_path / "yelp_dataset.tar", contents())
    again = add("yelp", tar, cache)
    assert (again.path, again.sha256) == (cache / "raw" / "yelp" / "yelp.tar", sha256_file(tar))
    assert sorted(file.name for file in again.path.parent.iterdir()) == ["added.json", "yelp.tar"]
    assert len(load("yelp", cache=cache, report=print)) == 2
    with pytest.raises(DataError):
        add("yelp", write_tar(tmp_path / "bad.tar", contents(review=b"[]\n")), cache)
    assert sha256_file(again.path) == again.sha256
