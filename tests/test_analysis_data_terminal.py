"""What a terminal shows: the numbers, bars of the right length, and ASCII alone where it is asked for."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import seqrec
from seqrec.analysis.data_report import DataReport, data_report
from seqrec.analysis.data_terminal import BAR, COLUMNS, bar, heights, terminal
from seqrec.analysis.wording import duration, share


@pytest.fixture
def report(small_log: Path) -> DataReport:
    return data_report(seqrec.load_data(small_log, user="uid", item="iid", time="ts"))


def shown(report: DataReport, plain: bool = False, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    for part in terminal(report, plain):
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_all_numbers_are_there(report: DataReport) -> None:
    text = shown(report)
    for row in report.order.rows if report.order else ():
        assert f"{row.ndcg:.4f}" in text
    for title in (
        "Users by number of events",
        "most popular items",
        "Time, 2020-09-13",
        "neighbouring events",
        "Targets",
    ):
        assert title in text
    assert "█" in text


def test_plain_is_ascii(report: DataReport) -> None:
    text = shown(report, plain=True)
    assert text.isascii()
    assert "####" in text


def test_it_fits_a_narrow_terminal(report: DataReport) -> None:
    assert max(map(len, shown(report, width=80).splitlines())) <= 80


def test_what_is_not_known_is_left_out(report: DataReport) -> None:
    text = shown(replace(report, coverage=None, gaps=None, ties=None, order=None))
    assert "Time" not in text
    assert "sequential" not in text


@pytest.mark.parametrize(
    ("part", "length", "last"), [(1, BAR, "█"), (0.5, BAR // 2, "█"), (0, 0, ""), (1 / 240, 1, "▏")]
)
def test_bars(part: float, length: int, last: str) -> None:
    assert (len(bar(part)), bar(part)[-1:]) == (length, last)
    assert bar(1, plain=True) == "#" * BAR


def test_columns_are_added_up_where_there_are_too_many() -> None:
    assert heights([0, 1, 1000]) == " ▁█"
    assert heights([0, 1, 1000], plain=True) == " .@"
    assert heights([0]) == " "
    assert len(heights(list(range(1000)))) <= COLUMNS


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (37, "37 s"), (90, "1.5 min"), (7200, "2 h"), (2e6, "23.1 days")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0.0%"), (0.446, "44.6%"), (0.0007, "0.07%"), (1, "100.0%")])
def test_shares(value: float, text: str) -> None:
    assert share(value) == text
