"""BERT4Rec: what it masks, where it reads, and that its attention is softmax over the events of the row."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD
from seqrec.errors import ConfigError
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.models.bert4rec import BERT4Rec, BERT4RecConfig, Block
from seqrec.recommendation.recommender import Recommender
from seqrec.testing import ITEMS, check_model, synthetic_data

N, MASK = 9, 10
BATCH = Batch.of([[3], [1, 2, 9, 2, 5, 5], [4, 4]])


def model(**settings: Any) -> BERT4Rec:
    torch.manual_seed(0)
    return BERT4Rec(BERT4RecConfig(**{"embedding_dim": 8, "max_length": 6, **settings}), N).double().eval()


def first_block(bert: BERT4Rec) -> Block:
    block = bert.blocks[0]
    assert isinstance(block, Block)
    return block


@pytest.mark.parametrize("settings", [{"mask_share": 0}, {"mask_share": 1}, {"last_share": -0.1}, {"last_share": 1.1}])
def test_shares_are_checked(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.{next(iter(settings))}: "):
        BERT4RecConfig.parse(settings, "model.")


# --- what is masked


@pytest.mark.parametrize("mask_share", [0.05, 0.2, 0.6, 0.99])
def test_the_share_of_every_row_is_masked_everywhere_alike(mask_share: float) -> None:
    lengths = torch.tensor([1, 2, 3, 7, 20, 33] * 500)
    items = torch.where(torch.arange(33) < lengths[:, None], torch.randint(1, N + 1, (3000, 33)), PAD)
    inputs, targets = model(mask_share=mask_share, last_share=0.0).training_batch(Batch(items, lengths))
    masked = targets != PAD
    expected = [max(1, min(round(mask_share * length), length - 1)) for length in lengths.tolist()]
    assert masked.sum(1).tolist() == expected
    assert torch.equal(inputs.items, torch.where(masked, MASK, items))
    assert torch.equal(targets, torch.where(masked, items, PAD))
    assert torch.equal(inputs.lengths, lengths)
    for length in (7, 20, 33):  # each place is as likely as the next: within 5 standard errors of 500 rows
        share = expected[lengths.tolist().index(length)] / length
        error = 5 * math.sqrt(share * (1 - share) / 500)
        assert masked[lengths == length][:, :length].double().mean(0).tolist() == pytest.approx(
            [share] * length, abs=error
        )


@pytest.mark.parametrize("last_share", [0.0, 0.3, 1.0])
def test_some_rows_hide_their_last_event_alone(last_share: float) -> None:
    batch = Batch(torch.randint(1, N + 1, (4000, 20)), torch.full((4000,), 20))
    _, targets = model(last_share=last_share, mask_share=0.2).training_batch(batch)
    masked = targets != PAD
    alone = masked.sum(1) == 1
    assert masked[alone, -1].all()
    assert (masked[~alone].sum(1) == 4).all()
    assert alone.double().mean().item() == pytest.approx(last_share, abs=5 * math.sqrt(0.25 / 4000))


def test_a_row_of_one_event_is_masked_and_stays_finite() -> None:
    bert = model()
    inputs, targets = bert.training_batch(Batch.of([[3], [5]]))
    assert inputs.items.tolist() == [[MASK], [MASK]]
    assert targets.tolist() == [[3], [5]]
    assert torch.isfinite(bert.encode(inputs)).all()


def test_masks_come_from_the_global_generator() -> None:
    bert, batch = model(), Batch(torch.randint(1, N + 1, (50, 20)), torch.full((50,), 20))
    state = torch.get_rng_state()
    first, second = bert.training_batch(batch)[1], bert.training_batch(batch)[1]
    torch.set_rng_state(state)
    assert torch.equal(bert.training_batch(batch)[1], first)
    assert not torch.equal(first, second)


# --- where it reads


def test_mask_stands_after_the_last_event() -> None:
    found = model().with_mask(BATCH)
    assert found.items.tolist() == [
        [3, MASK, 0, 0, 0, 0, 0],
        [1, 2, 9, 2, 5, 5, MASK],
        [4, 4, MASK, 0, 0, 0, 0],
    ]
    assert found.lengths.tolist() == [2, 7, 3]


def test_scores_are_read_at_the_mask() -> None:
    bert = model()
    h_BLD = bert.encode(Batch.of([[3, MASK], [4, MASK]]))
    torch.testing.assert_close(bert.scores(Batch.of([[3], [4]])), bert.item_vectors().score(h_BLD[:, 1]))


def test_a_window_that_is_trained_on_has_one_event_more_than_a_history() -> None:
    bert = model()
    assert bert.encode(Batch.of([[1, 2, 3, 4, 5, 6, 7]])).shape == (1, 7, 8)
    assert bert.scores(Batch.of([[1, 2, 3, 4, 5, 6]])).shape == (1, N)
    with pytest.raises(ValueError, match="8 places with MASK; max_length is 6: cut histories"):
        bert.scores(Batch.of([[1, 2, 3, 4, 5, 6, 7]]))


def test_evaluation_and_recommendation_cut_longer_histories() -> None:
    torch.manual_seed(0)
    bert, data = BERT4Rec(BERT4RecConfig(embedding_dim=8, max_length=5), ITEMS).eval(), synthetic_data()
    ranks = Evaluator(data, EvaluationConfig(filter_seen=False)).evaluate(bert, "test").ranks
    history = data.sequences.history(0)
    scores = bert.scores(Batch.of([history[:-1][-5:].tolist()]))[0]
    assert len(history) > 6
    assert ranks[0] == 1 + (scores > scores[history[-1] - 1]).sum().item()
    names = [str(item) for item in history]
    recommender = Recommender(bert, data.catalogue, filter_seen=False)
    assert recommender.recommend(names, 3) == recommender.recommend(names[-5:], 3)
    assert recommender.recommend(names, 3) != recommender.recommend(names[:5], 3)


def test_mask_is_no_item() -> None:
    bert = model()
    assert bert.item_vectors().weight.shape == (N, 8)
    assert bert.scores(BATCH).shape == (3, N)


def test_the_vector_of_mask_is_its_own() -> None:
    bert = model()
    before = bert.scores(BATCH)
    with torch.no_grad():
        bert.mask += torch.linspace(-1, 1, 8, dtype=torch.float64)
    assert not torch.allclose(bert.scores(BATCH), before)
    assert bert.item_vectors().weight.shape == (N, 8)


# --- attention


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_weights_sum_to_one_over_the_events_of_the_row_and_its_mask(num_heads: int) -> None:
    found = model(num_heads=num_heads, num_blocks=3).inspect(BATCH)
    assert sorted(found) == ["attention.0", "attention.1", "attention.2"]
    for weights in found.values():
        assert weights.shape == (3, num_heads, 7, 7)
        assert not weights[0, ..., 2:].any()
        assert not weights[2, ..., 3:].any()
        assert (weights[1] > 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, num_heads, 7, dtype=torch.float64))


@pytest.mark.parametrize("num_heads", [1, 2])
def test_weights_reproduce_what_the_layer_gives(num_heads: int) -> None:
    bert = model(num_heads=num_heads)
    block, batch = first_block(bert), bert.with_mask(BATCH)
    x_BLD = block.attention_norm(bert.embed(batch))
    v = block.attention._heads(x_BLD)[2]
    rebuilt = (bert.inspect(BATCH)["attention.0"] @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(block.attention.out(rebuilt), block.attention(x_BLD, batch.valid))


def test_weights_are_softmax_of_scaled_products() -> None:
    attention = first_block(model(num_heads=2)).attention
    x_LD = torch.randn(4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    valid = torch.tensor([[True, True, True, False]])
    found = attention.weights(x_LD[None], valid)[0].tolist()
    q_LD, k_LD, _ = (part.tolist() for part in attention.qkv(x_LD).chunk(3, -1))
    for head, (low, high) in enumerate([(0, 4), (4, 8)]):
        for row in range(4):
            products = [
                math.fsum(a * b for a, b in zip(q_LD[row][low:high], k_LD[column][low:high], strict=True)) / 2
                for column in range(3)
            ]
            total = math.fsum(math.exp(product) for product in products)
            assert found[head][row] == pytest.approx([math.exp(product) / total for product in products] + [0.0])


def test_both_sides_of_a_gap_matter() -> None:
    bert = model()
    h = bert.encode(Batch.of([[1, MASK, 3], [2, MASK, 3], [1, MASK, 4]]))[:, 1]
    assert not torch.allclose(h[0], h[1])
    assert not torch.allclose(h[0], h[2])


def test_order_matters() -> None:
    forth, back = (model().scores(Batch.of([history])) for history in ([1, 2, 3], [2, 1, 3]))
    assert not torch.allclose(forth, back)


def test_without_positions_a_history_is_a_set() -> None:
    bert = model(positions=False)
    forth, back = (bert.scores(Batch.of([history])) for history in ([1, 2, 3], [3, 1, 2]))
    torch.testing.assert_close(forth, back)
    assert "positions" not in dict(bert.named_parameters())
    with pytest.raises(ValueError, match="8 places with MASK; max_length is 6"):
        bert.scores(Batch.of([[1] * 7]))


def test_by_itself_there_are_positions_and_feed_forward_layers() -> None:
    bert = model()
    x_BLD = bert.items(BATCH.items) + bert.positions[:6]
    for block in bert.blocks:
        assert isinstance(block, Block)
        assert block.feedforward is not None
        x_BLD = x_BLD + block.attention(block.attention_norm(x_BLD), BATCH.valid)
        x_BLD = x_BLD + block.feedforward(block.feedforward_norm(x_BLD))
    torch.testing.assert_close(bert.encode(BATCH), bert.items.query(bert.norm(x_BLD)))


def test_without_feed_forward_a_block_adds_attention_alone() -> None:
    block = first_block(model(feedforward_factor=0))
    x_BLD = torch.randn(3, 6, 8, dtype=torch.float64)
    expected = x_BLD + block.attention(block.attention_norm(x_BLD), BATCH.valid)
    torch.testing.assert_close(block(x_BLD, BATCH.valid), expected)


def test_what_is_switched_off_passes_the_battery() -> None:
    for settings in ({"positions": False}, {"feedforward_factor": 0}):
        check_model(BERT4Rec, embedding_dim=16, max_length=32, num_blocks=1, **settings)
