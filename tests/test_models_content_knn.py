"""Neighbours by content against cosines of written-out vectors, and what is said where content is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from seqrec.data.batches import Batch
from seqrec.data.features import Categorical, Features, Numeric
from seqrec.data.sequences import Sequences
from seqrec.errors import ConfigError, DataError
from seqrec.models.content_knn import ContentKNN, ContentKNNConfig
from seqrec.testing import ITEMS, synthetic_data


def data(**changes: Any) -> Any:
    """The synthetic data with a brand for every second item, a price, and whatever else is said."""
    made = synthetic_data()
    codes = np.where(np.arange(ITEMS) % 2, np.arange(ITEMS) % 3 + 1, 0).astype(np.int32)
    more = {"brand": Categorical(codes, ["a", "b", "c"]), "price": Numeric(np.ones(ITEMS, dtype=np.float32))}
    return replace(made, known=Features({**made.features().items, **more, **changes}))  # type: ignore[call-arg]


def fitted(**settings: Any) -> ContentKNN:
    return ContentKNN(ContentKNNConfig(**settings), ITEMS).fit_data(data())


def slow_similarity(weights: dict[str, float]) -> np.ndarray:
    features = data().features().items
    total = np.zeros((ITEMS, ITEMS))
    for name, weight in weights.items():
        feature = features[name]
        if name == "title":
            vectors = feature.vectors.astype(float)
        else:
            words = [set(feature.words(item)) for item in range(ITEMS)]
            vectors = np.array([[word in mine for word in feature.vocabulary] for mine in words], dtype=float)
        lengths = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
        total += weight * (vectors @ vectors.T) / np.outer(lengths, lengths)
    np.fill_diagonal(total, 0)
    return total


@pytest.mark.parametrize(
    "weights", [{"categories": 1.0, "title": 1.0}, {"title": 2.0}, {"brand": 1.0, "categories": 0.5}]
)
def test_scores_as_written_out(weights: dict[str, float]) -> None:
    model = fitted(weights=weights, neighbours=ITEMS, decay=0.5)
    similar = np.maximum(slow_similarity(weights), 0)
    scores = model.scores(Batch.of([[3, 9, 12]]))[0]
    expected = similar[11] + 0.5 * similar[8] + 0.25 * similar[2]
    np.testing.assert_allclose(scores, expected + model.popularity_N.numpy(), rtol=1e-5, atol=1e-6)
    asked = torch.tensor([5, 1])
    torch.testing.assert_close(model.scores(Batch.of([[3, 9, 12]]), asked)[0], scores[asked - 1])


def test_by_default_categories_and_title() -> None:
    batch = Batch.of([[3, 9, 12], [40]])
    torch.testing.assert_close(fitted().scores(batch), fitted(weights={"categories": 1, "title": 1}).scores(batch))


def test_state_goes_round() -> None:
    model, other, batch = fitted(), ContentKNN(ContentKNNConfig(), ITEMS), Batch.of([[3, 9, 12]])
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.scores(batch), model.scores(batch), rtol=0, atol=0)


def test_missing_features_are_named() -> None:
    with pytest.raises(DataError, match=r"compares director of items, and this data set has categories, title, brand"):
        fitted(weights={"categories": 1.0, "director": 1.0})
    bare = replace(synthetic_data(), known=Features())  # type: ignore[call-arg]
    with pytest.raises(DataError, match=r"compares categories, title of items.* has nothing about its items.*item_knn"):
        ContentKNN(ContentKNNConfig(), ITEMS).fit_data(bare)


def test_numbers_have_no_cosine() -> None:
    with pytest.raises(DataError, match="words and vectors; price is a number"):
        fitted(weights={"price": 1.0})


def test_histories_alone_are_refused() -> None:
    with pytest.raises(DataError, match="call fit_data"):
        ContentKNN(ContentKNNConfig(), ITEMS).fit(Sequences.of([[1, 2]], ITEMS))


def test_weights_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"model\.weights"):
        ContentKNNConfig.parse({"weights": {}}, "model.")
    with pytest.raises(ConfigError, match=r"model\.weights"):
        ContentKNNConfig.parse({"weights": {"title": 0}}, "model.")
