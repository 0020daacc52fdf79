"""The three editions in the layouts of their publishers, with their oddities."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seqrec.data.interactions import Interactions
from seqrec.data.sources import amazon
from seqrec.data.sources.amazon import add, load
from seqrec.data.sources.amazon_categories import ALIASES, CATEGORIES, data_sets, names
from seqrec.errors import DataError, DownloadError, UnknownNameError
from seqrec.files import read_json
from seqrec.registry import resolve

REVIEWS = [
    {"reviewerID": "A2", "asin": "B01", "reviewText": "Good", "overall": 5.0, "unixReviewTime": 1405209600},
    {"reviewerID": "A1", "asin": "0205616461", "overall": 1.0, "unixReviewTime": 1405123200},
    {"reviewerID": "A2", "asin": "B02", "overall": 3.0, "unixReviewTime": 1405209600},
]
EVENTS = [
    {"row": 0, "user": "A2", "item": "B01", "timestamp": 1405209600000, "value": 5.0},
    {"row": 1, "user": "A1", "item": "0205616461", "timestamp": 1405123200000, "value": 1.0},
    {"row": 2, "user": "A2", "item": "B02", "timestamp": 1405209600000, "value": 3.0},
]
REVIEWS_2023 = [
    {
        "rating": review["overall"],
        "title": "of the review",
        "asin": "variant",
        "parent_asin": review["asin"],
        "user_id": review["reviewerID"],
        "timestamp": int(str(review["unixReviewTime"])) * 1000 + 7,
        "verified_purchase": True,
    }
    for review in REVIEWS
]
PRODUCTS_2014 = [
    {"asin": "B09", "title": "nobody bought it"},
    {
        "asin": "B01",
        "title": "Salt &amp; pepper",
        "price": 12.5,
        "brand": "  ",
        "categories": [["Beauty", "Hair"], ["Beauty"]],
        "description": "Salt,\n for  &lt;hair&gt;. " + "Long. " * 500,
    },
    {"asin": "B01", "title": "a second line of B01"},
    {"asin": "0205616461", "title": "", "categories": [["Bücher 📚"]], "brand": 'O\'Neil "X"', "related": {"a": ["b"]}},
    {"asin": "B02", "imUrl": "no title at all", "price": float("nan")},
]
PRODUCTS_2018 = [
    {
        "asin": "B01",
        "title": "One",
        "price": "$1,299.00",
        "brand": "by\n\n  Somebody",
        "category": ["Software", "A &amp; B", "</span>"],
        "description": ["", "Draws &amp; paints.", "Prints, too."],
    },
    {"asin": "B02", "title": "var aPageStart = (new Date()).getTime();", "price": "$5.99 - $12.99", "category": []},
    {"asin": "0205616461", "title": "Three", "price": ".a-box-inner{background-color:#fff}", "brand": None},
]
PRODUCTS_2023 = [
    {
        "parent_asin": "B01",
        "title": "One",
        "price": 8.99,
        "store": "Shop",
        "categories": ["Beauty", "Hair", "Beauty"],
        "description": ["Shines"],
    },
    {
        "parent_asin": "B02",
        "title": None,
        "price": None,
        "store": None,
        "categories": [],
        "main_category": "All Beauty",
    },
    {"parent_asin": "0205616461", "title": "Three", "price": "from 8.99", "categories": []},
]


def lines(rows: list[dict[str, Any]], write: Callable[[Any], str] = json.dumps) -> str:
    return "".join(f"{write(row)}\n" for row in rows)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(name: str, cache: Path, files: dict[str, str]) -> Interactions:
    for file, text in files.items():
        write(cache / "raw" / name / file, text)
    return load(name, cache=cache, report=lambda line: None)


def items(log: Interactions) -> dict[str, dict[str, Any]]:
    assert log.items is not None
    return {row.pop("id"): row for row in log.items.to_pylist()}


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("amazon-beauty", "reviews_Beauty_5.json.gz", lines(REVIEWS)),
        ("amazon-2014-beauty", "reviews_Beauty.json", lines(REVIEWS, repr)),
        ("amazon-sports", "ratings_Sports_and_Outdoors.csv", "user,item,5.0,time"),
        ("amazon-software", "Software_5.json.gz", lines(REVIEWS).replace("\n", "\r\n")),
        ("amazon-2018-amazon-fashion", "AMAZON_FASHION.json", "\ufeff" + lines(REVIEWS)),
        ("amazon-2018-books", "Books.csv.gz", "item,user,5.0,time"),
    ],
)
def test_the_layouts_of_2014_and_2018_give_the_same_events(own_cache: Path, name: str, file: str, text: str) -> None:
    if file.partition(".")[2].startswith("csv"):
        order = text.split(",")
        rows = [
            {"user": r["reviewerID"], "item": r["asin"], "5.0": r["overall"], "time": r["unixReviewTime"]}
            for r in REVIEWS
        ]
        text = "".join(",".join(str(row[key]) for key in order) + "\n" for row in rows)
    log = read(name, own_cache, {file: text})
    assert (log.name, log.clock, log.revisits, log.items) == (name, True, False, None)
    assert log.events.to_pylist() == EVENTS


@pytest.mark.parametrize("file", ["All_Beauty.jsonl.gz", "All_Beauty.csv.gz", "All_Beauty.csv"])
def test_the_layouts_of_2023_give_the_same_events(own_cache: Path, file: str) -> None:
    header = ("user_id", "parent_asin", "rating", "timestamp")
    csv = "".join(",".join(str(row[key]) for key in header) + "\n" for row in REVIEWS_2023)
    text = lines(REVIEWS_2023) if "jsonl" in file else ",".join(header) + "\n" + csv
    log = read("amazon-2023-all-beauty", own_cache, {file: text})
    assert log.events.to_pylist() == [{**event, "timestamp": event["timestamp"] + 7} for event in EVENTS]


def python_2(row: dict[str, Any]) -> str:
    return ascii(row).replace("'B0", "u'B0").replace("'title': '", "'title': u'")


def test_metadata_of_2014(own_cache: Path) -> None:
    files = {"reviews_Beauty_5.json.gz": lines(REVIEWS), "meta_Beauty.json.gz": lines(PRODUCTS_2014, python_2)}
    log = read("amazon-beauty", own_cache, files)
    assert log.items is not None
    assert log.items["id"].to_pylist() == ["B01", "0205616461", "B02"]
    assert items(log) == {
        "B01": {
            "title": "Salt & pepper",
            "categories": ["Beauty", "Hair"],
            "price": 12.5,
            "brand": None,
            "text": ("Salt, for <hair>. " + "Long. " * 500)[:1000].rstrip(),
        },
        "0205616461": {"title": None, "categories": ["Bücher 📚"], "price": None, "brand": 'O\'Neil "X"', "text": None},
        "B02": {"title": None, "categories": [], "price": None, "brand": None, "text": None},
    }
    assert not list((own_cache / "spool").iterdir())


def test_metadata_of_2018(own_cache: Path) -> None:
    files = {"Software_5.json.gz": lines(REVIEWS), "meta_Software.json.gz": lines(PRODUCTS_2018)}
    assert items(read("amazon-software", own_cache, files)) == {
        "B01": {
            "title": "One",
            "categories": ["Software", "A & B"],
            "price": 1299.0,
            "brand": "by Somebody",
            "text": "Draws & paints. Prints, too.",
        },
        "B02": {"title": None, "categories": [], "price": None, "brand": None, "text": None},
        "0205616461": {"title": "Three", "categories": [], "price": None, "brand": None, "text": None},
    }


def test_metadata_of_2023(own_cache: Path) -> None:
    files = {"All_Beauty.jsonl": lines(REVIEWS_2023), "meta_All_Beauty.jsonl.gz": lines(PRODUCTS_2023)}
    assert items(read("amazon-2023-all-beauty", own_cache, files)) == {
        "B01": {"title": "One", "categories": ["Beauty", "Hair"], "price": 8.99, "brand": "Shop", "text": "Shines"},
        "B02": {"title": None, "categories": ["All Beauty"], "price": None, "brand": None, "text": None},
        "0205616461": {"title": "Three", "categories": [], "price": None, "brand": None, "text": None},
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"reviews_Beauty_5.json": ""}, r"reviews_Beauty_5\.json is empty"),
        ({"reviews_Beauty_5.json": '{"user_id": 1}\n'}, r"line 1: an object with reviewerID, asin, .* found"),
        ({"reviews_Beauty_5.json": '{"reviewerID": "A"}\n'}, r"line 1, column 'asin': no usable id"),
        ({"reviews_Beauty_5.json": lines(REVIEWS) + "{"}, r"reviews_Beauty_5\.json, line 4 is not a JSON object"),
        (
            {"reviews_Beauty_5.json": lines(REVIEWS), "meta_Beauty.json": lines(PRODUCTS_2014, repr) + "{'asin"},
            r"meta_Beauty\.json, line 6 is not a Python dict",
        ),
        ({"ratings_Beauty.csv": "A,B,5.0,1405209600\nA,B,five,1405209600\n"}, r"ratings_Beauty\.csv, line 2, .*'five'"),
        ({"ratings_Beauty.csv": "B,A,5.0\n"}, r"ratings_Beauty\.csv: .*"),
        ({"reviews_Beauty.json": "{}", "reviews_Beauty_5.json.gz": "{}"}, "Leave one of them there"),
    ],
)
def test_files_that_cannot_be_used_are_named(own_cache: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read("amazon-beauty", own_cache, files)


def test_a_cut_file_is_named(own_cache: Path) -> None:
    whole = write(own_cache / "raw" / "amazon-beauty" / "reviews_Beauty_5.json.gz", lines(REVIEWS * 1000))
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"reviews_Beauty_5\.json\.gz cannot be read beyond line \d+"):
        load("amazon-beauty", cache=own_cache, report=lambda line: None)


def test_a_core_of_another_size_than_published_is_told(own_cache: Path) -> None:
    write(own_cache / "raw" / "amazon-beauty" / "reviews_Beauty_5.json", lines(REVIEWS))
    told: list[str] = []
    load("amazon-beauty", cache=own_cache, report=told.append)
    assert told == ["reviews_Beauty_5.json has 3 reviews; the published 5-core has 198,502"]


def test_a_folder_or_a_file_is_taken_over(own_cache: Path, tmp_path: Path) -> None:
    reviews = write(tmp_path / "mine" / "Software_5.json.gz", lines(REVIEWS))
    added = add("amazon-software", reviews, own_cache)
    assert (added.rows, added.official, added.path.name) == (3, None, "Software_5.json.gz")
    write(tmp_path / "mine" / "meta_Software.json", lines(PRODUCTS_2018))
    write(tmp_path / "mine" / "notes.txt", "mine")
    assert add("amazon-software", tmp_path / "mine" / "meta_Software.json", own_cache).rows == 3
    assert read_json(own_cache / "raw" / "amazon-software" / "added.json")["rows"] == 3
    log = load("amazon-software", cache=own_cache, report=lambda line: None)
    assert (len(log), len(items(log))) == (3, 3)
    assert add("amazon-software", tmp_path / "mine", own_cache).rows == 3


def test_what_is_not_it_leaves_the_cache_as_it_was(own_cache: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "Books_5.json.gz", lines(REVIEWS))
    with pytest.raises(DataError, match=r"none of the files Software_5\.json, Software\.json, Software\.csv, meta_"):
        add("amazon-software", other, own_cache)
    meta = write(tmp_path / "meta_Software.json", lines(PRODUCTS_2018))
    with pytest.raises(DataError, match="no reviews with the metadata"):
        add("amazon-software", meta, own_cache)
    with pytest.raises(DataError, match="line 1"):
        add("amazon-software", write(tmp_path / "Software_5.json", "nothing with asin"), own_cache)
    assert not (own_cache / "raw").exists()


def test_files_are_fetched_where_they_are_published(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "site" / "Software_5.json.gz", lines(REVIEWS))
    write(tmp_path / "site" / "meta_Software.json.gz", lines(PRODUCTS_2018))
    here = (tmp_path / "site").as_uri()
    edition = amazon._EDITIONS[2018]
    local = replace(edition, events_urls=[here + "/{}_5.json.gz"], metadata_urls=[here + "/meta_{}.json.gz"])
    monkeypatch.setitem(amazon._EDITIONS, 2018, local)
    told: list[str] = []
    assert len(items(load("amazon-software", cache=own_cache, report=told.append))) == 3
    assert "Downloading Software_5.json.gz of amazon-software" in told
    (tmp_path / "site" / "meta_Software.json.gz").unlink()
    assert load("amazon-2018-software", cache=own_cache, report=told.append).items is None
    assert any(
        line.startswith("Going on without titles. amazon-2018-software could not be downloaded") for line in told
    )
    (tmp_path / "site" / "Books_5.json.gz").write_bytes(b"<html>Log in</html>")
    with pytest.raises(
        DownloadError, match=r"Books_5\.json\.gz is no gzip file.*seqrec data add amazon-2018-books PATH"
    ):
        load("amazon-2018-books", cache=own_cache, report=told.append)
    assert not list((own_cache / "raw" / "amazon-2018-books").iterdir())


def test_every_name_leads_to_the_reader() -> None:
    entries = names()
    assert len(entries) == sum(map(len, CATEGORIES.values())) + len(ALIASES) == 24 + 29 + 34 + 4
    assert all(resolve("data set", name, entries) is load for name in entries)
    assert data_sets()["amazon-toys"] == (2014, "Toys_and_Games")
    assert data_sets()["amazon-2023-cds-and-vinyl"] == (2023, "CDs_and_Vinyl")


def test_an_unknown_name_gets_the_nearest(own_cache: Path) -> None:
    with pytest.raises(UnknownNameError, match="'amazon-2014-beauty'"):
        load("amazon-2014-beuty", cache=own_cache, report=print)


def test_listing_names_loads_nothing_heavy() -> None:
    check = "import sys, seqrec.data.sources.amazon_categories as a; a.names(); print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
