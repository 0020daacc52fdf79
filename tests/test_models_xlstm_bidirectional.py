"""An xLSTM that fills gaps: each side is seen, nothing behind the end is, and there is no state to go on from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD
from seqrec.errors import ConfigError
from seqrec.models.bert4rec import BERT4Rec, BERT4RecConfig
from seqrec.models.xlstm import XLSTM, XLSTMConfig
from seqrec.models.xlstm.mixers import Rows

N, MASK = 30, 31
BATCH = Batch.of([[3], [1, 2, 30, 2], [5, 6, 7, 8, 9, 10, 11]])


def model(**settings: Any) -> XLSTM:
    torch.manual_seed(0)
    chosen = {"embedding_dim": 8, "max_length": 16, "bidirectional": True, **settings}
    return XLSTM(XLSTMConfig(**chosen), N).double().eval()


def test_reading_backwards_keeps_padding_behind() -> None:
    rows = Rows.backwards(BATCH, XLSTMConfig(bidirectional=True))
    turned = rows.turn(BATCH.items)
    assert turned.tolist() == [[3, 0, 0, 0, 0, 0, 0], [2, 30, 2, 1, 0, 0, 0], [11, 10, 9, 8, 7, 6, 5]]
    assert torch.equal(rows.turn(turned), BATCH.items)
    wide = BATCH.items[:, None, :, None].expand(-1, 2, -1, 3)
    assert torch.equal(rows.turn(wide, 2), turned[:, None, :, None].expand(-1, 2, -1, 3))


@pytest.mark.parametrize("settings", [{}, {"stack": "s"}, {"stack": "a", "num_blocks": 1}, {"stack": "ma"}], ids=str)
def test_both_sides_of_a_gap_matter(settings: dict[str, Any]) -> None:
    rows = [[1, 2, MASK, 4, 5]]
    rows += [[*rows[0][:at], 20, *rows[0][at + 1 :]] for at in (0, 1, 3, 4)]
    h_BD = model(**settings).encode(Batch.of(rows))[:, 2]
    assert all(not torch.allclose(h_BD[0], other) for other in h_BD[1:])


@pytest.mark.parametrize(("stack", "turns"), [("m", "><><"), ("ms", "><><"), ("mas", ">|<>"), ("a", "||||")])
def test_every_second_cell_reads_backwards_and_attention_never_does(stack: str, turns: str) -> None:
    xlstm = model(stack=stack, num_blocks=4)
    for (block, rows), turn in zip(xlstm._readings(BATCH), turns, strict=True):
        assert (rows.order is not None) == (turn == "<")
        found = block.mixer.inspect(torch.randn(3, 7, 8).double(), rows)["attention"]
        assert bool(found[2].triu(1).any()) == (turn == "|")


def test_a_block_that_reads_backwards_is_one_that_reads_the_row_turned() -> None:
    xlstm, row = model(), [5, 6, 7, 8, 9]
    (_, forwards), (block, backwards) = xlstm._readings(Batch.of([row]))
    x_BLD = torch.randn(1, 5, 8).double()
    found = backwards.turn(sum(block(backwards.turn(x_BLD), None, backwards)))
    torch.testing.assert_close(found, sum(block(x_BLD.flip(1), None, forwards)).flip(1))


def test_what_is_masked_is_what_bert4rec_masks() -> None:
    bert = BERT4Rec(BERT4RecConfig(embedding_dim=8, max_length=16), N)
    batches = []
    for who in (model(), bert):
        torch.manual_seed(5)
        batches.append(who.training_batch(BATCH))
    (inputs, targets), (expected, expected_targets) = batches
    assert torch.equal(inputs.items, expected.items)
    assert torch.equal(targets, expected_targets)
    assert torch.equal(inputs.items == MASK, targets != PAD)


def test_scores_are_read_at_a_mask_behind_the_history() -> None:
    xlstm = model()
    h_BLD = xlstm.encode(Batch.of([[3, 4, MASK], [4, MASK]]))
    expected = xlstm.item_vectors().score(torch.stack([h_BLD[0, 2], h_BLD[1, 1]]))
    torch.testing.assert_close(xlstm.scores(Batch.of([[3, 4], [4]])), expected)


def test_longer_rows_and_what_stands_behind_do_not_matter() -> None:
    xlstm = model(stack="msa", num_blocks=5)
    wide = torch.nn.functional.pad(BATCH.items, (0, 5), value=17)
    torch.testing.assert_close(xlstm.scores(Batch(wide, BATCH.lengths)), xlstm.scores(BATCH))


@pytest.mark.parametrize("stack", ["m", "s", "msa"])
def test_inspect_shows_later_events_where_blocks_see_them(stack: str) -> None:
    found = model(stack=stack, num_blocks=3).inspect(BATCH)
    L = BATCH.items.shape[1] + 1  # and the mask
    assert found["attention.0"].shape == (3, 2, L, L)
    assert not found["attention.0"].triu(1).any()
    backwards = found["attention.1"][2]
    assert bool(backwards.triu(1).any())
    assert not backwards.tril(-1).any()
    assert not found["attention.1"][1, :, :5, 5:].any()  # padding
    if stack == "msa":
        assert (found["attention.2"][2] > 0).all()


def test_there_is_no_state() -> None:
    xlstm = model()
    for ask in (
        lambda: xlstm.initial_state(1),
        lambda: xlstm.prefill(BATCH),
        lambda: xlstm.step(torch.tensor([1]), model(bidirectional=False).initial_state(1)),
    ):
        with pytest.raises(ConfigError, match=r"reads the whole history anew.*model\.bidirectional=false"):
            ask()


def test_models_say_one_by_one_whether_they_see_both_sides() -> None:
    assert model().bidirectional
    assert not model(bidirectional=False).bidirectional
    assert not hasattr(model(bidirectional=False), "mask")
