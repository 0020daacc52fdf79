"""Steam's two files as they are published: Python dicts, days for dates, games without an id."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from seqrec.data.interactions import Interactions
from seqrec.data.sources import steam
from seqrec.data.sources.steam import add, load
from seqrec.errors import DataError, DownloadError

REVIEWS = r"""{u'username': u'Chaos Syren', u'hours': 0.1, u'products': 41, u'product_id': u'725280', u'page_order': 0, u'date': u'2017-12-17', u'text': u'This would not be "fun".\nIt\'s \xe9\u2665 {u\'a\': 1}', u'early_access': False, u'page': 1}
{u'username': u'\u2665 Ol\xe9', u'user_id': u'76561198049955185', u'product_id': u'328100', u'date': u'2017-08-02', u'text': u'', u'compensation': u'Product received for free', u'early_access': True}
{u'username': u'Chaos Syren', u'hours': 12, u'product_id': 328100, u'date': u'2017-12-17', u'text': u"it's", u'early_access': False}
"""  # noqa: E501
GAMES = r"""{u'publisher': u'Kotoshiro', u'genres': [u'Action', u'Indie'], u'app_name': u'Lost Summoner Kitty', u'title': u'Lost &amp; Summoner \u2122', u'release_date': u'2018-01-04', u'tags': [u'Strategy', u'Action'], u'price': 4.99, u'early_access': False, u'id': u'725280', u'developer': u"Kotoshiro's", u'specs': [[u'x']]}
{u'publisher': u'no id', u'title': u'Nothing'}
{u'app_name': u'Real Pool', u'title': u'', u'release_date': u'Soon..', u'tags': [], u'price': u'Free To Play', u'id': 328100}
{u'app_name': u'Real Pool again', u'id': u'328100'}
{u'app_name': u'not reviewed', u'id': u'9'}
"""  # noqa: E501


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(cache: Path, reviews: str, games: str | None = None) -> Interactions:
    write(cache / "raw" / "steam" / "steam_reviews.json.gz", reviews)
    if games is not None:
        write(cache / "raw" / "steam" / "steam_games.json", games)
    return load("steam", cache=cache, report=lambda line: None)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_reviews_and_games(own_cache: Path, end: str) -> None:
    log = read(own_cache, REVIEWS.replace("\n", end), GAMES.replace("\n", end))
    assert (log.name, log.clock, log.revisits, log.users) == ("steam", True, False, None)
    assert log.events.to_pylist() == [
        {"row": 0, "user": "Chaos Syren", "item": "725280", "timestamp": 1513468800000, "value": 0.1},
        {"row": 1, "user": "♥ Olé", "item": "328100", "timestamp": 1501632000000, "value": None},
        {"row": 2, "user": "Chaos Syren", "item": "328100", "timestamp": 1513468800000, "value": 12.0},
    ]
    assert log.items is not None
    assert log.items.to_pylist() == [
        {
            "id": "725280",
            "title": "Lost & Summoner ™",
            "categories": ["Action", "Indie", "Strategy"],
            "year": 2018,
            "price": 4.99,
            "developer": "Kotoshiro's",
        },
        {"id": "328100", "title": "Real Pool", "categories": [], "year": None, "price": 0.0, "developer": None},
    ]
    assert not list((own_cache / "spool").iterdir())


def test_players_without_names_have_numbers(own_cache: Path) -> None:
    log = read(own_cache, "{'user_id': 'u1', 'product_id': 1, 'date': '2017-12-17'}\n")
    assert log.events.to_pylist() == [{"row": 0, "user": "u1", "item": "1", "timestamp": 1513468800000, "value": None}]
    assert log.items is None


@pytest.mark.parametrize(
    ("reviews", "message"),
    [
        ("", r"steam_reviews\.json\.gz is empty"),
        ("<html>", r"line 1: an object with username, user_id, product_id, date, hours belongs here"),
        (REVIEWS + "{u'username': open('x')}", r"steam_reviews\.json\.gz, line 4 is not a Python dict"),
        (REVIEWS + "{u'username': u'x', u'product_id': u'1'}", r"line 4, column 'date': not a date, found nothing"),
        (REVIEWS + "\n{u'username': u'x', u'date': u'2017-12-17'}", r"line 5, column 'product_id': no usable id"),
        (REVIEWS + "{u'username': u' ', u'product_id': 1, u'date': u'2017-12-17'}", r"line 4, column 'username'"),
        (REVIEWS.replace("2017-08-02", "2 August"), r"line 2, column 'date': not a date, found '2 August'"),
    ],
)
def test_lines_that_cannot_be_used_are_named(own_cache: Path, reviews: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(own_cache, reviews)
    assert not [path for path in own_cache.glob("spool/*") if path.is_dir()]


def test_hours_that_are_no_number_are_left_out(own_cache: Path) -> None:
    assert "value" not in read(own_cache, REVIEWS.replace("0.1", "u'some'")).events.column_names


def test_files_are_taken_over(own_cache: Path, tmp_path: Path) -> None:
    reviews = write(tmp_path / "mine" / "steam_reviews.json.gz", REVIEWS)
    assert add("steam", reviews, own_cache).rows == 3
    games = write(tmp_path / "mine" / "steam_games.json.gz", GAMES)
    added = add("steam", games, own_cache)
    assert (added.rows, added.official, added.path) == (3, None, own_cache / "raw" / "steam")
    log = load("steam", cache=own_cache, report=print)
    assert log.items is not None
    assert log.items.num_rows == 2


def test_what_is_not_it_leaves_the_cache_as_it_was(own_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no reviews with the games"):
        add("steam", write(tmp_path / "steam_games.json", GAMES), own_cache)
    with pytest.raises(DataError, match=r"none of the files steam_reviews\.json, steam_games\.json"):
        add("steam", write(tmp_path / "other.json", REVIEWS), own_cache)
    assert not (own_cache / "raw").exists()


def test_reviews_are_fetched_and_games_are_not_vital(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steam, "_PLACES", [tmp_path.as_uri() + "/{}.gz"])
    told: list[str] = []
    with pytest.raises(DownloadError, match="seqrec data add steam PATH"):
        load("steam", cache=own_cache, report=told.append)
    write(tmp_path / "steam_reviews.json.gz", REVIEWS)
    log = load("steam", cache=own_cache, report=told.append)
    assert replace(log, events=log.events.slice(0, 1)).items is None
    assert len(log) == 3
    assert any(line.startswith("Going on without titles. steam could not be downloaded") for line in told)
