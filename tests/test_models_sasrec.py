"""SASRec: its configuration, and that the weights it shows are those it applies."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from seqrec.data.batches import Batch
from seqrec.errors import ConfigError
from seqrec.models.sasrec import Block, SASRec, SASRecConfig
from seqrec.testing import check_model

BATCH = Batch.of([[3], [1, 2, 9, 2, 5, 5], [4, 4]])


def model(**settings: Any) -> SASRec:
    torch.manual_seed(0)
    return SASRec(SASRecConfig(embedding_dim=8, max_length=6, **settings), 9).double().eval()


def first_block(sasrec: SASRec) -> Block:
    block = sasrec.blocks[0]
    assert isinstance(block, Block)
    return block


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="embedding_dim 9 is not a multiple of num_heads 2"):
        SASRecConfig.parse({"embedding_dim": 9})


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_weights_sum_to_one_over_the_past(num_heads: int) -> None:
    found = model(num_heads=num_heads, num_blocks=3).inspect(BATCH)
    assert sorted(found) == ["attention.0", "attention.1", "attention.2"]
    for weights in found.values():
        assert weights.shape == (3, num_heads, 6, 6)
        assert not weights.triu(1).any()
        assert bool((weights >= 0).all())
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, num_heads, 6, dtype=torch.float64))


@pytest.mark.parametrize("num_heads", [1, 2])
def test_weights_reproduce_what_the_layer_gives(num_heads: int) -> None:
    sasrec = model(num_heads=num_heads)
    block = first_block(sasrec)
    x_BLD = block.attention_norm(sasrec.embed(BATCH))
    v = block.attention._heads(x_BLD)[2]
    rebuilt = (sasrec.inspect(BATCH)["attention.0"] @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(block.attention.out(rebuilt), block.attention(x_BLD))


def test_weights_are_softmax_of_scaled_products() -> None:
    attention = first_block(model(num_heads=2)).attention
    x_LD = torch.randn(4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = attention.weights(x_LD[None])[0].tolist()
    q_LD, k_LD, _ = (part.tolist() for part in attention.qkv(x_LD).chunk(3, -1))
    for head, (low, high) in enumerate([(0, 4), (4, 8)]):
        for row in range(4):
            products = [
                math.fsum(a * b for a, b in zip(q_LD[row][low:high], k_LD[column][low:high], strict=True)) / 2
                for column in range(row + 1)
            ]
            total = math.fsum(math.exp(product) for product in products)
            expected = [math.exp(product) / total for product in products] + [0.0] * (3 - row)
            assert found[head][row] == pytest.approx(expected)


def test_order_matters() -> None:
    sasrec = model()
    forth, back = (sasrec.scores(Batch.of([history])) for history in ([1, 2, 3], [2, 1, 3]))
    assert not torch.allclose(forth, back)


def test_without_positions_order_is_in_the_causal_mask_alone() -> None:
    sasrec = model(positions=False, num_blocks=1)
    forth, back, longer = (sasrec.scores(Batch.of([history])) for history in ([1, 2, 3], [2, 1, 3], [1, 1, 2, 2, 3, 3]))
    torch.testing.assert_close(forth, back, msg="one block sees a set and the last event")
    torch.testing.assert_close(forth, longer, msg="shares of a softmax are the same")
    assert "positions" not in dict(sasrec.named_parameters())
    with pytest.raises(ValueError, match="histories of 7 events; max_length is 6"):
        sasrec.scores(Batch.of([[1] * 7]))


def test_by_itself_there_are_positions_and_feed_forward_layers() -> None:
    sasrec = model()
    x_BLD = sasrec.items(BATCH.items) + sasrec.positions[:6]
    for block in sasrec.blocks:
        assert isinstance(block, Block)
        assert block.feedforward is not None
        x_BLD = x_BLD + block.attention(block.attention_norm(x_BLD))
        x_BLD = x_BLD + block.feedforward(block.feedforward_norm(x_BLD))
    torch.testing.assert_close(sasrec.encode(BATCH), sasrec.items.query(sasrec.norm(x_BLD)))


def test_without_feed_forward_a_block_adds_attention_alone() -> None:
    sasrec = model(feedforward_factor=0)
    x_BLD = sasrec.embed(BATCH)
    for block in sasrec.blocks:
        assert isinstance(block, Block)
        x_BLD = x_BLD + block.attention(block.attention_norm(x_BLD))
    torch.testing.assert_close(sasrec.encode(BATCH), sasrec.items.query(sasrec.norm(x_BLD)))
    torch.testing.assert_close(sasrec.last_state(BATCH), BATCH.last(sasrec.encode(BATCH)))


def test_what_is_switched_off_passes_the_battery() -> None:
    settings = {"embedding_dim": 16, "max_length": 32, "num_blocks": 1}
    check_model(SASRec, **settings, positions=False, feedforward_factor=0)
