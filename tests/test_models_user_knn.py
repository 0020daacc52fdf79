"""User neighbours against a slow search, for people in the data and for strangers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from seqrec.data.batches import Batch
from seqrec.data.sequences import Sequences
from seqrec.errors import ConfigError
from seqrec.models import neighbours
from seqrec.models.user_knn import PRIOR, UserKNN, UserKNNConfig

N = 15
MEASURES = (
    "cosine", "pearson", "jaccard", "euclidean", "manhattan", "hamming", "bhattacharyya", "kullback_leibler",
    "embedding", "sequence",
)  # fmt: skip


def lists(users: int = 25, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(1, N, random.integers(1, 12)).tolist() for _ in range(users)]


def fitted(histories: list[list[int]], **settings: object) -> UserKNN:
    return UserKNN(UserKNNConfig(**settings), N).fit(Sequences.of(histories, N))  # type: ignore[arg-type]


def slow_jaccard(history: list[int], people: list[list[int]], k: int, own: int | None = None) -> np.ndarray:
    """Scores (N,)."""
    shown = set(history)
    found = [(len(shown & set(p)) / len(shown | set(p)), -v) for v, p in enumerate(people) if v != own]
    scores = np.zeros(N)
    for similarity, v in sorted(found, reverse=True)[:k]:
        for item in set(people[-v]):
            scores[item - 1] += similarity
    return scores


def slow_fading_cosine(history: list[int], people: list[list[int]], k: int, decay: float) -> np.ndarray:
    def faded(items: list[int]) -> np.ndarray:
        weights = np.zeros(N)
        for age, item in enumerate(reversed(items)):
            weights[item - 1] = max(weights[item - 1], decay**age)
        return weights

    rows, shown = np.array([faded(items) for items in people]), faded(history)
    similarity = rows @ shown / np.linalg.norm(rows, axis=1) / np.linalg.norm(shown)
    best = np.argsort(-similarity, kind="stable")[:k]
    return similarity[best] @ rows[best]


def test_jaccard_as_written_out() -> None:
    people, asked = lists(), lists(users=9, seed=1)
    scores = fitted(people, similarity="jaccard", neighbours=4).scores(Batch.of(asked))
    expected = np.array([slow_jaccard(history, people, 4) for history in asked])
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_sequence_as_written_out() -> None:
    people, asked = lists(), lists(users=9, seed=2)
    scores = fitted(people, similarity="sequence", neighbours=6, decay=0.7).scores(Batch.of(asked))
    expected = np.array([slow_fading_cosine(history, people, 6, 0.7) for history in asked])
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_nobody_is_their_own_neighbour() -> None:
    people = lists()
    model = fitted(people, similarity="jaccard", neighbours=3)
    batch = replace(Batch.of(people[:6]), users=torch.arange(6))
    expected = np.array([slow_jaccard(people[user], people, 3, own=user) for user in range(6)])
    np.testing.assert_allclose(model.scores(batch), expected, atol=1e-6)
    beyond = replace(batch, users=torch.arange(6) + len(people))  # people who came after the training part
    torch.testing.assert_close(model.scores(beyond), model.scores(Batch.of(people[:6])), rtol=0, atol=0)


def test_the_window_is_what_is_compared() -> None:
    people = lists()
    whole, windowed = fitted(people, similarity="cosine"), fitted(people, similarity="cosine", window=2)
    torch.testing.assert_close(
        windowed.scores(Batch.of([[1, 2, 3, 4], [5], [6, 7, 8]])), whole.scores(Batch.of([[3, 4], [5], [7, 8]]))
    )


@pytest.mark.parametrize("similarity", MEASURES)
def test_rows_alone_and_in_blocks(similarity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = fitted(lists(), similarity=similarity, width=4), lists(users=7, seed=3)
    together = model.scores(Batch.of(asked))
    assert together.dtype == torch.float32
    assert bool(torch.isfinite(together).all())
    monkeypatch.setattr(neighbours, "BLOCK_CELLS", 1)
    torch.testing.assert_close(model.scores(Batch.of(asked)), together, rtol=0, atol=0)
    alone = torch.cat([model.scores(Batch.of([history])) for history in asked])
    torch.testing.assert_close(alone, together, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("similarity", ["cosine", "embedding", "sequence"])
def test_state_goes_round(similarity: str) -> None:
    settings = {"similarity": similarity, "width": 4}
    model, batch = fitted(lists(), **settings), Batch.of(lists(users=4, seed=5))
    other = UserKNN(UserKNNConfig(**settings), N)  # type: ignore[arg-type]
    assert other.scores(batch).tolist() == [[0.0] * N] * 4, "before fitting nobody is known"
    other.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
    torch.testing.assert_close(other.scores(batch), model.scores(batch), rtol=0, atol=0)


def test_without_neighbours_popularity_orders() -> None:
    model = fitted([[1, 2], [2]], similarity="cosine")
    scores = model.scores(Batch.of([[N]]))
    np.testing.assert_allclose(scores[0, :3], [PRIOR / 2, PRIOR, 0])


@pytest.mark.parametrize("name", ["adjusted_cosine", "common_pearson"])
def test_ratings_are_not_in_a_history(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"model.similarity: {name} compares ratings, and a history .* choose cosine"
    ):
        UserKNNConfig.parse({"similarity": name}, "model.")
