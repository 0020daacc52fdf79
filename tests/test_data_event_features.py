"""Clock features of events, against dates worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seqrec.data.event_features import event_features
from seqrec.data.sequences import Sequences

#: Monday 1 January 2024, 00:00:00 UTC.
MONDAY = 1_704_067_200_000
HOUR, DAY = 3_600_000, 86_400_000


@pytest.fixture
def log() -> Sequences:
    sequences = Sequences.of([[1, 2, 3], [], [2, 1]], 3)
    times = np.array([MONDAY, MONDAY + 1500, MONDAY + DAY + 23 * HOUR, 0, MONDAY - 1])
    return replace(sequences, times=times)


def test_gaps_hours_and_weekdays(log: Sequences) -> None:
    found = event_features(log, np.arange(5))
    np.testing.assert_allclose(found["gap"], [np.nan, 1.5, 169198.5, np.nan, (MONDAY - 1) / 1000])
    assert found["hour"] is not None
    assert found["hour"].tolist() == [0, 0, 23, 0, 23]
    assert found["weekday"] is not None
    assert found["weekday"].tolist() == [0, 0, 1, 3, 6]
    assert found["value"] is None
    assert [found[name].dtype for name in ("gap", "hour", "weekday")] == [np.float32, np.int8, np.int8]  # type: ignore[union-attr]


def test_windows_keep_their_shape_and_padding_is_absent(log: Sequences) -> None:
    index = np.array([[1, 2, -1], [4, -1, -1]])
    found = event_features(replace(log, values=np.array([3, np.nan, 5, 1, 2], np.float32)), index)
    np.testing.assert_allclose(found["value"], [[np.nan, 5, np.nan], [2, np.nan, np.nan]])
    assert found["hour"] is not None
    assert found["hour"].tolist() == [[0, 23, -1], [23, -1, -1]]
    assert np.isnan(found["gap"]).tolist() == [[False, False, True], [False, True, True]]


def test_a_window_that_starts_late_knows_the_gap_before_it(log: Sequences) -> None:
    gap = event_features(log, np.array([2]))["gap"]
    assert gap is not None
    assert not np.isnan(gap[0])


def test_histories_that_are_cut_have_the_same_gaps(log: Sequences) -> None:
    cut = log.until(log.ends - np.array([1, 0, 1]))
    np.testing.assert_array_equal(event_features(cut, np.arange(5))["gap"], event_features(log, np.arange(5))["gap"])


def test_without_a_clock_there_is_no_time(log: Sequences) -> None:
    found = event_features(replace(log, times=None), np.arange(5))
    assert found == {"gap": None, "hour": None, "weekday": None, "value": None}
