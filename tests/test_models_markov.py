"""The Markov chain against dictionaries of what followed what."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.batches import Batch
from seqrec.data.sequences import Sequences
from seqrec.models.markov import PRIOR, Markov, MarkovConfig

N = 7
ITEMS = st.integers(1, N)
TRAIN = st.lists(st.lists(ITEMS, max_size=9), min_size=1, max_size=8)
ASKED = st.lists(st.lists(ITEMS, min_size=1, max_size=9), min_size=1, max_size=4)


def fitted(histories: list[list[int]], window: int = 5, decay: float = 0.5) -> Markov:
    return Markov(MarkovConfig(window=window, decay=decay), N).fit(Sequences.of(histories, N))


def slow_scores(histories: list[list[int]], asked: list[int], window: int, decay: float) -> list[float]:
    followed: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for history in histories:
        for item, after in pairwise(history):
            followed[item][after] += 1
    counts = Counter(item for history in histories for item in history)
    most = max([*counts.values(), 1])
    scores = [PRIOR * counts[item] / most for item in range(1, N + 1)]
    for age, item in enumerate(reversed(asked[-window:])):
        for after, times in followed[item].items():
            scores[after - 1] += decay**age * times / followed[item].total()
    return scores


@given(TRAIN, ASKED, st.integers(1, 12), st.sampled_from([0.1, 0.5, 1.0]))
def test_scores_are_decayed_chances(
    histories: list[list[int]], asked: list[list[int]], window: int, decay: float
) -> None:
    found = fitted(histories, window, decay).scores(Batch.of(asked))
    expected = torch.tensor([slow_scores(histories, history, window, decay) for history in asked])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


@given(TRAIN, ASKED, st.lists(ITEMS, min_size=1, max_size=5))
def test_some_items_are_columns_of_all(histories: list[list[int]], asked: list[list[int]], some: list[int]) -> None:
    model, batch = fitted(histories), Batch.of(asked)
    columns = torch.tensor(some)
    assert torch.equal(model.scores(batch, columns), model.scores(batch)[:, columns - 1])


@given(TRAIN)
def test_the_last_event_of_one_user_is_not_followed_by_the_first_of_the_next(histories: list[list[int]]) -> None:
    pairs = {pair for history in histories for pair in pairwise(history)}
    for item in range(1, N + 1):
        followers = (fitted(histories).scores(Batch.of([[item]]))[0] > 2 * PRIOR).nonzero()[:, 0] + 1
        assert {(item, after) for after in followers.tolist()} == {pair for pair in pairs if pair[0] == item}


def test_pairs_beyond_the_training_part_are_unknown() -> None:
    whole = Sequences.of([[1, 2, 3]], N)
    model = Markov(MarkovConfig(), N).fit(whole.until(whole.ends - 1))
    assert model.scores(Batch.of([[2]])).max() <= PRIOR


def test_items_that_never_followed_are_ordered_by_popularity() -> None:
    model = fitted([[1, 2], [3, 5], [3, 5], [3]])
    scores = model.scores(Batch.of([[1]]))[0]
    assert scores.argsort(descending=True, stable=True)[:4].tolist() == [1, 2, 4, 0]


@pytest.mark.parametrize("histories", [[[1], [2]], [[], []]])
def test_without_a_pair_only_popularity_is_left(histories: list[list[int]]) -> None:
    scores = fitted(histories).scores(Batch.of([[1, 2]]))
    assert scores.tolist() == [pytest.approx(slow_scores(histories, [1, 2], 5, 0.5))]


def test_state_round_trip() -> None:
    model, copy = fitted([[1, 2, 3], [2, 3, 4, 2]]), Markov(MarkovConfig(), N)
    batch = Batch.of([[2], [4, 3]])
    assert not copy.scores(batch).any()
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy.scores(batch), model.scores(batch))
