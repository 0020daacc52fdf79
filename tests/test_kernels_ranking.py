"""Ranks and top lists against sorting in Python."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrec.errors import ScoreError
from seqrec.kernels.ranking import exclude, finite_rows, rank, rank_in_blocks, require_finite, target_ranks, top_items

#: Few values, so that ties are common, and the ends of what float32 can say.
VALUES = st.sampled_from([-3.4028234663852886e38, -1.0, -0.0, 0.0, 1e-45, 1.0, 1.0000001192092896, 3e38])


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[float]], list[set[int]]]:
    """Scores of a few cases over a few items, and the items each case leaves out."""
    cases, items = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    scores = [draw(st.lists(VALUES, min_size=items, max_size=items)) for _ in range(cases)]
    return scores, [draw(st.sets(st.integers(1, items))) for _ in range(cases)]


def pairs_of(left_out: list[set[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [(row, item) for row, items in enumerate(left_out) for item in items]
    rows, items = (torch.tensor([pair[side] for pair in pairs], dtype=torch.int64) for side in (0, 1))
    return rows, items


def excluded(scores: list[list[float]], left_out: list[set[int]]) -> torch.Tensor:
    return exclude(torch.tensor(scores), *pairs_of(left_out))


def slow_rank(scores: list[float], target: int, left_out: set[int]) -> int:
    """Place of the target when everything shown is sorted, the target last among its equals."""
    if target in left_out:
        return len(scores) + 1
    shown = [item for item in range(1, len(scores) + 1) if item not in left_out]
    return sorted(shown, key=lambda item: (-scores[item - 1], item == target)).index(target) + 1


@given(tables(), st.data())
def test_ranks_are_places_in_the_sorted_list(table: tuple[list[list[float]], list[set[int]]], data: Any) -> None:
    scores, left_out = table
    targets = [data.draw(st.integers(1, len(row))) for row in scores]
    expected = [slow_rank(*case) for case in zip(scores, targets, left_out, strict=True)]
    found = target_ranks(excluded(scores, left_out), torch.tensor(targets))
    assert found.dtype == torch.int64
    assert found.tolist() == expected


@given(tables(), st.integers(1, 20))
def test_top_items_are_the_head_of_the_sorted_list(table: tuple[list[list[float]], list[set[int]]], k: int) -> None:
    scores, left_out = table
    items_Bk, scores_Bk = top_items(excluded(scores, left_out), k)
    assert items_Bk.shape == scores_Bk.shape == (len(scores), k)
    for row, gone, items, found in zip(scores, left_out, items_Bk.tolist(), scores_Bk.tolist(), strict=True):
        shown = sorted((torch.tensor(row)[item - 1].item() for item in {*range(1, len(row) + 1)} - gone), reverse=True)
        places = min(k, len(shown))
        assert found == shown[:places] + [-math.inf] * (k - places)
        assert items[places:] == [0] * (k - places)
        assert len(set(items[:places]) - gone) == places
        assert found[:places] == [torch.tensor(row)[item - 1].item() for item in items[:places]]


def test_equal_scores_rank_the_target_last() -> None:
    assert target_ranks(torch.zeros(1, 7), torch.tensor([1])).tolist() == [7]


def test_an_excluded_target_ranks_behind_everything_even_when_all_is_excluded() -> None:
    assert target_ranks(torch.full((1, 4), -torch.inf), torch.tensor([2])).tolist() == [5]


def test_exclude_takes_pairs_twice_and_none_at_all() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    assert exclude(torch.zeros(1, 3), nothing, nothing).tolist() == [[0, 0, 0]]
    twice = exclude(torch.zeros(2, 3), torch.tensor([1, 1]), torch.tensor([3, 3]))
    assert twice.tolist() == [[0, 0, 0], [0, 0, -math.inf]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused_by_case_and_item(bad: float) -> None:
    scores = torch.zeros(3, 4)
    scores[1, 2] = scores[2, 0] = bad
    with pytest.raises(ScoreError, match=rf"^Oracle gave {bad} for item 3 in case 1;"):
        require_finite(scores, "Oracle")


@given(st.lists(VALUES, min_size=1, max_size=9))
def test_finite_scores_pass(scores: list[float]) -> None:
    require_finite(torch.tensor([scores]), "Oracle")


@given(tables())
def test_ties_stand_in_the_order_of_items(table: tuple[list[list[float]], list[set[int]]]) -> None:
    scores, left_out = table
    items, _ = top_items(excluded(scores, left_out), 12)
    for row, found in enumerate(items.tolist()):
        values = torch.tensor(scores[row]).tolist()
        kept = [item for item in range(1, len(values) + 1) if item not in left_out[row]]
        expected = sorted(kept, key=lambda item: (-values[item - 1], item))
        assert [item for item in found if item] == expected


@pytest.mark.parametrize("items", [1, 49, 50, 51, 400, 1001, 4099])
@pytest.mark.parametrize("k", [1, 7, 50])
@pytest.mark.parametrize("values", [1, 3, 10_000])
def test_top_items_of_long_rows_are_those_of_a_stable_sort(items: int, k: int, values: int) -> None:
    random = torch.Generator().manual_seed(items * k + values)
    scores = torch.randint(0, values, (9, items), generator=random).double() / 7 - 1
    scores[torch.rand(9, items, generator=random) < 0.2] = -math.inf
    scores[8] = -math.inf
    found, found_scores = top_items(scores, k)
    order = scores.float().sort(dim=1, descending=True, stable=True).indices[:, :k]
    expected_scores = torch.nn.functional.pad(scores.gather(1, order), (0, k - order.shape[1]), value=-math.inf)
    expected = torch.nn.functional.pad(order + 1, (0, k - order.shape[1]))
    assert torch.equal(found_scores, expected_scores)
    assert torch.equal(found, expected.masked_fill(expected_scores == -math.inf, 0))


@given(tables(), st.integers(1, 20), st.integers(1, 13), st.booleans(), st.data())
def test_blocks_of_items_find_what_whole_rows_do(
    table: tuple[list[list[float]], list[set[int]]], k: int, size: int, filtered: bool, data: Any
) -> None:
    scores, left_out = table
    targets = torch.tensor([data.draw(st.integers(1, len(row))) for row in scores])
    seen = pairs_of(left_out) if filtered else None
    asked: list[tuple[int, int]] = []

    def block(first: int, last: int) -> torch.Tensor:
        asked.append((first, last))
        return torch.tensor(scores)[:, first:last].clone()

    found = rank_in_blocks(block, len(scores[0]), size, targets, seen, k)
    assert {last - first <= size for first, last in asked} == {True}
    nothing: list[set[int]] = [set() for _ in scores]
    whole = excluded(scores, left_out if filtered else nothing)
    assert torch.equal(found.ranks, target_ranks(whole, targets))
    assert torch.equal(found.items, top_items(whole, k)[0])
    assert found.finite.all()
    for one, other in zip(rank(torch.tensor(scores), targets, seen, k), found, strict=True):
        assert torch.equal(one, other)


def test_a_target_is_counted_with_the_score_it_has_in_its_block() -> None:
    """Blocks whose products are rounded each in its own way: here by whole numbers, so that it shows."""
    plain = torch.zeros(4, 12)
    rounded = plain + torch.arange(12) // 3 % 2
    found = rank_in_blocks(lambda a, b: rounded[:, a:b].clone(), 12, 3, torch.tensor([1, 4, 8, 12]), None, 5)
    assert found.ranks.tolist() == [12, 6, 12, 6]
    assert found.items.tolist() == [[4, 5, 6, 10, 11]] * 4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("size", [2, 5, 9])
def test_rows_that_are_not_finite_are_told_even_where_seen(bad: float, size: int) -> None:
    scores = torch.zeros(4, 5)
    scores[0, 0] = scores[2, 4] = bad
    assert finite_rows(scores).tolist() == [False, True, False, True]
    seen = torch.tensor([0, 2]), torch.tensor([1, 5])
    found = rank_in_blocks(lambda a, b: scores[:, a:b].clone(), 5, size, torch.tensor([2, 2, 2, 2]), seen, 3)
    assert found.finite.tolist() == [False, True, False, True]
    assert (found.ranks[1::2] == 5).all()


def test_the_ends_of_float32_are_finite() -> None:
    assert finite_rows(torch.tensor([[3.4028234663852886e38, -3.4028234663852886e38, 3e38]])).all()
