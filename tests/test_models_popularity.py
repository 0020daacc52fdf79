"""Popularity against counting in a dictionary."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.batches import Batch
from seqrec.data.sequences import Sequences
from seqrec.models.popularity import Popularity, PopularityConfig

N = 6
HISTORIES = st.lists(st.lists(st.integers(1, N), max_size=8), max_size=6)


def fitted(histories: list[list[int]]) -> Popularity:
    return Popularity(PopularityConfig(), N).fit(Sequences.of(histories, N))


@given(HISTORIES, st.lists(st.integers(1, N), min_size=1, max_size=5))
def test_scores_are_counts_whatever_the_history(histories: list[list[int]], asked: list[int]) -> None:
    counts = Counter(item for history in histories for item in history)
    expected = [float(counts[item]) for item in range(1, N + 1)]
    model, batch = fitted(histories), Batch.of([[1], [2, 3, 4]])
    assert model.scores(batch).tolist() == [expected, expected]
    assert model.scores(batch, torch.tensor(asked)).tolist() == [[expected[item - 1] for item in asked]] * 2


@given(st.lists(st.lists(st.integers(1, N), min_size=2, max_size=8), min_size=1, max_size=6))
def test_only_the_training_part_counts(histories: list[list[int]]) -> None:
    whole = Sequences.of(histories, N)
    model = Popularity(PopularityConfig(), N).fit(whole.until(whole.ends - 1))
    counts = Counter(item for history in histories for item in history[:-1])
    assert model.scores(Batch.of([[1]])).tolist() == [[counts[item] for item in range(1, N + 1)]]


def test_scores_may_be_written_to() -> None:
    model, batch = fitted([[1, 1, 2]]), Batch.of([[1], [2]])
    model.scores(batch)[0, 0] = -torch.inf
    assert model.scores(batch).tolist() == [[2, 1, 0, 0, 0, 0]] * 2


def test_state_round_trip() -> None:
    model, copy = fitted([[1, 1, 2], [4]]), Popularity(PopularityConfig(), N)
    copy.load_state_dict(model.state_dict())
    batch = Batch.of([[5]])
    assert torch.equal(copy.scores(batch), model.scores(batch))
