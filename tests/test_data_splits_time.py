"""The other splits against slow ones in plain Python, and leak checks that catch every leak that is built in."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from histories import TIMED, History, N, sequences_of, small_blocks
from seqrec.data.config import DataConfig, milliseconds
from seqrec.data.sequences import Cases, Sequences
from seqrec.data.splits import (
    Split,
    cases_between,
    last_session,
    leave_one_out,
    new_users,
    ratio,
    refuse_leaks,
    split_by,
    temporal,
)
from seqrec.errors import ConfigError, DataError

TARGETS = st.sampled_from(["last", "successive", "all"])
MINUTE = 60_000
#: user, places of the history that is shown, place of the target
Case = tuple[int, int, int]


def asked(sequences: Sequences, cases: Cases) -> list[Case]:
    starts = sequences.starts[cases.users]
    columns = cases.users, cases.ends - starts, cases.positions - starts
    return list(zip(*(column.tolist() for column in columns), strict=True))


def slow_cases(user: int, low: int, high: int, targets: str) -> list[Case]:
    """What is asked of places low..high - 1 of one history."""
    found = []
    for place in range(low, high):
        shown = low if targets == "all" else place
        if shown > 0 and (targets != "last" or place == high - 1):
            found.append((user, shown, place))
    return found


def check(sequences: Sequences, split: Split, bounds: list[tuple[int, int, int]], targets: str) -> None:
    """`bounds`: of each user where validation and test begin and the history ends, as places."""
    refuse_leaks(split, sequences)
    assert (split.train_ends - sequences.starts).tolist() == [first for first, _, _ in bounds]
    for cases, span in ((split.validation, (0, 1)), (split.test, (1, 2))):
        expected = [
            case
            for user, bound in enumerate(bounds)
            for case in slow_cases(user, bound[span[0]], bound[span[1]], targets)
        ]
        assert asked(sequences, cases) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TIMED, st.integers(0, 20), st.integers(1, 10), TARGETS)
@pytest.mark.parametrize("block", [1, 1000])
def test_in_time(
    monkeypatch: pytest.MonkeyPatch, block: int, histories: list[History], first: int, wait: int, targets: str
) -> None:
    small_blocks(monkeypatch, block)
    sequences, moments = sequences_of(histories), (first, first + wait)
    dates = [f"1970-01-01T00:00:00.{moment:03d}" for moment in moments]
    split = temporal(sequences, dates[0], dates[1], targets)
    bounds = [
        (*(sum(time < moment for _, time in history) for moment in moments), len(history)) for history in histories
    ]
    check(sequences, split, bounds, targets)
    assert split.moments == {"validation_from": moments[0], "test_from": moments[1]}


def test_a_quantile_is_one_of_all_events() -> None:
    sequences = sequences_of([[(1, time) for time in range(0, 100, 2)], [(2, time) for time in range(1, 100, 2)]])
    split = temporal(sequences, 0.8, 0.9, "successive")
    assert split.moments == {"validation_from": 80, "test_from": 90}
    assert (len(split.validation), len(split.test)) == (10, 10)
    assert "validation from 1970-01-01T00:00:00, test from 1970-01-01T00:00:00" in split.words


@given(TIMED, st.floats(0.05, 0.45), st.floats(0.05, 0.45), TARGETS)
def test_by_ratio(histories: list[History], validation: float, test: float, targets: str) -> None:
    sequences = sequences_of(histories)
    bounds = []
    for history in histories:
        tested, validated = int(len(history) * test + 0.5), int(len(history) * validation + 0.5)
        second = len(history) - tested
        bounds.append((max(second - validated, 0), second, len(history)))
    check(sequences, ratio(sequences, (validation, test), targets), bounds, targets)


@given(TIMED, st.integers(0, 5), TARGETS)
def test_by_last_session(histories: list[History], gap: int, targets: str) -> None:
    spread = [[(item, time * MINUTE) for item, time in history] for history in histories]
    sequences = sequences_of(spread)
    bounds = []
    for history in spread:
        opens = [p for p in range(len(history)) if p == 0 or history[p][1] - history[p - 1][1] > gap * MINUTE]
        enough = len(opens) >= 3
        bounds.append((opens[-2], opens[-1], len(history)) if enough else (len(history),) * 3)
    check(sequences, last_session(sequences, gap, targets), bounds, targets)


@given(TIMED, st.sampled_from(["last", "successive"]))
def test_by_new_users(histories: list[History], targets: str) -> None:
    sequences, names = sequences_of(histories), [f"u{user}" for user in range(len(histories))]
    split = new_users(sequences, names, (0.3, 0.3), targets)
    refuse_leaks(split, sequences)
    place = [int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64 for name in names]
    part = ["test" if p < 0.3 else "validation" if p < 0.6 else "train" for p in place]
    kept = [len(history) if part[user] == "train" else 0 for user, history in enumerate(histories)]
    assert (split.train_ends - sequences.starts).tolist() == kept
    for name, cases in (("validation", split.validation), ("test", split.test)):
        expected = [
            case
            for user, history in enumerate(histories)
            if part[user] == name
            for case in slow_cases(user, 0, len(history), targets)
        ]
        assert asked(sequences, cases) == expected


def test_new_users_are_the_same_in_a_larger_log() -> None:
    small, large = ([f"u{user}" for user in range(size)] for size in (50, 500))
    parts = []
    for names in (small, large):
        sequences = sequences_of([[(1, 0), (2, 1)]] * len(names))
        parts.append({names[user] for user in new_users(sequences, names, (0.2, 0.2), "last").test.users})
    assert parts[0] == parts[1] & set(small)
    assert 60 < len(parts[1]) < 140


def test_all_needs_a_moment() -> None:
    with pytest.raises(ConfigError, match="needs a moment"):
        new_users(sequences_of([[(1, 1)]]), ["u"], (0.1, 0.1), "all")


LONG = [[(item, 10 * item) for item in range(1, N + 1)], [(item, 10 * item + 1) for item in range(1, N + 1)]]
LEAKS: dict[str, Any] = {
    "was trained on": lambda split, s: replace(split, train_ends=s.ends.copy()),
    "stands in the history that is shown": lambda split, s: replace(
        split, test=replace(split.test, history_ends=split.test.positions + 1)
    ),
    "comes after the test began": lambda split, s: replace(split, validation=split.test),
    "lies outside its history": lambda split, s: replace(
        split, validation=Cases(split.validation.users[::-1].copy(), split.validation.positions)
    ),
    "happened before its part began": lambda split, s: replace(
        split, moments={**split.moments, "test_from": split.moments["test_from"] + 10}
    ),
    "shown what happened after the cut": lambda split, s: replace(
        split, test=replace(split.test, history_ends=split.test.positions - 1)
    ),
    "shown an empty history": lambda split, s: replace(
        split, test=replace(split.test, history_ends=s.starts[split.test.users])
    ),
    "ends outside a history": lambda split, s: replace(split, train_ends=s.starts - 1),
    "happened after the test began": lambda split, s: Split(
        split.train_ends, split.test, split.test.take(np.zeros(0, int)), split.words, split.moments
    ),
    "something trains that happened after validation began": lambda split, s: replace(
        split, moments={**split.moments, "validation_from": 20}
    ),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_leaks_are_found(leak: str) -> None:
    sequences = sequences_of(LONG)
    split = temporal(sequences, "1970-01-01T00:00:00.025", "1970-01-01T00:00:00.040", "successive")
    refuse_leaks(split, sequences)
    with pytest.raises(DataError, match=f"The split leaks.*{leak}"):
        refuse_leaks(LEAKS[leak](split, sequences), sequences)


@given(TIMED)
def test_leave_one_out_does_not_leak(histories: list[History]) -> None:
    sequences = sequences_of(histories)
    refuse_leaks(leave_one_out(sequences), sequences)


@given(TIMED, TARGETS)
def test_cases_of_nothing(histories: list[History], targets: str) -> None:
    sequences = sequences_of(histories)
    assert len(cases_between(sequences, sequences.ends, sequences.ends, targets)) == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"split": "temporal"}, "needs clock times"),
        ({"split": "last_session"}, "sessions need clock times"),
    ],
)
def test_without_a_clock_there_is_no_split_in_time(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        split_by(replace(sequences_of(LONG), times=None), ["a", "b"], DataConfig(**settings))


def test_moments_that_make_no_sense_are_said() -> None:
    sequences = sequences_of(LONG)
    with pytest.raises(ConfigError, match=r"validation_from 2001-01-01 is not before test_from 2000-01-01"):
        temporal(sequences, "2001-01-01", "2000-01-01", "last")
    with pytest.raises(ConfigError, match=r"data.validation_from: not a date: .*'yesterday'"):
        DataConfig.parse({"validation_from": "yesterday"}, "data.")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"targets": "all"}, "leave_one_out asks for the last event"),
        ({"holdout": (0.5, 0.6)}, "leave something to train on"),
        ({"validation_from": 0.9, "test_from": 0.8}, "validation_from comes before test_from"),
        ({"histories": "sessions"}, "sessions need session_gap"),
        ({"split": "random"}, "leave_one_out"),
        ({"test_from": 1.5}, "lies between 0 and 1"),
        ({"since": "nonsense"}, r"data\.since: not a date"),
        ({"since": "2020-01-01", "until": "2019-01-01"}, "since comes before until"),
        ({"histories": "sessions", "session_gap": 30, "split": "last_session"}, "needs people as histories"),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DataConfig.parse(settings, "data.")


def test_a_share_may_be_written_as_text() -> None:
    assert DataConfig.parse({"validation_from": "0.7", "test_from": "0.85"}).validation_from == 0.7


def test_dates_are_utc_unless_they_say_otherwise() -> None:
    assert milliseconds("1970-01-02") == 86_400_000
    assert milliseconds("1970-01-01T02:00+02:00") == 0


@given(TIMED)
def test_split_by_takes_what_the_configuration_says(histories: list[History]) -> None:
    sequences = sequences_of(histories)
    assume(len(sequences.items) > 0)
    names = [str(user) for user in range(len(sequences))]
    found = split_by(sequences, names, DataConfig(split="ratio", targets="last", holdout=(0.2, 0.3)))
    expected = ratio(sequences, (0.2, 0.3), "last")
    assert found.words == expected.words
    assert np.array_equal(found.test.positions, expected.test.positions)
