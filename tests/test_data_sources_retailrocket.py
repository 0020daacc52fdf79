"""RetailRocket's layout: kinds of events, categories that change, and files that lack."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from seqrec.data.sources.retailrocket import EVENTS, PROPERTIES, TREE, add, load, read_retailrocket
from seqrec.errors import DataError, DownloadError, UnknownNameError

FILES = {
    EVENTS: (
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n1433224214164,992329,view,248676,\n"
        "1433221999827,111016,transaction,318965,4000\n1433221955914,483717,addtocart,318965,\n"
        "1433221332117,257597,view,355908,\n"
    ),
    PROPERTIES[0]: (
        "timestamp,itemid,property,value\n"
        "1435460400000,355908,categoryid,1338\n1441508400000,206783,888,1116713 960601 n277.200\n"
        "1433041200000,318965,categoryid,209\n1433041200000,248676,available,1\n"
    ),
    PROPERTIES[
        1
    ]: "timestamp,itemid,property,value\n1433041200000,355908,categoryid,7\n1436065200000,318965,categoryid,5\n",
    TREE: "categoryid,parentid\n1338,213\n213,94\n94,\n5,6\n6,5\n",
}


def write(path: Path, files: dict[str, str]) -> Path:
    """The zip, or a folder where the path has no suffix."""
    if not path.suffix:
        path.mkdir()
        for name, text in files.items():
            (path / name).write_text(text, newline="")
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(f"any/{name}", text)
    return path


def refusal(path: Path, name: str = "retailrocket") -> str:
    with pytest.raises(DataError) as caught:
        read_retailrocket(name, path, path.parent / "cache")
    return str(caught.value)


@pytest.mark.parametrize("layout", ["archive.zip", "folder"])
def test_views_and_buys(tmp_path: Path, layout: str) -> None:
    path = write(tmp_path / layout, FILES)
    log = read_retailrocket("retailrocket", path, tmp_path / "cache")
    assert (log.name, log.clock, log.revisits, log.users) == ("retailrocket", True, True, None)
    assert log.events.to_pylist() == [
        {"row": 0, "user": "257597", "item": "355908", "timestamp": 1433221332117},
        {"row": 1, "user": "992329", "item": "248676", "timestamp": 1433224214164},
        {"row": 4, "user": "257597", "item": "355908", "timestamp": 1433221332117},
    ]
    assert log.codes("item")[1] == ["355908", "248676"]
    assert log.items is not None
    assert log.items.to_pylist() == [
        {"id": "318965", "categories": ["6", "5"]},  # the last of two, in a tree that goes round
        {"id": "355908", "categories": ["94", "213", "1338"]},  # the last is in the first file
    ]
    buys = read_retailrocket("retailrocket-buys", path, tmp_path / "cache")
    assert buys.events.to_pylist() == [{"row": 2, "user": "111016", "item": "318965", "timestamp": 1433221999827}]


def test_properties_and_tree_may_lack(tmp_path: Path) -> None:
    bare = read_retailrocket("retailrocket", write(tmp_path / "a.zip", {EVENTS: FILES[EVENTS]}), tmp_path / "cache")
    assert bare.items is None
    files = {name: text for name, text in FILES.items() if name not in (TREE, PROPERTIES[1])}
    items = read_retailrocket("retailrocket", write(tmp_path / "b.zip", files), tmp_path / "cache").items
    assert items is not None
    assert items["categories"].to_pylist() == [["209"], ["1338"]]
    empty = FILES | dict.fromkeys(PROPERTIES, "timestamp,itemid,property,value\n")
    none = read_retailrocket("retailrocket", write(tmp_path / "c.zip", empty), tmp_path / "cache").items
    assert none is not None
    assert none.num_rows == 0


def test_carriage_returns_and_a_byte_order_mark(tmp_path: Path) -> None:
    files = {name: "\ufeff" + text.replace("\n", "\r\n") for name, text in FILES.items()}
    log = read_retailrocket("retailrocket", write(tmp_path / "a.zip", files), tmp_path / "cache")
    assert len(log) == 3
    assert log.items is not None
    assert log.items["categories"].to_pylist() == [["6", "5"], ["94", "213", "1338"]]


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    write(path, FILES | {EVENTS: FILES[EVENTS] + "soon,1,view,2,\n"})
    assert f"{path}: any/{EVENTS}, line 7, column 'timestamp': not a time, found 'soon'" in refusal(path)
    write(path, FILES | {EVENTS: FILES[EVENTS] + "1433221332117,1,view,,\n"})
    assert f"{EVENTS}, line 7, column 'itemid': no usable id" in refusal(path)
    write(path, FILES | {EVENTS: FILES[EVENTS].replace("transaction,", "purchase,")})
    said = refusal(path, "retailrocket-buys")
    assert "column 'event': no 'transaction' in it" in said
    assert "found view, purchase, addtocart" in said
    write(path, FILES | {EVENTS: FILES[EVENTS].replace("visitorid", "visitor")})
    assert "no column 'visitorid'. Did you mean 'visitor'?" in refusal(path)
    write(path, {TREE: FILES[TREE]})
    assert f"{EVENTS} should be in it once, is 0 times" in refusal(path)


def test_it_is_not_fetched_and_the_way_to_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"on Kaggle, then run: seqrec data add retailrocket PATH"):
        load("retailrocket", cache=tmp_path, report=print)
    with pytest.raises(UnknownNameError, match="Did you mean 'retailrocket-buys'"):
        load("retailrocket-buy", cache=tmp_path, report=print)


def test_one_zip_serves_both_names(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    added = add("retailrocket", write(tmp_path / "archive.zip", FILES), cache)
    assert (added.path.name, added.rows, added.official) == ("retailrocket.zip", 3, None)
    assert len(load("retailrocket", cache=cache, report=print)) == 3
    assert len(load("retailrocket-buys", cache=cache, report=print)) == 1
