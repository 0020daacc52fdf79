"""RecBole's atomic files: typed headers, side tables, and the real ML-100K."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from seqrec.data.sources.recbole import read_recbole
from seqrec.errors import DataError

REAL = Path(os.environ.get("SEQREC_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t10\t3\t964982703\n1\t11\t4.5\t964982704\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\textra:float_seq\n"
    '10\t"Heat", or not\t1995\tAction Sci-Fi\t1 2\n'
    "11\tCafé: au lait \tV\t\t\n"
    "12\t\t1996.0\tDrama\t\n"
    "12\tTwice\t1997\tDrama\t\n"
)
USER = "user_id:token\tage:token\tgender:token\n1\t24\tM\n2\t\tF\n"


def write(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for suffix, text in texts.items():
        (folder / f"log.{suffix}").write_text(text, encoding="utf-8")
    return folder


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_recbole(path, **options)
    return str(caught.value)


def test_a_folder_of_atomic_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", inter=INTER, item=ITEM, user=USER)
    log = read_recbole(folder)
    assert log.name == "log"
    assert log.clock
    assert log.events.select(["row", "user", "item", "timestamp", "value"]).to_pylist() == [
        {"row": 0, "user": "1", "item": "10", "timestamp": 964982703000, "value": 3.0},
        {"row": 1, "user": "1", "item": "11", "timestamp": 964982704000, "value": 4.5},
    ]
    assert log.items is not None
    assert log.items.to_pylist() == [
        {"id": "10", "title": '"Heat", or not', "categories": ["Action", "Sci-Fi"], "year": 1995},
        {"id": "11", "title": "Café: au lait", "categories": [], "year": None},
        {"id": "12", "title": None, "categories": ["Drama"], "year": 1996},
    ]
    assert log.items.schema.field("year").type == pa.int32()
    assert log.items.schema.field("categories").type == pa.list_(pa.string())
    assert log.users is not None
    assert log.users.to_pylist() == [{"id": "1", "age": "24", "gender": "M"}, {"id": "2", "age": None, "gender": "F"}]
    for path in (folder / "log", folder / "log.inter"):
        assert read_recbole(path).fingerprint() == log.fingerprint()


def test_only_interactions_and_other_names(tmp_path: Path) -> None:
    text = "session:token\ttrack:token\tat:float\n1\t10\t964982703\n"
    log = read_recbole(write(tmp_path, inter=text), user="session", item="track", time="at", name="music")
    assert (log.name, log.items, log.users) == ("music", None, None)
    assert "value" not in log.events.column_names
    by_row = read_recbole(tmp_path, user="session", item="track", time=None)
    assert not by_row.clock


def test_titles_by_other_names_and_whole_categories(tmp_path: Path) -> None:
    item = (
        "item_id:token\tname:token\tcategory:token\tdescription:token_seq\n"
        "10\tA game\tRole playing\tA hero walks\n11\tOther\t\t\n"
    )
    log = read_recbole(write(tmp_path, inter=INTER, item=item))
    assert log.items is not None
    assert log.items.to_pylist() == [
        {"id": "10", "title": "A game", "categories": ["Role playing"], "text": "A hero walks"},
        {"id": "11", "title": "Other", "categories": [], "text": None},
    ]


def test_what_cannot_be_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", inter=INTER.replace("964982704", "soon"))
    assert f"{folder / 'log.inter'}, line 3, column 'timestamp': not a time, found 'soon'" in refusal(folder)
    assert "no column 'when'. Columns found: user_id, item_id, rating, timestamp" in refusal(folder, time="when")
    write(folder, inter=INTER.replace("4.5", "good"))
    assert "line 3, column 'rating': not a number, found 'good'" in refusal(folder)
    write(folder, inter=INTER.replace("rating:float", "rating"))
    assert "line 1: column 'rating' has no type" in refusal(folder)
    write(folder, inter=INTER.replace(":float", ":number"))
    assert "name:type" in refusal(folder)
    write(folder, inter=INTER + "1\t12\n")
    assert "Line: 4" in refusal(folder)
    write(folder, inter=INTER, item=ITEM.replace("11\t", "\t"))
    assert "log.item, line 3, column 'item_id'" in refusal(folder)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert "found none" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "log")
    write(tmp_path, inter=INTER)
    (tmp_path / "more.inter").write_text(INTER)
    assert "found log.inter, more.inter" in refusal(tmp_path)
    assert len(read_recbole(tmp_path / "more")) == 2


def test_a_log_in_three_parts(tmp_path: Path) -> None:
    header, first, second = INTER.splitlines(keepends=True)
    parts = {"train": header + first, "valid": header + second, "test": header + "2\t10\t1\t964982705\n"}
    for part, text in parts.items():
        (tmp_path / f"log.{part}.inter").write_text(text)
    write(tmp_path, item=ITEM)
    for path in (tmp_path, tmp_path / "log"):
        log = read_recbole(path)
        assert log.name == "log"
        assert log.items is not None
        assert log.events.select(["row", "user", "item", "timestamp", "value"]).to_pylist() == [
            {"row": 0, "user": "1", "item": "10", "timestamp": 964982703000, "value": 3.0},
            {"row": 1, "user": "1", "item": "11", "timestamp": 964982704000, "value": 4.5},
            {"row": 2, "user": "2", "item": "10", "timestamp": 964982705000, "value": 1.0},
        ]
        assert log.codes("item")[1] == ["10", "11"]
    assert read_recbole(tmp_path, time=None).timestamps().tolist() == [0, 1, 2]
    assert len(read_recbole(tmp_path / "log.valid.inter")) == 1
    write(tmp_path, inter=INTER)
    assert len(read_recbole(tmp_path)) == 2, "the whole log is there: it is the log"


def test_parts_with_whole_histories_are_no_log(tmp_path: Path) -> None:
    text = "user_id:token\titem_id:token\titem_id_list:token_seq\n1\t10\t11 12\n"
    for part in ("train", "valid", "test"):
        (tmp_path / f"log.{part}.inter").write_text(text)
    assert f"{tmp_path / 'log.train.inter'}: its rows hold whole histories (item_id_list)" in refusal(tmp_path)
    assert "log.inter" in refusal(tmp_path)


@pytest.mark.skipif(not (REAL / "ml-100k").is_dir(), reason="the real data are not here")
def test_the_real_ml_100k() -> None:
    log = read_recbole(REAL / "ml-100k")
    users, items = log.codes("user")[1], log.codes("item")[1]
    assert (len(log), len(users), len(items)) == (100_000, 943, 1682)
    assert log.events.slice(0, 1).to_pylist() == [
        {"row": 0, "user": "196", "item": "242", "timestamp": 881250949000, "value": 3.0}
    ]
    assert log.items is not None
    assert log.items.slice(0, 1).to_pylist() == [
        {"id": "1", "title": "Toy Story", "categories": ["Animation", "Children's", "Comedy"], "year": 1995}
    ]
    assert log.users is not None
    assert log.users.column_names == ["id", "age", "gender", "occupation", "zip_code"]
