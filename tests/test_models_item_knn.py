"""Item neighbours: lists against sorting every row, scores against summing them, refusals by their words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from seqrec.data.batches import Batch
from seqrec.data.sequences import Sequences
from seqrec.errors import ConfigError, DataError
from seqrec.models import neighbours, similarity_inputs
from seqrec.models.item_knn import ItemKNN, ItemKNNConfig
from seqrec.models.neighbours import nearest, others_only, top
from seqrec.models.similarity_inputs import centred, rating_matrix, svd_vectors
from seqrec.models.successions import Successions

N = 12


def histories(users: int = 30, seed: int = 0) -> Sequences:
    """Random histories with repeats, a user without events, an item that nobody meets, and ratings, some absent."""
    random = np.random.default_rng(seed)
    lists = [random.integers(1, N, random.integers(1, 15)).tolist() for _ in range(users)]
    sequences = Sequences.of([[], *lists], N)
    values = random.integers(1, 6, len(sequences.items)).astype(np.float32)
    values[random.random(len(values)) < 0.2] = np.nan
    return replace(sequences, values=values)


def fitted(train: Sequences, **settings: object) -> ItemKNN:
    return ItemKNN(ItemKNNConfig(**settings), N).fit(train)  # type: ignore[arg-type]


def dense(model: ItemKNN) -> np.ndarray:
    return model.neighbours.matrix(N).toarray()


def test_cosine_lists_are_the_sorted_rows() -> None:
    train = histories()
    met = np.zeros((len(train), N))
    for user in range(len(train)):
        met[user, train.history(user) - 1] = 1
    norms = np.maximum(np.linalg.norm(met, axis=0), 1e-12)
    cosine = (met.T @ met) / np.outer(norms, norms)
    np.fill_diagonal(cosine, 0)
    found = dense(fitted(train, similarity="cosine", neighbours=4, shrink=0))
    for item in range(N):
        best = sorted((j for j in range(N) if cosine[item, j] > 0), key=lambda j: (-np.float32(cosine[item, j]), j))[:4]
        assert sorted(np.flatnonzero(found[item])) == sorted(best)
        np.testing.assert_allclose(found[item, best], cosine[item, best], rtol=1e-6)


def test_scores_sum_similarities_and_fade() -> None:
    train = histories()
    model = fitted(train, similarity="jaccard", decay=0.5, neighbours=5)
    similar = dense(model)
    scores = model.scores(Batch.of([[3, 7, 3, 2], [N]]))
    expected = similar[2 - 1] + 0.5 * similar[3 - 1] + 0.25 * similar[7 - 1]
    np.testing.assert_allclose(scores[0], expected + model.popularity_N.numpy(), rtol=1e-5)
    torch.testing.assert_close(scores[1], model.popularity_N)
    assert scores[1, 0] > 0, "an item that is like nothing leaves the order to popularity"
    asked = torch.tensor([5, 1])
    torch.testing.assert_close(model.scores(Batch.of([[3, 4]]), asked), model.scores(Batch.of([[3, 4]]))[:, asked - 1])


@pytest.mark.parametrize("window", [1, 3])
def test_successions_count_what_follows(window: int) -> None:
    train = histories(seed=3)
    weighted, counted = np.zeros((N, N)), np.zeros((N, N))
    for user in range(len(train)):
        items = train.history(user) - 1
        for place, item in enumerate(items):
            for distance, later in enumerate(items[place + 1 : place + 1 + window], start=1):
                weighted[item, later] += 1 / distance
                counted[item, later] += 1
    sizes = np.sqrt(np.outer(train.counts(), train.counts()))
    successions = Successions(train, window)
    similarity, shared = (
        np.concatenate(x) for x in zip(successions.compare(0, 5), successions.compare(5, N), strict=True)
    )
    np.testing.assert_array_equal(shared, counted)
    np.testing.assert_allclose(similarity, weighted / np.maximum(sizes, 1e-12), rtol=1e-12)


def test_order_matters_to_sequence_alone() -> None:
    forward, backward = (Sequences.of([items] * 3, N) for items in ([1, 2, 3], [3, 2, 1]))
    assert (
        dense(fitted(forward, similarity="sequence"))[0, 1] > 0 == dense(fitted(backward, similarity="sequence"))[0, 1]
    )
    cosines = (dense(fitted(train, similarity="cosine")) for train in (forward, backward))
    np.testing.assert_array_equal(*cosines)


def test_only_the_training_part_counts() -> None:
    whole = histories()
    ends = np.maximum(whole.ends - 2, whole.starts)
    cut = Sequences.of([whole.items[start:end].tolist() for start, end in zip(whole.starts, ends, strict=True)], N)
    kept = np.concatenate([whole.values[start:end] for start, end in zip(whole.starts, ends, strict=True)])
    cut = replace(cut, values=kept)
    for similarity in ("cosine", "sequence", "adjusted_cosine", "embedding"):
        found, expected = (dense(fitted(x, similarity=similarity)) for x in (whole.until(ends), cut))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_ratings_last_one_counts_and_absent_ones_do_not() -> None:
    train = Sequences.of([[1, 2, 1], [2, 3]], 3)
    train = replace(train, values=np.array([1, 5, 4, np.nan, 2], dtype=np.float32))
    matrix = rating_matrix(train, "pearson")
    np.testing.assert_array_equal(matrix.toarray(), [[4, 5, 0], [0, 0, 2]])
    np.testing.assert_array_equal(centred(matrix).toarray(), [[-0.5, 0.5, 0], [0, 0, 0]])
    assert centred(matrix).nnz == 3, "a rating that is the user's mean stays a rating"


@pytest.mark.parametrize("values", [None, np.full(3, np.nan, dtype=np.float32)])
@pytest.mark.parametrize("settings", [{"similarity": "adjusted_cosine"}, {"similarity": "cosine", "ratings": True}])
def test_no_ratings_is_said(values: np.ndarray | None, settings: dict[str, object]) -> None:
    train = replace(Sequences.of([[1, 2, 3]], N), values=values)
    with pytest.raises(DataError, match=r"compares ratings, and this log has none.*such as cosine"):
        fitted(train, **settings)


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MOST_PAIRS", N * N - 1)
    with pytest.raises(DataError, match=r"12 items make 144 pairs.*Keep fewer items"):
        fitted(histories())
    monkeypatch.setattr(neighbours, "MOST_PAIRS", N * N)
    monkeypatch.setattr(similarity_inputs, "MOST_PAIRS", 10)
    with pytest.raises(DataError, match=r"products, more than 10.*similarity: sequence"):
        fitted(histories(), similarity="cosine")


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [{"similarity": name} for name in ("cosine", "pearson", "sequence", "kullback_leibler")]
    whole = [dense(fitted(histories(), **setting)) for setting in settings]
    monkeypatch.setattr(neighbours, "BLOCK_CELLS", 1)
    for setting, expected in zip(settings, whole, strict=True):
        np.testing.assert_array_equal(dense(fitted(histories(), **setting)), expected)


def test_top_breaks_ties_by_column() -> None:
    random = np.random.default_rng(0)
    cells = random.integers(-2, 4, (50, 8)).astype(np.float64)
    for k in (1, 3, 8, 20):
        counts, columns, values = top(cells, k)
        for row, part in enumerate(np.split(np.arange(len(columns)), np.cumsum(counts)[:-1])):
            best = sorted((c for c in range(8) if cells[row, c] > 0), key=lambda c: (-cells[row, c], c))[:k]
            assert columns[part].tolist() == sorted(best)
            assert values[part].tolist() == cells[row, sorted(best)].tolist()


def test_shrinking_and_nothing_shared() -> None:
    def compare(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        return others_only(np.full((last - first, 3), 0.5), first), np.array([[0, 1, 3]] * 3, dtype=float)[first:last]

    found = nearest(compare, 3, 3, shrink=1.0).matrix(3).toarray()
    np.testing.assert_allclose(found, [[0, 0.25, 0.375], [0, 0, 0.375], [0, 0.25, 0]])


def test_svd_vectors_give_the_matrix_back() -> None:
    matrix = np.random.default_rng(0).random((6, 4))
    left, right = svd_vectors(similarity_inputs.scipy_sparse().csr_matrix(matrix), 10)
    assert left.shape == (6, 4)
    np.testing.assert_allclose(left @ right.T, matrix, rtol=1e-9)


def test_state_goes_round_and_does_not_share() -> None:
    model = fitted(histories())
    other = ItemKNN(ItemKNNConfig(), N)
    assert other.scores(Batch.of([[1]])).tolist() == [[0.0] * N], "before fitting nothing is known"
    other.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
    batch = Batch.of([[1, 2, 3]])
    first = model.scores(batch)
    torch.testing.assert_close(other.scores(batch), first, rtol=0, atol=0)
    first.zero_()
    torch.testing.assert_close(model.scores(batch), other.scores(batch), rtol=0, atol=0)


def test_an_unknown_similarity_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model.similarity: .*'cosine'.*got 'cosin'"):
        ItemKNNConfig.parse({"similarity": "cosin"}, "model.")


def test_order_has_no_ratings() -> None:
    with pytest.raises(ConfigError, match="sequence looks at order, not at ratings"):
        ItemKNNConfig.parse({"ratings": True}, "model.")


def test_ratings_change_a_cosine_and_equal_ones_do_not() -> None:
    train = histories()
    rated, met = fitted(train, similarity="cosine", ratings=True), fitted(train, similarity="cosine")
    assert not np.allclose(dense(rated), dense(met))
    equal = replace(train, values=np.full(len(train.items), 4, dtype=np.float32))
    np.testing.assert_allclose(dense(fitted(equal, similarity="cosine", ratings=True)), dense(met), rtol=1e-6)
