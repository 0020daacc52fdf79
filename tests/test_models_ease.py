"""EASE against the same sums written as loops and solved in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.batches import Batch
from seqrec.data.sequences import Sequences
from seqrec.errors import DataError
from seqrec.models.ease import EASE, EASEConfig

N = 6
ITEMS = st.integers(1, N)
TRAIN = st.lists(st.lists(ITEMS, max_size=9), min_size=1, max_size=8)
Doubles = npt.NDArray[np.float64]


def fitted(histories: list[list[int]], **settings: Any) -> EASE:
    return EASE(EASEConfig(**{"regularisation": 2.0, **settings}), N).fit(Sequences.of(histories, N))


def decayed(history: list[int], window: int, decay: float) -> Doubles:
    x = np.zeros(N)
    for age, item in enumerate(reversed(history[-window:])):
        x[item - 1] += decay**age
    return x


def slow_next(histories: list[list[int]], window: int, decay: float) -> Doubles:
    gram, follows = 2.0 * np.eye(N), np.zeros((N, N))
    for history in histories:
        for place in range(1, len(history)):
            x = decayed(history[:place], window, decay)
            gram += np.outer(x, x)
            follows[:, history[place] - 1] += x
    return np.linalg.solve(gram, follows)


def latest_only(histories: list[list[int]], window: int, decay: float) -> Doubles:
    X = np.zeros((len(histories), N))
    for user, history in enumerate(histories):
        for age, item in reversed(list(enumerate(reversed(history[-window:])))):
            X[user, item - 1] = decay**age
    return X


def slow_history(histories: list[list[int]], window: int, decay: float) -> Doubles:
    """Column by column: least squares of an item on all others, which is what the closed form stands for."""
    X = latest_only(histories, window, decay)
    weights = np.zeros((N, N))
    for item in range(N):
        others = [other for other in range(N) if other != item]
        gram = X[:, others].T @ X[:, others] + 2.0 * np.eye(N - 1)
        weights[others, item] = np.linalg.solve(gram, X[:, others].T @ X[:, item])
    return weights


@given(TRAIN, st.integers(1, 12), st.sampled_from([0.3, 0.8, 1.0]))
def test_weights_of_the_next_item(histories: list[list[int]], window: int, decay: float) -> None:
    found = fitted(histories, window=window, decay=decay).weight_NN
    np.testing.assert_allclose(found, slow_next(histories, window, decay), rtol=1e-4, atol=1e-5)


@given(TRAIN, st.integers(1, 12), st.sampled_from([0.3, 0.8, 1.0]))
def test_weights_of_the_history(histories: list[list[int]], window: int, decay: float) -> None:
    found = fitted(histories, target="history", window=window, decay=decay).weight_NN
    np.testing.assert_allclose(found, slow_history(histories, window, decay), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["next", "history"])
def test_blocks_and_slabs_change_nothing(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    histories = [random.integers(1, N + 1, size=random.integers(0, 9)).tolist() for _ in range(30)]
    whole = fitted(histories, target=target).weight_NN
    monkeypatch.setattr("seqrec.data.sequences.BLOCK", 7)
    monkeypatch.setattr("seqrec.models.ease.SLAB", 4)
    torch.testing.assert_close(fitted(histories, target=target).weight_NN, whole)


@pytest.mark.parametrize("window", [2, 50])
def test_scores_are_sums_over_the_last_items(window: int) -> None:
    asked = [[1, 2, 3, 2], [5], [4, 4]]
    model = fitted([[1, 2, 3], [2, 3, 5, 4], [6, 1, 2]], window=window, decay=0.5)
    expected = np.stack([decayed(history, window, 0.5) @ model.weight_NN.double().numpy() for history in asked])
    np.testing.assert_allclose(model.scores(Batch.of(asked)), expected, atol=1e-6)
    some = torch.tensor([6, 1])
    assert torch.equal(model.scores(Batch.of(asked), some), model.scores(Batch.of(asked))[:, some - 1])


@given(TRAIN, st.lists(st.lists(ITEMS, min_size=1, max_size=12), min_size=1, max_size=5), st.integers(1, 12))
def test_a_repeat_counts_once_for_the_history(trained: list[list[int]], asked: list[list[int]], window: int) -> None:
    for decay in (0.6, 1.0):
        expected = latest_only(asked, window, decay) @ slow_history(trained, window, decay)
        model = fitted(trained, target="history", window=window, decay=decay)
        np.testing.assert_allclose(model.scores(Batch.of(asked)), expected, rtol=1e-4, atol=1e-5)


def test_repeats_alone_change_nothing_for_the_history() -> None:
    model = fitted([[1, 2, 3], [2, 3, 5, 4], [6, 1, 2]], target="history", decay=1.0)
    once, often = Batch.of([[1, 3], [5]]), Batch.of([[3, 1, 1, 3, 1, 3], [5, 5]])
    assert torch.equal(model.scores(often), model.scores(once))


def test_the_next_item_knows_the_direction_and_the_history_does_not() -> None:
    histories = [[1, 2]] * 20
    directed, symmetric = fitted(histories), fitted(histories, target="history")
    assert directed.weight_NN[0, 1] > 0.9 > 0.1 > directed.weight_NN[1, 0].abs()
    assert symmetric.weight_NN[1, 0] > 0.5


def test_a_history_of_items_never_trained_on_gets_what_is_popular() -> None:
    scores = fitted([[1, 2], [3, 2], [3, 2]]).scores(Batch.of([[6]]))[0]
    assert scores.argsort(descending=True)[:3].tolist() == [1, 2, 0]


@pytest.mark.parametrize("target", ["next", "history"])
def test_nothing_to_learn_from(target: str) -> None:
    assert not fitted([[], []], target=target).scores(Batch.of([[1, 2]])).any()


def test_a_catalogue_too_large_is_refused_with_sizes_and_a_way_out() -> None:
    model = EASE(EASEConfig(max_memory_gb=1), 20_000)
    with pytest.raises(DataError, match=r"20,000 items needs 3\.2 GB .* model.max_memory_gb is 1\. Take .*markov"):
        model.fit(Sequences.of([[1, 2]], 20_000))


def test_equations_beyond_float32_are_refused() -> None:
    with pytest.raises(DataError, match=r"regularisation 1e-12: raise it"):
        fitted([[1, 2]] * 50, target="history", regularisation=1e-12, decay=1.0)


def test_state_round_trip() -> None:
    model, copy = fitted([[1, 2, 3], [2, 3, 4, 2]]), EASE(EASEConfig(), N)
    batch = Batch.of([[2], [4, 3]])
    assert not copy.scores(batch).any()
    copy.load_state_dict(model.state_dict())
    copy.config = model.config
    assert torch.equal(copy.scores(batch), model.scores(batch))
