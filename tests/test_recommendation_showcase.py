"""Sample users: what they saw, what they are recommended, what they really saw next."""

from __future__ import annotations

from pathlib import Path

import pytest

import seqrec
from conftest import COLUMNS
from seqrec.data.prepared import PreparedData
from seqrec.recommendation.recommender import Recommender
from seqrec.recommendation.showcase import Example, examples


@pytest.fixture
def data(small_log: Path) -> PreparedData:
    return seqrec.load_data(small_log, **COLUMNS)


@pytest.fixture
def found(small_run: Path, data: PreparedData) -> list[Example]:
    return examples(Recommender.load(small_run), data, users=6, k=5, last=3)


def test_examples_are_the_test_cases_of_the_log(found: list[Example], small_log: Path) -> None:
    histories: dict[str, list[str]] = {}
    for line in small_log.read_text().splitlines()[1:]:
        user, item, _ = line.split(",")
        histories.setdefault(user, []).append(item)
    assert len({example.user for example in found}) == 6
    for example in found:
        *history, target = histories[example.user]
        assert (example.target, example.target_id) == (target, target)
        assert example.seen == history[-3:]
        assert not {item.item for item in example.recommended} & set(history)


def test_the_place_is_that_of_the_target(small_run: Path, data: PreparedData) -> None:
    found = examples(Recommender.load(small_run), data, users=40, k=10)
    metrics = seqrec.Run(small_run).metrics
    for example in found:
        names = [item.item for item in example.recommended]
        assert len(names) <= 10
        assert example.place == (names.index(example.target_id) + 1 if example.target_id in names else None)
    assert sum(example.place is not None for example in found) / 40 == pytest.approx(metrics["recall@10"])


def test_always_the_same_users(found: list[Example], small_run: Path, data: PreparedData) -> None:
    assert examples(Recommender.load(small_run), data, users=6, k=5, last=3) == found


@pytest.mark.parametrize(("users", "expected"), [(0, 0), (1, 1), (1000, 40)])
def test_as_many_as_there_are(users: int, expected: int, small_run: Path, data: PreparedData) -> None:
    assert len(examples(Recommender.load(small_run), data, users=users, k=1)) == expected
