"""Measures of whole sets of lists against counting in Python."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.evaluation.catalogue import BUCKETS, coverage, gini, mean_popularity, popularity_bucket

Ints = npt.NDArray[np.int64]
COUNTS = st.lists(st.integers(0, 50), min_size=1, max_size=25)


@st.composite
def shown_lists(draw: st.DrawFn) -> tuple[Ints, Ints]:
    """Lists of items with empty places (0) among them, and the training count of each item."""
    counts = draw(COUNTS)
    width = draw(st.integers(1, 5))
    rows = draw(st.lists(st.lists(st.integers(0, len(counts)), min_size=width, max_size=width), min_size=1, max_size=8))
    return np.array(rows, dtype=np.int64), np.array(counts, dtype=np.int64)


def items_in(lists: Ints) -> list[int]:
    return [item for row in lists.tolist() for item in row if item != 0]


@given(shown_lists())
def test_coverage_is_the_share_of_items_shown(case: tuple[Ints, Ints]) -> None:
    lists, counts = case
    assert coverage(lists, counts) == pytest.approx(len(set(items_in(lists))) / len(counts))


@given(shown_lists())
def test_gini_is_the_mean_absolute_difference_over_twice_the_mean(case: tuple[Ints, Ints]) -> None:
    lists, counts = case
    times = Counter(items_in(lists))
    exposure = [times[item] for item in range(1, len(counts) + 1)]
    n, total = len(exposure), sum(exposure)
    differences = sum(abs(a - b) for a in exposure for b in exposure)
    expected = differences / (2 * n * n * (total / n)) if total else 0.0
    assert gini(lists, counts) == pytest.approx(expected)


@given(shown_lists())
def test_mean_popularity_is_the_mean_count_of_what_is_shown(case: tuple[Ints, Ints]) -> None:
    lists, counts = case
    popularity = [int(counts[item - 1]) for item in items_in(lists)]
    expected = sum(popularity) / len(popularity) if popularity else 0.0
    assert mean_popularity(lists, counts) == pytest.approx(expected)


def test_gini_runs_from_all_alike_to_one_takes_all() -> None:
    counts = np.ones(5, dtype=np.int64)
    assert gini(np.array([[1, 2, 3, 4, 5]]), counts) == pytest.approx(0)
    assert gini(np.array([[3], [3]]), counts) == pytest.approx(1 - 1 / 5)


def test_empty_places_are_not_items() -> None:
    empty, counts = np.zeros((3, 2), dtype=np.int64), np.array([4, 5])
    assert (coverage(empty, counts), gini(empty, counts), mean_popularity(empty, counts)) == (0, 0, 0)


@given(COUNTS)
def test_buckets_are_fifths_halves_and_the_rest_by_popularity(counts: list[int]) -> None:
    """Place p of n (from 0) is head while its middle lies in the first 20%, mid while in the first 50%."""
    buckets = popularity_bucket(np.array(counts)).tolist()
    order = sorted(range(len(counts)), key=lambda item: (-counts[item], item))
    for place, item in enumerate(order):
        middle = (2 * place + 1) / (2 * len(counts))
        assert BUCKETS[buckets[item]] == ("head" if middle < 0.2 else "mid" if middle < 0.5 else "tail")


@given(COUNTS)
def test_a_less_popular_item_is_never_in_a_bucket_before(counts: list[int]) -> None:
    buckets = popularity_bucket(np.array(counts))
    assert np.all(np.diff(buckets[np.argsort(-np.array(counts), kind="stable")]) >= 0)


@pytest.mark.parametrize("items", [1, 2, 5, 10, 97])
def test_bucket_sizes_are_the_nearest_to_their_shares(items: int) -> None:
    sizes = np.bincount(popularity_bucket(np.zeros(items, dtype=np.int64)), minlength=3)
    assert sizes.sum() == items
    assert math.isclose(sizes[0], 0.2 * items, abs_tol=0.5 + 1e-9)
    assert math.isclose(sizes[:2].sum(), 0.5 * items, abs_tol=0.5 + 1e-9)
