"""Neural CF: a mean that knows no order, and towers on both sides."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqrec.data.batches import Batch
from seqrec.models.neural_cf import NeuralCF, NeuralCFConfig

N = 9
BATCH = Batch.of([[3], [1, 2, 9, 2, 5, 5], [4, 4]])


def model(**settings: Any) -> NeuralCF:
    torch.manual_seed(0)
    return NeuralCF(NeuralCFConfig(embedding_dim=8, **settings), N).double().eval()


def test_each_prefix_is_the_tower_of_its_mean() -> None:
    ncf = model()
    h_BLD = ncf.encode(BATCH)
    table = ncf.items.weight * 8**0.5
    for row, length in enumerate(BATCH.lengths.tolist()):
        for position in range(length):
            prefix = BATCH.items[row, : position + 1].tolist()
            mean = sum(table[item] for item in prefix) / len(prefix)
            expected = ncf.items.query(ncf.history_tower(mean))
            torch.testing.assert_close(h_BLD[row, position], expected)


@pytest.mark.parametrize("settings", [{}, {"similarity": "dot"}])
def test_order_does_not_matter_and_repetition_does(settings: dict[str, str]) -> None:
    ncf = model(**settings)
    forth, back, twice = ncf.scores(Batch.of([[1, 2, 3, 3], [3, 2, 1, 3], [1, 2, 3, 2]]))
    torch.testing.assert_close(forth, back)
    assert not torch.allclose(forth, twice)


def test_items_pass_their_own_tower() -> None:
    ncf = model(similarity="dot")
    vectors = ncf.item_vectors()
    assert vectors.weight.shape == (N, 8)
    torch.testing.assert_close(vectors.weight[4], ncf.item_tower(ncf.items.weight[5] * 8**0.5))
    with torch.no_grad():
        ncf.item_tower.norm.weight.zero_()
        ncf.item_tower.norm.bias.zero_()
    assert not ncf.scores(BATCH).any()  # the bias of every item is still zero


def test_cosine_compares_directions_only() -> None:
    vectors = model().item_vectors()
    torch.testing.assert_close(vectors.weight.norm(dim=1), torch.ones(N, dtype=torch.float64))
    assert vectors.bias is None
    norms = model(temperature=0.1).encode(BATCH)[BATCH.valid].norm(dim=-1)
    torch.testing.assert_close(norms, torch.full_like(norms, 10.0))
