"""Numbers of a data report against counting by hand, one event at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import seqrec
from seqrec.analysis.data_report import _lengths, _popularity, data_report
from seqrec.data.config import DataConfig
from seqrec.data.interactions import Interactions, encode_ids
from seqrec.data.prepare import prepare
from seqrec.data.prepared import PreparedData

#: 1 January 2024, 00:00:00 UTC, in milliseconds: a Monday.
START = 1_704_067_200_000
DAY = 86_400_000


def prepared(folder: Path, events: list[tuple[str, str, int]], name: str = "log", clock: bool = True) -> PreparedData:
    users, items, times = zip(*events, strict=True)
    columns = {"row": pa.array(range(len(events)), pa.int64()), "user": encode_ids(pa.array(users)),
               "item": encode_ids(pa.array(items)), "timestamp": pa.array(times, pa.int64())}  # fmt: skip
    return prepare(Interactions(name, pa.table(columns), clock=clock), DataConfig(k_core=0), folder / "prepared")


#: x repeats, z is cold in b's test, a's test is tied.
EVENTS = [
    ("a", "x", START), ("a", "y", START), ("a", "x", START + 30_000), ("a", "y", START + DAY), ("a", "x", START + DAY),
    ("b", "y", START), ("b", "x", START + 2 * DAY), ("b", "z", START + 9 * DAY),
]  # fmt: skip


def test_it_is_what_counting_by_hand_gives(tmp_path: Path) -> None:
    report = data_report(prepared(tmp_path, EVENTS), order=False)
    assert asdict(report.lengths) == {"names": ("3-4", "5-9"), "counts": (1, 1)}
    assert report.fewer[:3] == ((2, 0, 1), (3, 0, 1), (5, 1, 3))
    assert report.repeats == 3 / 8
    assert report.ties == 2 / 8
    assert report.gaps is not None
    assert report.gaps.median == pytest.approx(float(np.median([30, 86_370, 2 * 86_400, 7 * 86_400])))
    bars = zip(report.gaps.bars.names, report.gaps.bars.counts, strict=True)
    assert {name: count for name, count in bars if count} == {
        "same time": 2, "under 1 min": 1, "6-24 h": 1, "1-7 days": 1, "7-30 days": 1,
    }  # fmt: skip
    validation, test = report.targets
    assert (validation.cases, validation.cold, validation.repeated, validation.tied) == (2, 0, 0.5, 0)
    assert (test.cases, test.cold, test.repeated, test.tied) == (2, 0.5, 0.5, 0.5)
    assert report.coverage is not None
    assert report.coverage.unit == "day"
    assert (report.coverage.bars.names[0], report.coverage.bars.names[-1]) == ("2024-01-01", "2024-01-10")
    assert report.coverage.bars.counts == (4, 2, 1, 0, 0, 0, 0, 0, 0, 1)


def test_without_a_clock_nothing_is_said_about_time(tmp_path: Path) -> None:
    report = data_report(prepared(tmp_path, EVENTS, clock=False), order=False)
    assert (report.ties, report.coverage, report.gaps) == (None, None, None)
    assert [part.tied for part in report.targets] == [0, 0.5]  # numbers that only order may be equal, too
    assert report.repeats == 3 / 8


def test_all_of_it_is_json(small_log: Path) -> None:
    report = data_report(seqrec.load_data(small_log, user="uid", item="iid", time="ts"))
    said = json.loads(json.dumps(asdict(report), allow_nan=False))
    assert sum(said["lengths"]["counts"]) == said["facts"]["users"]
    assert sum(said["coverage"]["bars"]["counts"]) == said["facts"]["events"]
    assert said["order"]["cases"] == said["targets"][0]["cases"]


@given(st.lists(st.integers(1, 2_000_000), min_size=1, max_size=30))
def test_every_length_is_in_the_bin_that_names_it(lengths: list[int]) -> None:
    bars = _lengths(np.array(lengths))
    assert sum(bars.counts) == len(lengths)
    for name, count in zip(bars.names, bars.counts, strict=True):
        low, _, high = name.replace(",", "").partition("-")
        assert count == sum(int(low) <= length <= int(high or low) for length in lengths)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40).filter(any))
def test_gini_is_the_mean_difference(counts: list[int]) -> None:
    found = _popularity(np.array(counts))
    differences = np.abs(np.subtract.outer(counts, counts)).mean()
    assert found.gini == pytest.approx(differences / (2 * np.mean(counts)), abs=1e-9)
    assert found.curve[0] == (0, 0)
    assert found.curve[-1] == pytest.approx((1, 1))
    for share, held in found.top:
        assert held == pytest.approx(sum(sorted(counts)[::-1][: round(share * len(counts))]) / sum(counts))


def test_the_report_needs_numpy_and_torch_only(small_log: Path) -> None:
    folder = seqrec.load_data(small_log, user="uid", item="iid", time="ts").folder
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('pyarrow', 'duckdb', 'rich', 'matplotlib')))\n"
        "import seqrec; from seqrec.analysis.data_report import data_report\n"
        f"print(data_report(seqrec.load_data({str(folder)!r})).order.cases)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "40", done.stderr
