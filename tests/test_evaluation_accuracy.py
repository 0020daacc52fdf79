"""Accuracy measures, which see ranks, against measures of lists, which see what was recommended."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.evaluation import ACCURACY
from seqrec.evaluation.evaluation import Evaluation
from seqrec.registry import resolve

Measure = Callable[[list[int], set[int], int], float]


def hits(shown: list[int], wanted: set[int], k: int) -> list[bool]:
    return [item in wanted for item in shown[:k]]


def recall(shown: list[int], wanted: set[int], k: int) -> float:
    return len(set(shown[:k]) & wanted) / len(wanted)


def hit_rate(shown: list[int], wanted: set[int], k: int) -> float:
    return float(any(hits(shown, wanted, k)))


def precision(shown: list[int], wanted: set[int], k: int) -> float:
    return sum(hits(shown, wanted, k)) / k


def mrr(shown: list[int], wanted: set[int], k: int) -> float:
    return next((1 / place for place, hit in enumerate(hits(shown, wanted, k), start=1) if hit), 0.0)


def average_precision(shown: list[int], wanted: set[int], k: int) -> float:
    """Mean of the precision at each hit."""
    at_hits = [precision(shown, wanted, place) for place, hit in enumerate(hits(shown, wanted, k), start=1) if hit]
    return sum(at_hits) / min(len(wanted), k)


def ndcg(shown: list[int], wanted: set[int], k: int) -> float:
    """Discounted gain over that of the best list there could be."""
    gain = sum(1 / math.log2(place + 1) for place, hit in enumerate(hits(shown, wanted, k), start=1) if hit)
    return gain / sum(1 / math.log2(place + 1) for place in range(1, min(len(wanted), k) + 1))


SLOW: dict[str, Measure] = {
    "recall": recall,
    "hit_rate": hit_rate,
    "precision": precision,
    "mrr": mrr,
    "map": average_precision,
    "ndcg": ndcg,
}


def test_every_measure_has_a_slow_twin() -> None:
    assert set(SLOW) == set(ACCURACY)


@pytest.mark.parametrize("name", sorted(ACCURACY))
@given(
    st.integers(1, 30).flatmap(lambda n: st.lists(st.permutations(range(1, n + 1)), min_size=1, max_size=6)),
    st.integers(1, 40),
    st.data(),
)
def test_measures_of_ranks_are_measures_of_lists(
    name: str, lists: list[list[int]], k: int, data: st.DataObject
) -> None:
    targets = [data.draw(st.sampled_from(shown)) for shown in lists]
    ranks = np.array([shown.index(target) + 1 for shown, target in zip(lists, targets, strict=True)])
    found = resolve("metric", name, ACCURACY)(ranks, k)
    assert found.dtype == np.float64
    expected = [SLOW[name](shown, {target}, k) for shown, target in zip(lists, targets, strict=True)]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(ACCURACY))
@given(
    st.integers(1, 12).flatmap(lambda n: st.tuples(st.permutations(range(1, n + 1)), st.integers(0, n))),
    st.integers(1, 20),
    st.data(),
)
def test_targets_left_out_are_misses(name: str, drawn: tuple[list[int], int], k: int, data: st.DataObject) -> None:
    """Lists end early where items are left out, and may lack the target: its rank is then beyond the catalogue."""
    order, length = drawn
    shown = order[:length]
    targets = data.draw(st.lists(st.sampled_from(order), min_size=1, max_size=5))
    ranks = np.array([shown.index(target) + 1 if target in shown else len(order) + 1 for target in targets])
    blank = np.zeros(len(targets), dtype=np.int64)
    lists = np.tile(np.array(shown + [0] * (len(order) - length)), (len(targets), 1))
    counts = np.ones(len(order), dtype=np.int64)
    found = Evaluation(blank, np.array(targets), ranks, blank, lists, counts, (k,), "made up").per_case(f"{name}@{k}")
    assert found.tolist() == pytest.approx([SLOW[name](shown, {target}, k) for target in targets])


@pytest.mark.parametrize(("one", "other"), [("hit_rate", "recall"), ("map", "mrr")])
@given(st.lists(st.integers(1, 10**6), min_size=1), st.integers(1, 100))
def test_with_one_target_two_names_are_one_number(one: str, other: str, ranks: list[int], k: int) -> None:
    first, second = (resolve("metric", name, ACCURACY)(np.array(ranks), k) for name in (one, other))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", sorted(ACCURACY))
@given(st.lists(st.integers(1, 60), min_size=1), st.integers(1, 50))
def test_a_better_rank_is_never_worth_less(name: str, ranks: list[int], k: int) -> None:
    values = resolve("metric", name, ACCURACY)(np.sort(ranks), k)
    assert np.all(np.diff(values) <= 0)
    assert np.all((values >= 0) & (values <= 1))


def test_textbook_values() -> None:
    ranks = np.array([1, 2, 3, 10, 11])
    values = {name: resolve("metric", name, ACCURACY)(ranks, 10).tolist() for name in ACCURACY}
    assert values["recall"] == [1, 1, 1, 1, 0]
    assert values["precision"] == [0.1, 0.1, 0.1, 0.1, 0]
    assert values["mrr"] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 10, 0])
    assert values["ndcg"] == pytest.approx([1, 0.6309297535714575, 0.5, 0.2890648263178879, 0])


def test_no_cases_no_values() -> None:
    for name in ACCURACY:
        assert resolve("metric", name, ACCURACY)(np.zeros(0, dtype=np.int64), 10).shape == (0,)
