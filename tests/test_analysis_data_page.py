"""One file, nothing to load, nothing that a name in the data could do to it."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import seqrec
from seqrec.analysis.data_page import render, write_html
from seqrec.analysis.data_report import DataReport, data_report
from seqrec.errors import MissingExtraError

HOSTILE = '<script>alert("$x$")</script> & \' Ωあ'
EMPTY_ELEMENTS = {"meta", "br", "hr"}


class Reader(HTMLParser):
    """What a browser would find: elements that close, ids, links, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> DataReport:
    from conftest import write_small_log

    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQREC_CACHE", str(folder / "cache"))
        log = write_small_log(folder / "log.csv")
        return data_report(seqrec.load_data(log, user="uid", item="iid", time="ts"))


@pytest.fixture(scope="module")
def page(report: DataReport) -> str:
    pytest.importorskip("matplotlib")
    return render(replace(report, name=HOSTILE))


def test_a_hostile_name_is_text(page: str) -> None:
    reader = Reader(page)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert f"Data: {HOSTILE}" in reader.text


def test_nothing_is_loaded(page: str) -> None:
    reader = Reader(page)
    assert not {"link", "img", "iframe", "script", "object", "base"} & {tag for tag, _ in reader.tags}
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href"):
                assert (value or "").startswith("#")
    assert not re.search(r"url\((?!#)|@import", page)
    policy = [
        attributes for tag, attributes in reader.tags if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_ids_are_unique_and_what_is_pointed_at_is_there(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)) <= {(i, "") for i in ids} | {("", i) for i in ids}


def test_figures_are_svg_with_words_instead_and_page_colours(page: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(figures) == 5
    for figure in figures:
        root = ET.fromstring(figure)
        assert root.get("role") == "img"
        assert len(root.get("aria-label") or "") > 20
        assert "var(--accent)" in figure
        assert not re.findall(r"#0102\d\d", figure)
        assert not root.findall(".//{*}metadata")


def test_tables_have_captions_and_scopes_and_headings_have_an_order(page: str) -> None:
    reader = Reader(page)
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("table") == tags.count("caption") >= 7
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in reader.tags if tag == "th")
    assert [tag for tag in tags if re.fullmatch(r"h\d", tag)] == ["h1", *["h2"] * 5]
    assert "prefers-color-scheme: dark" in page


def test_what_is_not_known_is_said(report: DataReport) -> None:
    pytest.importorskip("matplotlib")
    text = render(replace(report, coverage=None, gaps=None, ties=None, order=None))
    assert "This log has no clock times" in text
    assert "How sequential" not in text


def test_it_is_written_whole_and_the_same_each_time(report: DataReport, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("one.html", "two.html"):
        write_html(report, tmp_path / "new" / name)
    assert (tmp_path / "new/one.html").read_bytes() == (tmp_path / "new/two.html").read_bytes()
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_without_matplotlib_the_remedy_is_said(
    report: DataReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'pip install "seqrec\[figures\]"'):
        write_html(report, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
