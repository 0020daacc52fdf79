"""Every similarity against its formula written out cell by cell, on rows that are empty, equal and constant too."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
from scipy import sparse

from seqrec.errors import DataError
from seqrec.models.similarities import MOST_VALUES, NEED_RATINGS, SIMILARITIES, SMOOTHING, Pair, Rows

Vector = np.ndarray
C = 9


def slow_cosine(a: Vector, b: Vector) -> float:
    return ratio((a * b).sum(), np.sqrt((a**2).sum()) * np.sqrt((b**2).sum()))


def slow_adjusted_cosine(a: Vector, b: Vector) -> float:
    both = ~np.isnan(a) & ~np.isnan(b)
    return slow_cosine(a[both], b[both])


def slow_pearson(a: Vector, b: Vector) -> float:
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(a, b)[0, 1])


def slow_common_pearson(a: Vector, b: Vector) -> float:
    both = ~np.isnan(a) & ~np.isnan(b)
    return slow_pearson(a[both], b[both]) if both.any() else 0.0


def slow_jaccard(a: Vector, b: Vector) -> float:
    return ratio(((a != 0) & (b != 0)).sum(), ((a != 0) | (b != 0)).sum())


def slow_euclidean(a: Vector, b: Vector) -> float:
    return 1 / (1 + float(np.sqrt(((a - b) ** 2).sum())))


def slow_manhattan(a: Vector, b: Vector) -> float:
    return 1 / (1 + float(np.abs(a - b).sum()))


def slow_hamming(a: Vector, b: Vector) -> float:
    return 1 / (1 + int((a != b).sum()))


def slow_bhattacharyya(a: Vector, b: Vector) -> float:
    return float(np.sqrt(np.outer(a, b).diagonal()).sum()) / max(np.sqrt(a.sum() * b.sum()), 1e-300)


def slow_kullback_leibler(a: Vector, b: Vector) -> float:
    p, q = (SMOOTHING / C + (1 - SMOOTHING) * x / max(x.sum(), 1e-300) for x in (a, b))
    return 1 / (1 + float((p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()))


SLOW: dict[str, Callable[[Vector, Vector], float]] = {
    "cosine": slow_cosine,
    "adjusted_cosine": slow_adjusted_cosine,
    "pearson": slow_pearson,
    "common_pearson": slow_common_pearson,
    "jaccard": slow_jaccard,
    "euclidean": slow_euclidean,
    "manhattan": slow_manhattan,
    "hamming": slow_hamming,
    "bhattacharyya": slow_bhattacharyya,
    "kullback_leibler": slow_kullback_leibler,
}


def ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else 0.0


def table(kind: str, seed: int) -> np.ndarray:
    """Seven rows, NaN where there is no entry: two empty, two equal, two constant, one full."""
    random = np.random.default_rng(seed)
    values = {
        "binary": np.ones((8, C)),
        "ratings": random.integers(1, 6, (8, C)).astype(float),
        "halves": random.integers(1, 11, (8, C)) / 2,
        "signed": random.choice([-2.0, -1.0, 1.0, 3.0], (8, C)),
        "weights": random.uniform(0.1, 1, (8, 3)).repeat(3, 1),
    }[kind]
    values[random.random((8, C)) > 0.5] = np.nan
    values[0] = np.nan
    values[2] = values[1]
    values[3] = np.where(np.arange(C) < 4, values[~np.isnan(values)][0], np.nan)
    values[4] = values[~np.isnan(values)][0]
    return values


def rows(values: np.ndarray) -> Rows:
    """Rows with entries wherever there is no NaN, entries of 0 too."""
    row, column = np.nonzero(~np.isnan(values))
    return Rows(sparse.csr_matrix((values[row, column], (row, column)), shape=values.shape))


def slow(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if name not in NEED_RATINGS:
        a, b = np.nan_to_num(a), np.nan_to_num(b)
    return np.array([[SLOW[name](x, y) for y in b] for x in a])


@pytest.mark.parametrize("name", sorted(SLOW))
@pytest.mark.parametrize("kind", ["binary", "ratings", "halves", "weights"])
@pytest.mark.parametrize("seed", range(5))
def test_as_its_formula(name: str, kind: str, seed: int) -> None:
    a, b = table(kind, seed), table(kind, seed + 50)
    for first, second in ((a, b), (a, a), (a[:1], b), (a, b[:0])):
        found = SIMILARITIES[name](Pair(rows(first), rows(second)))
        assert found.dtype == np.float64
        assert found.shape == (len(first), len(second))
        expected = slow(name, first, second).reshape(found.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["cosine", "pearson", "euclidean", "manhattan", "hamming", "adjusted_cosine"])
def test_negative_values_too(name: str) -> None:
    a, b = table("signed", 1), table("signed", 2)
    np.testing.assert_allclose(SIMILARITIES[name](Pair(rows(a), rows(b))), slow(name, a, b), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["bhattacharyya", "kullback_leibler"])
def test_negative_values_are_no_distribution(name: str) -> None:
    both = rows(table("signed", 1))
    with pytest.raises(DataError, match=r"Negative ratings are no shares.*choose cosine"):
        SIMILARITIES[name](Pair(both, both))


@pytest.mark.parametrize("name", ["manhattan", "hamming"])
def test_too_many_values_are_refused(name: str) -> None:
    both = rows(np.arange(1.0, 2 * MOST_VALUES + 1).reshape(2, -1))
    with pytest.raises(DataError, match=rf"{2 * MOST_VALUES} different ratings, more than {MOST_VALUES}.*euclidean"):
        SIMILARITIES[name](Pair(both, both))


@pytest.mark.parametrize("name", sorted(SLOW))
def test_one_side_may_be_used_again(name: str) -> None:
    """What is kept for the next block does not change what the block gives."""
    a, b = table("ratings", 3), table("ratings", 4)
    other = rows(b)
    whole = SIMILARITIES[name](Pair(rows(a), other))
    parts = [SIMILARITIES[name](Pair(rows(a).block(start, start + 3), other)) for start in (0, 3, 6)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("name", sorted(SLOW))
@pytest.mark.parametrize("kind", ["binary", "ratings"])
def test_bounded_symmetric_and_largest_for_itself(name: str, kind: str) -> None:
    both = rows(table(kind, 7))
    found = SIMILARITIES[name](Pair(both, both))
    np.testing.assert_allclose(found, found.T, rtol=1e-12)
    assert (np.abs(found) <= 1 + 1e-12).all()
    assert (found.max(1) <= found.diagonal() + 1e-9).all() or name in NEED_RATINGS


def test_what_binary_rows_have_in_common() -> None:
    """On sets Hamming is Manhattan, Euclidean its root, and Bhattacharyya the cosine."""
    both = Pair(rows(table("binary", 1)), rows(table("binary", 2)))
    found = {name: function(both) for name, function in SIMILARITIES.items() if name != "embedding"}
    np.testing.assert_array_equal(found["hamming"], found["manhattan"])
    np.testing.assert_allclose((1 / found["euclidean"] - 1) ** 2, 1 / found["hamming"] - 1, atol=1e-9)
    np.testing.assert_allclose(found["bhattacharyya"], found["cosine"], rtol=1e-12)


def test_vectors() -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((5, 3)), random.standard_normal((4, 3))
    a[2] = 0
    empty = sparse.csr_matrix((5, 1))
    found = SIMILARITIES["embedding"](Pair(Rows(empty, a), Rows(empty[:4], b)))
    np.testing.assert_allclose(found, [[slow_cosine(x, y) for y in b] for x in a], rtol=1e-12)
    with pytest.raises(ValueError, match="no vectors"):
        SIMILARITIES["embedding"](Pair(Rows(empty), Rows(empty)))


def test_every_similarity_is_checked() -> None:
    assert set(SLOW) | {"embedding"} == set(SIMILARITIES)


@pytest.mark.parametrize("kind", ["binary", "ratings"])
def test_a_block_goes_when_it_is_done_with(kind: str) -> None:
    """A block that held itself would stay until a collection of cycles: gigabytes, block by block."""
    other = rows(table(kind, 1))
    gc.disable()
    try:
        for name in SLOW:
            block = other.block(0, 3)
            SIMILARITIES[name](Pair(block, other))
            gone = weakref.ref(block)
            del block
            assert gone() is None, name
    finally:
        gc.enable()
