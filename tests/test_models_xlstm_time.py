"""Gates that see the time between events: what they are told, that it is in its place, and what they are never told."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from seqrec.data.batches import NO_TIME, Batch
from seqrec.errors import DataError
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models.xlstm import XLSTM, XLSTMConfig
from seqrec.models.xlstm.facts import elapsed
from seqrec.recommendation.recommender import Recommender
from seqrec.run_folder import RunFolder
from seqrec.testing import ITEMS, synthetic_data
from seqrec.training.config import TrainingConfig
from seqrec.training.trainer import Trainer

DAY = 86_400_000
BATCH = replace(
    Batch.of([[3, 1, 2, 30, 2], [1, 2, 30]]),
    times=torch.tensor([[0, 5, 3 * DAY, 3 * DAY, 90 * DAY], [7, 9 * DAY, 9 * DAY + 1, NO_TIME, NO_TIME]]),
)


def model(told: float = 1.0, items: int = ITEMS, **settings: Any) -> XLSTM:
    """In float64; weights on the time are drawn times `told`, instead of 0."""
    torch.manual_seed(0)
    xlstm = XLSTM(XLSTMConfig(**{"embedding_dim": 8, "time_gate": True, **settings}), items).double().eval()
    with torch.no_grad():
        for block in xlstm._blocks():
            if getattr(block.mixer, "time_gate", None) is not None:
                block.mixer.time_gate += told * torch.randn_like(block.mixer.time_gate)
    return xlstm


def timed(batch: Batch, times: Any) -> Batch:
    return replace(batch, times=times)


# --- what gates are told


def test_facts_about_elapsed_time() -> None:
    moments = [0, 1_000, DAY, 365 * DAY + DAY // 4, NO_TIME]
    found = elapsed(torch.zeros(5, dtype=torch.int64), torch.tensor(moments))
    year = 365.25
    logs = [
        [1.0, math.log1p(days * 86_400) / math.log1p(year * 86_400), math.log1p(days) / math.log1p(year)]
        for days in (0, 1 / 86_400, 1, year)
    ]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), torch.tensor([*logs, [0.0] * 3]).double(), rtol=1e-5, atol=1e-6)
    assert found[0].tolist() == [1, 0, 0]
    torch.testing.assert_close(found[3], torch.ones(3))


def test_order_and_unknown_ends_do_not_matter() -> None:
    a, b = torch.tensor([5 * DAY, NO_TIME, NO_TIME]), torch.tensor([DAY, DAY, NO_TIME])
    assert torch.equal(elapsed(a, b), elapsed(b, a))
    assert not elapsed(a, b)[1:].any()


@pytest.mark.parametrize("stack", ["m", "s"])
def test_the_forget_gate_moves_by_the_gap_before_the_event(stack: str) -> None:
    xlstm = model(stack=stack, gate_cap=None, num_blocks=1)
    told, untold = xlstm.inspect(BATCH), xlstm.inspect(timed(BATCH, None))
    torch.testing.assert_close(told["input_gate.0"][..., 0], untold["input_gate.0"][..., 0])
    assert torch.equal(told["forget_gate.0"][..., 0], untold["forget_gate.0"][..., 0])  # nothing is before it
    if stack == "m":
        gaps = elapsed(BATCH.times[:, :-1], BATCH.times[:, 1:]).double()  # type: ignore[index]
        shift = (gaps @ xlstm._blocks()[0].mixer.time_gate.T).mT
        moved = told["forget_gate.0"].logit()[..., 1:] - untold["forget_gate.0"].logit()[..., 1:]
        torch.testing.assert_close(moved[0], shift[0])
        torch.testing.assert_close(moved[1, :, :2], shift[1, :, :2])
    assert not torch.allclose(told["forget_gate.0"], untold["forget_gate.0"])


def test_a_model_starts_as_if_it_knew_no_times() -> None:
    fresh, plain = model(told=0), model(time_gate=False)
    plain.load_state_dict({name: value for name, value in fresh.state_dict().items() if "time_gate" not in name})
    assert torch.equal(fresh.encode(BATCH), plain.encode(BATCH))


@pytest.mark.parametrize("stack", ["m", "s", "msa"])
def test_unknown_times_shift_nothing(stack: str) -> None:
    xlstm = model(stack=stack, num_blocks=3)
    unknown = torch.full_like(BATCH.items, NO_TIME)
    assert torch.equal(xlstm.encode(timed(BATCH, None)), xlstm.encode(timed(BATCH, unknown)))
    assert not torch.allclose(xlstm.encode(timed(BATCH, None))[:, 1:], xlstm.encode(BATCH)[:, 1:])


def test_only_differences_of_times_matter() -> None:
    xlstm, later = model(), torch.where(BATCH.valid, BATCH.times + 1000 * DAY, NO_TIME)  # type: ignore[operator]
    assert torch.equal(xlstm.encode(timed(BATCH, later)), xlstm.encode(BATCH))


# --- one event at a time


@pytest.mark.parametrize("stack", ["m", "s", "msa"])
def test_step_by_step_the_gap_is_that_to_the_last_event(stack: str) -> None:
    xlstm = model(stack=stack, num_blocks=3)
    _, state = xlstm.prefill(BATCH)
    assert state.last_time.tolist() == [90 * DAY, 9 * DAY + 1]
    items = torch.tensor([4, 5])
    stepped, after = xlstm.step(items, state, torch.tensor([91 * DAY, NO_TIME]))
    silent, _ = xlstm.step(items, state)
    assert after.last_time.tolist() == [91 * DAY, NO_TIME]
    rows = Batch.of([[3, 1, 2, 30, 2, 4], [1, 2, 30, 5]])
    times = torch.full((2, 6), NO_TIME)
    times[0, :5], times[0, 5] = BATCH.times[0], 91 * DAY  # type: ignore[index]
    times[1, :3] = BATCH.times[1, :3]  # type: ignore[index]
    torch.testing.assert_close(stepped, rows.last(xlstm.encode(timed(rows, times))), rtol=1e-9, atol=1e-9)
    times[0, 5] = NO_TIME
    torch.testing.assert_close(silent, rows.last(xlstm.encode(timed(rows, times))), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(silent[0], stepped[0])


def test_from_an_empty_state() -> None:
    xlstm, state = model(), model().initial_state(1)
    for position in range(5):
        assert BATCH.times is not None
        h, state = xlstm.step(BATCH.items[:1, position], state, BATCH.times[:1, position])
    torch.testing.assert_close(h, BATCH.last(xlstm.encode(BATCH))[:1], rtol=1e-9, atol=1e-9)


def test_a_model_without_the_gate_keeps_no_time() -> None:
    plain = model(time_gate=False)
    _, state = plain.step(torch.tensor([4]), plain.initial_state(1), torch.tensor([DAY]))
    assert state.last_time.tolist() == [NO_TIME]
    assert not plain.uses_times


# --- what gates are never told


def test_when_a_target_happens_is_not_in_the_inputs() -> None:
    inputs, targets = model().training_batch(BATCH)
    assert inputs.times is not None
    assert BATCH.times is not None
    assert targets.tolist() == [[1, 2, 30, 2], [2, 30, 0, 0]]
    assert torch.equal(inputs.times, BATCH.times[:, :-1])


def test_when_a_gap_to_fill_happened_is_hidden() -> None:
    xlstm = model(bidirectional=True, mask_share=0.4)
    inputs, targets = xlstm.training_batch(BATCH)
    assert inputs.times is not None
    assert torch.equal(inputs.times, BATCH.times.masked_fill(targets != 0, NO_TIME))  # type: ignore[union-attr]
    assert (targets != 0).any(1).all()
    assert torch.isfinite(xlstm.scores(BATCH)).all()


# --- where times come from


class Watched(XLSTM):
    """Keeps the times that it was shown."""

    def encode(self, batch: Batch) -> torch.Tensor:
        assert batch.times is not None, "a batch without times"
        assert batch.times.shape == batch.items.shape
        assert bool((batch.times[batch.valid] != NO_TIME).all())
        return super().encode(batch)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_evaluation_shows_times(part: str) -> None:
    torch.manual_seed(0)
    watched = Watched(XLSTMConfig(embedding_dim=8, time_gate=True), ITEMS)
    Evaluator(synthetic_data(), EvaluationConfig()).evaluate(watched, part)


def test_training_and_its_probe_show_times(tmp_path: Any) -> None:
    torch.manual_seed(0)
    watched = Watched(XLSTMConfig(embedding_dim=8, time_gate=True, dropout=0), ITEMS)
    config = TrainingConfig(epochs=2, batch_size=16, warmup_steps=1, ema_decay=0)
    evaluator = Evaluator(synthetic_data(), EvaluationConfig())
    Trainer(watched, SoftmaxLoss(SoftmaxConfig()), evaluator, config, RunFolder(tmp_path), 0).train()
    assert all(block.mixer.time_gate.any() for block in watched._blocks())


def test_data_without_clock_times_are_refused() -> None:
    data = synthetic_data()
    data = replace(data, sequences=replace(data.sequences, times=None))  # type: ignore[type-var]
    with pytest.raises(DataError, match=r"no clock times: leave that key out"):
        Evaluator(data, EvaluationConfig()).evaluate(model().float(), "test")


def test_recommendations_may_be_told_times() -> None:
    data, xlstm = synthetic_data(), model().float()
    recommender = Recommender(xlstm, data.catalogue, filter_seen=False)
    times = [0, DAY, 300 * DAY]
    with torch.inference_mode():
        batch = replace(Batch.of([[3, 4, 7]]), times=torch.tensor([times]))
        expected = xlstm.scores(batch)[0], xlstm.scores(timed(batch, None))[0]
    for given, scores in zip((times, None), expected, strict=True):
        found = recommender.recommend(["3", "4", "7"], ITEMS, times=given)
        np.testing.assert_allclose([x.score for x in found], scores.sort(descending=True).values, rtol=1e-5)
    assert not torch.allclose(*expected)
    with pytest.raises(ValueError, match="3 events and 2 times"):
        recommender.recommend(["3", "4", "7"], times=times[:2])


def test_times_of_unknown_items_are_left_out_with_them() -> None:
    recommender = Recommender(model(), synthetic_data().catalogue, filter_seen=False)
    expected = recommender.recommend(["3", "7"], 5, times=[0, 300 * DAY])
    with pytest.warns(UserWarning, match="left out: 'nothing'"):
        assert recommender.recommend(["3", "nothing", "7"], 5, times=[0, None, 300 * DAY]) == expected


def test_a_long_history_is_cut_with_its_times() -> None:
    recommender = Recommender(model(max_length=3), synthetic_data().catalogue, filter_seen=False)
    times = [0, DAY, 5 * DAY, 300 * DAY, 301 * DAY]
    long = recommender.recommend(["1", "2", "3", "4", "7"], 5, times=times)
    assert long == recommender.recommend(["3", "4", "7"], 5, times=times[2:])


def test_times_that_are_no_milliseconds_are_refused() -> None:
    recommender = Recommender(model(), synthetic_data().catalogue)
    for times in ([0.5, 1.0], [float("nan"), 1], ["1997-09-20", 1]):
        with pytest.raises(TypeError, match="whole milliseconds since 1970, or None"):
            recommender.recommend(["3", "4"], times=times)
    with pytest.raises(ValueError, match="1 histories, times of 2"):
        recommender.recommend_batch([["3"]], times=[[1], [2]])
