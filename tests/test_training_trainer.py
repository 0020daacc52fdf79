"""Training: honest about which part of the data it looks at, and complete in what it records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import seqrec as package
from seqrec.data.batches import Batch
from seqrec.data.prepared import PreparedData
from seqrec.errors import TrainingError
from seqrec.evaluation.evaluation import Evaluation
from seqrec.evaluation.evaluator import Evaluator
from seqrec.experiments import fit as fit_module
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models.base import ItemVectors
from seqrec.run_folder import RunFolder
from seqrec.testing import ITEMS, synthetic_data
from seqrec.training.checkpoint import load_checkpoint
from seqrec.training.tracking import StopTraining
from training import same, trained, trainer

# --- which part of the data is looked at


class Counted(Evaluator):
    """Remembers what was asked, and how many epochs were over by then."""

    asked: list[tuple[str, int]]
    folder: Path

    def evaluate(self, scorer: Any, part: str) -> Evaluation:
        Counted.asked.append((part, len(RunFolder(Counted.folder).epochs())))
        return super().evaluate(scorer, part)


class Watched(PreparedData):
    """Remembers which cases were fetched."""

    fetched: list[str] = []  # noqa: RUF012

    def cases(self, part: str) -> Any:
        Watched.fetched.append(part)
        return super().cases(part)


def test_the_test_part_is_scored_once_after_training(
    small_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Counted.asked, Counted.folder, Watched.fetched = [], tmp_path / "run", []
    monkeypatch.setattr(fit_module, "Evaluator", Counted)
    data = package.load_data(small_log, user="uid", item="iid", time="ts")
    watched = Watched(data.folder, data.sequences, data.split, data.catalogue, data.facts)
    settings = {"model.embedding_dim": 16, "training.epochs": 3, "training.batch_size": 16}
    package.train(watched, "sasrec", settings=settings, out=Counted.folder, device="cpu")
    assert Counted.asked == [("validation", 0), ("validation", 1), ("validation", 2), ("validation", 3), ("test", 3)]
    assert Watched.fetched[-1] == "test"
    assert set(Watched.fetched[:-1]) == {"validation"}


def altered(data: PreparedData, events: slice) -> PreparedData:
    """The same histories with other items at `events`, counted within each history."""
    items = np.array(data.sequences.items)
    for start, end in zip(data.sequences.starts, data.sequences.ends, strict=True):
        items[start:end][events] = items[start:end][events] % ITEMS + 1
    return replace(data, sequences=replace(data.sequences, items=items))


def test_weights_do_not_depend_on_validation_and_test_events(tmp_path: Path) -> None:
    data = synthetic_data()
    assert (data.sequences.lengths >= 3).all()
    weights = trained(tmp_path / "a", data=data, epochs=3)
    assert same(weights, trained(tmp_path / "b", data=altered(data, slice(-2, None)), epochs=3))
    assert not same(weights, trained(tmp_path / "c", data=altered(data, slice(-3, -2)), epochs=3))


# --- when training stops


def test_patience_counts_evaluations_without_improvement(tmp_path: Path) -> None:
    mine = trainer(tmp_path / "run", epochs=50, patience=3, learning_rate=1e-12, ema_decay=0)
    end = mine.train()
    assert (end.best_epoch, end.epoch) == (1, 4)
    assert [epoch["best"] for epoch in mine.folder.epochs()] == [True, False, False, False]


def test_evaluating_less_often_still_evaluates_the_last_epoch(tmp_path: Path) -> None:
    mine = trainer(tmp_path / "run", epochs=5, evaluate_every=2)
    mine.train()
    assert [epoch["epoch"] for epoch in mine.folder.epochs() if "validation" in epoch] == [2, 4, 5]


def test_the_kept_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    mine = trainer(tmp_path / "run", epochs=6, learning_rate=0.03)
    end = mine.train()
    values = [epoch["validation"]["ndcg@10"] for epoch in mine.folder.epochs()]
    assert end.best_epoch == 1 + int(np.argmax(values))
    tensors, facts = load_checkpoint(mine.folder.best)
    assert facts == {"epoch": end.best_epoch, "ndcg@10": max(values)}
    mine.model.load_state_dict(tensors)
    assert mine.evaluator.evaluate(mine.model, "validation").metrics["ndcg@10"] == max(values)


class Exploding(SoftmaxLoss):
    """Not a number from some step on; or a gradient that is infinite while the loss is not."""

    def __init__(self, at: int, gradient: bool) -> None:
        super().__init__(SoftmaxConfig())
        self.at, self.gradient, self.step = at, gradient, 0

    def __call__(self, h_BLD: Tensor, targets_BL: Tensor, item_vectors: ItemVectors, batch: Batch) -> Tensor:
        self.step += 1
        loss = super().__call__(h_BLD, targets_BL, item_vectors, batch)
        if self.step < self.at:
            return loss
        return (
            loss + (loss - loss.detach()) * torch.inf if not self.gradient else loss + (loss - loss.detach()) * 1e38**2
        )


@pytest.mark.parametrize("gradient", [False, True])
def test_a_loss_or_gradient_that_is_not_finite_stops_training(gradient: bool, tmp_path: Path) -> None:
    mine = trainer(tmp_path / "run", loss=Exploding(at=6, gradient=gradient), epochs=5)
    with pytest.raises(TrainingError, match=r"not finite in epoch 2.*Lower training\.learning_rate"):
        mine.train()
    assert len(mine.folder.epochs()) == 1
    assert all(torch.isfinite(value).all() for value in load_checkpoint(mine.folder.best)[0].values())


# --- a tracker that has seen enough


class Enough:
    """Says so after some epoch; hears everything."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.heard: list[int] = []

    def started(self, facts: Any) -> None:
        pass

    def progressed(self, progress: Any) -> None:
        pass

    def ended(self, facts: Any) -> None:
        pass

    def epoch_ended(self, record: Any) -> None:
        self.heard.append(record["epoch"])
        if record["epoch"] == self.epoch:
            raise StopTraining


def test_a_tracker_ends_training_as_if_patience_had_run_out(tmp_path: Path) -> None:
    first, second = Enough(2), Enough(100)
    end = trainer(tmp_path / "run", epochs=5, trackers=[first, second]).train()
    assert first.heard == second.heard == [1, 2]
    assert (end.epoch, end.stopped) == (2, True)
    assert len(RunFolder(tmp_path / "run").epochs()) == 2
    short = trainer(tmp_path / "short", epochs=2)
    short.train()
    for kept in ("best", "last"):
        weights, expected = (load_checkpoint(tmp_path / name / f"{kept}.safetensors")[0] for name in ("run", "short"))
        assert same(weights, expected)
    again = Enough(100)
    assert trainer(tmp_path / "run", epochs=5, trackers=[again]).train().epoch == 2
    assert again.heard == []


# --- augmentation and precision


def test_random_windows_change_what_is_trained_on(tmp_path: Path) -> None:
    weights = trained(tmp_path / "on", random_windows=True)
    assert not same(weights, trained(tmp_path / "off", random_windows=False))


class Recording(SoftmaxLoss):
    """Keeps the inputs and targets it was given."""

    def __init__(self) -> None:
        super().__init__(SoftmaxConfig())
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, h_BLD: Tensor, targets_BL: Tensor, item_vectors: ItemVectors, batch: Batch) -> Tensor:
        self.seen.append((batch.items.clone(), targets_BL.clone(), batch.valid))
        return super().__call__(h_BLD, targets_BL, item_vectors, batch)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_item_dropout_hides_inputs_and_no_targets(share: float, tmp_path: Path) -> None:
    loss = Recording()
    trainer(tmp_path / "run", loss=loss, item_dropout=share, epochs=4).train()
    hidden = torch.cat([(items == 0)[valid] for items, _, valid in loss.seen]).float().mean().item()
    assert hidden == pytest.approx(share, abs=0.05 if share else 0)
    assert all((targets != 0)[valid].all() for _, targets, valid in loss.seen)


def test_item_dropout_leaves_the_mask_where_it_asks(tmp_path: Path) -> None:
    loss = Recording()
    trainer(tmp_path / "run", loss=loss, model="bert4rec", item_dropout=0.6, epochs=4).train()
    for items, targets, _ in loss.seen:
        assert torch.equal(items == ITEMS + 1, targets != 0)
    shown = torch.cat([items[valid & (targets == 0)] for items, targets, valid in loss.seen])
    assert (shown == 0).float().mean().item() == pytest.approx(0.6, abs=0.05)


def test_windows_are_random_or_the_end_of_the_history(tmp_path: Path) -> None:
    data = synthetic_data()
    ends = set(data.sequences.items[data.split.train_ends - 1].tolist())
    assert ends
    for random, expected in ((False, True), (True, False)):
        loss = Recording()
        trainer(tmp_path / str(random), loss=loss, random_windows=random, data=data, epochs=1).train()
        last = sorted(int(row[row > 0][-1]) for _, targets, _ in loss.seen for row in targets)
        assert (last == sorted(data.sequences.items[data.split.train_ends - 1].tolist())) is expected


def test_bfloat16_on_a_cpu(tmp_path: Path) -> None:
    half, whole = (trained(tmp_path / name, precision=name, epochs=4) for name in ("bfloat16", "float32"))
    assert all(value.dtype == torch.float32 for value in half.values())
    assert not same(half, whole)
    losses = [RunFolder(tmp_path / name).epochs()[-1]["train"]["loss"] for name in ("bfloat16", "float32")]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert same(whole, trained(tmp_path / "auto", precision="auto", epochs=4))


def test_without_averaging_the_weights_themselves_are_kept(tmp_path: Path) -> None:
    mine = trainer(tmp_path / "run", ema_decay=0, epochs=1)
    mine.train()
    assert same(mine.model.state_dict(), load_checkpoint(mine.folder.best)[0])


# --- what is recorded


def test_the_record_of_an_epoch(tmp_path: Path) -> None:
    mine = trainer(tmp_path / "run", epochs=3, clip_norm=0.5, warmup_steps=6)
    mine.train()
    records = mine.folder.epochs()
    tokens = sum(min(int(length), 9) - 1 for length in mine.evaluator.data.train.lengths if length >= 2)
    for number, record in enumerate(records, 1):
        assert (record["epoch"], record["step"]) == (number, 4 * number)
        assert record["learning_rate"] == pytest.approx(1e-3 * min(1, 4 * number / 6))
        assert len(record["losses"]) == 4
        assert record["train"]["loss"] == pytest.approx(np.mean(record["losses"]), rel=1e-5)
        norms = record["gradient_norm"]
        assert set(norms) == {
            "total", "total_max", "clipped_share", "positions", "items", "blocks.0", "blocks.1", "norm"
        }  # fmt: skip
        assert 0 < norms["blocks.0"] <= norms["total"] <= norms["total_max"]
        assert norms["clipped_share"] == 1.0
        speed = record["speed"]
        assert speed["tokens_per_second"] * speed["seconds"] == pytest.approx(tokens)
        assert speed["evaluation_seconds"] > 0
        assert {"1+", "2+", "5+"} <= set(record["train_loss_by_length"])
        assert set(record["loss"]) == {"train", "validation"}
        assert {"ndcg@10", "recall@50", "coverage@10"} <= set(record["validation"])
        assert record["gpu"] == {}
    assert records[2]["train"]["loss"] < records[0]["train"]["loss"]


def test_steps_that_are_not_clipped_are_not_counted(tmp_path: Path) -> None:
    mine = trainer(tmp_path / "run", epochs=1, clip_norm=1e6)
    mine.train()
    assert mine.folder.epochs()[0]["gradient_norm"]["clipped_share"] == 0.0


def test_history_is_strict_json(tmp_path: Path) -> None:
    mine = trainer(tmp_path / "run")
    mine.train()
    for line in mine.folder.history.read_text().splitlines():
        assert "NaN" not in line
        assert "Infinity" not in line
