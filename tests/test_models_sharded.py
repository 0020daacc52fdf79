"""Tables cut among ranks: the numbers of a whole one, in float64, forwards and backwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ranks import on_ranks
from seqrec.data.batches import Batch
from seqrec.distributed import ALONE, Ranks
from seqrec.errors import ConfigError
from seqrec.kernels import sharded_softmax
from seqrec.kernels.sharded_softmax import Shard, sharded_cross_entropy
from seqrec.models.build import build_model
from seqrec.models.layers import ItemTable
from seqrec.models.sharded import ShardedItemTable, ShardedItemVectors, shard_items, sharded_table

ITEMS, WIDTH, POSITIONS = 23, 6, 8


def _problem(ranks: Ranks) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Hidden states and targets of all positions, the table, its bias, and weights of the losses."""
    draw = torch.Generator().manual_seed(3)
    count = POSITIONS * ranks.size
    h, rows = (torch.randn(n, WIDTH, generator=draw, dtype=torch.float64) * 3 for n in (count, ITEMS))
    targets = torch.randint(1, ITEMS + 1, (count,), generator=draw)
    targets[::3] = 0
    targets[1], targets[2] = 1, ITEMS
    h[5] *= 200  # scores of thousands
    bias, weights = (torch.randn(n, generator=draw, dtype=torch.float64) for n in (ITEMS, count))
    return h, targets, rows, bias, weights


def _softmax(ranks: Ranks, smoothing: float, biased: bool, block: int) -> list[Tensor | None]:
    sharded_softmax.MOST_SCORES = block
    h, targets, rows, bias, weights = _problem(ranks)
    own, start = ranks.parts(ITEMS)[ranks.rank], sum(ranks.parts(ITEMS)[: ranks.rank])
    here = slice(ranks.rank * POSITIONS, (ranks.rank + 1) * POSITIONS)
    h, rows = h[here].clone().requires_grad_(), rows[start : start + own].clone().requires_grad_()
    offsets = bias[start : start + own].clone().requires_grad_() if biased else None
    losses = sharded_cross_entropy(h, rows, offsets, targets[here], Shard(start, ITEMS, ranks), smoothing)
    (losses * weights[here]).sum().backward()
    return [losses.detach(), h.grad, rows.grad, None if offsets is None else offsets.grad]


@pytest.mark.parametrize(("size", "block"), [(2, 1 << 20), (3, 50)])
@pytest.mark.parametrize(("smoothing", "biased"), [(0.0, False), (0.3, True)])
def test_softmax_over_shards_is_that_of_the_whole(size: int, block: int, smoothing: float, biased: bool) -> None:
    h, targets, rows, bias, weights = (x.clone() for x in _problem(Ranks(0, size)))
    for x in (h, rows, bias):
        x.requires_grad_()
    logits = F.linear(h, rows, bias if biased else None)
    losses = F.cross_entropy(logits, targets - 1, ignore_index=-1, label_smoothing=smoothing, reduction="none")
    (losses * weights).sum().backward()
    expected = [losses.detach(), h.grad, rows.grad, bias.grad if biased else None]
    found = on_ranks(size, _softmax, smoothing, biased, block)
    for whole, parts in zip(expected, zip(*found, strict=True), strict=True):
        if whole is not None:
            torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-10, atol=1e-10)


def test_softmax_of_one_rank_without_others() -> None:
    h, targets, rows, bias, _ = _problem(ALONE)
    found = sharded_cross_entropy(h, rows, bias, targets, Shard(0, ITEMS, ALONE))
    expected = F.cross_entropy(F.linear(h, rows, bias), targets - 1, ignore_index=-1, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


# --- models


def _model(name: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    spec = {"name": name, "embedding_dim": WIDTH * 2, "max_length": 5, "dropout": 0.0, **settings}
    return build_model(spec, ITEMS).double()  # type: ignore[attr-defined]


def _batch(ranks: Ranks) -> Batch:
    rows = [[3, 4, 5], [ITEMS, 1, 7, 8], [9, 2], [11, 12, 13, 14, 15]]
    whole = Batch.of(rows)
    return Batch(whole.items[ranks.rank :: ranks.size], whole.lengths[ranks.rank :: ranks.size])


def _gradients(ranks: Ranks, name: str, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Of the mean loss over the batch, whole: with the table of all ranks put together again."""
    model = _model(name, **settings)
    if ranks.size > 1:
        shard_items(model, ranks)
    inputs, targets = model.training_batch(_batch(ranks))
    h, vectors = model.encode(inputs), model.item_vectors()
    count = (targets != 0).sum()
    if isinstance(vectors, ShardedItemVectors):
        losses = vectors.cross_entropy(h.flatten(0, 1), targets.flatten(), 0.1)
    else:
        losses = F.cross_entropy(
            vectors.score(h).flatten(0, 1),
            targets.flatten() - 1,
            ignore_index=-1,
            label_smoothing=0.1,
            reduction="none",
        )
    part = ranks.part_of_mean(losses.sum() / count, count)
    part.backward()
    table = sharded_table(model)
    held = set() if table is None else set(table.parameters())
    loss = ranks.sum_gradients([p for p in model.parameters() if p not in held], part.detach())
    found = {n: p.grad if table is None or p not in held else table.whole(p.grad) for n, p in model.named_parameters()}
    return found | {"loss": loss}


@pytest.mark.parametrize("name", ["sasrec", "xlstm"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_model_with_a_sharded_table_has_the_gradients_of_the_whole(name: str, similarity: str) -> None:
    expected = _gradients(ALONE, name, {"similarity": similarity})
    found = on_ranks(2, _gradients, name, {"similarity": similarity})[0]
    assert set(found) == set(expected)
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-9, atol=1e-12)


def _scores(ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    model = _model("sasrec", similarity="dot")
    model.items.bias.data.normal_()
    batch = Batch.of([[3, 4, 5], [ITEMS, 1, 7, 8]])
    expected = model.scores(batch)
    shard_items(model, ranks)
    table = sharded_table(model)
    assert table is not None
    again = table.part(table.whole(table.weight) if ranks.is_main else table.whole(table.weight)[:0])
    assert again.equal(table.weight)
    return expected.detach(), model.scores(batch).detach(), model.items(torch.tensor([[0, ITEMS]])).detach()


def test_scores_and_rows_come_back_whole() -> None:
    for expected, found, looked_up in on_ranks(3, _scores):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert (looked_up[0, 0] == 0).all()
        assert (looked_up[0, 1] != 0).all()


# --- refusals


def test_what_cannot_be_cut_is_refused() -> None:
    model = _model("sasrec")
    with pytest.raises(ConfigError, match="23 items cannot be cut among 24 processes"):
        shard_items(model, Ranks(0, 24))
    assert sharded_table(model) is None
    del model.items
    with pytest.raises(ConfigError, match="SASRec has no item table that can be cut"):
        shard_items(model, Ranks(0, 2))


def test_a_part_knows_its_rows() -> None:
    table = _model("sasrec").items
    assert isinstance(table, ItemTable)
    parts = [ShardedItemTable(table, Ranks(rank, 3)) for rank in range(3)]
    assert torch.cat([part.weight for part in parts]).equal(table.weight[1:])
    with pytest.raises(ConfigError, match="load the run to score chosen items"):
        ShardedItemTable(table, ALONE).vectors().of(torch.tensor([1]))
