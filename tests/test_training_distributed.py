"""Several processes train and evaluate what one does; they stop together, save together, and go on in any number."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ranks import alone, on_ranks
from seqrec import distributed
from seqrec.data.batches import Batch
from seqrec.distributed import RankError, Ranks
from seqrec.errors import ConfigError, TrainingError
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models.build import build_model
from seqrec.run_folder import RunFolder
from seqrec.testing import ITEMS, synthetic_data
from seqrec.training.checkpoint import load_checkpoint
from seqrec.training.config import TrainingConfig
from seqrec.training.trainer import Trainer, TrainingInterrupted

SMALL: dict[str, Any] = {"embedding_dim": 16, "max_length": 8, "dropout": 0.0}


def _train(ranks: Ranks, folder: Path, model: dict[str, Any], loss: Any = None, settings: Any = None) -> dict[str, Any]:
    """Train on synthetic data into `folder`, in float64: some gradients are zero, and Adam would make much of noise."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    made: Any = build_model({**SMALL, **model}, ITEMS).double()  # type: ignore[attr-defined]
    torch.manual_seed(ranks.seed(1))
    config = TrainingConfig(**{"batch_size": 7, "patience": 50, "epochs": 2, "learning_rate": 0.01, **(settings or {})})
    evaluator = Evaluator(synthetic_data(), EvaluationConfig(), "cpu", ranks)
    loss = loss or SoftmaxLoss(SoftmaxConfig(label_smoothing=0.1))
    end = Trainer(made, loss, evaluator, config, RunFolder(folder), 1).train()
    return {"step": end.step, "seen": getattr(loss, "seen", None)}


def _losses(folder: Path) -> list[float]:
    return [loss for epoch in RunFolder(folder).epochs() for loss in epoch["losses"]]


def _last(folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(RunFolder(folder).last)[0]


def _close(one: dict[str, Tensor], other: dict[str, Tensor], atol: float = 1e-7) -> None:
    assert {name for name in one if not name.startswith("random")} <= set(other)
    for name, value in one.items():
        if not name.startswith("random"):
            torch.testing.assert_close(
                other[name], value, rtol=1e-5, atol=atol, msg=lambda text, n=name: f"{n}: {text}"
            )


# --- the same training


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("model", [{"name": "sasrec", "similarity": "dot"}, {"name": "xlstm"}])
def test_two_processes_train_what_one_does(model: dict[str, Any], shard: bool, tmp_path: Path) -> None:
    alone(_train, tmp_path / "one", model)
    found = on_ranks(2, _train, tmp_path / "two", model, None, {"shard_items": shard})
    assert [rank["step"] for rank in found] == [18, 18]
    _close(_last(tmp_path / "one"), _last(tmp_path / "two"))
    np.testing.assert_allclose(_losses(tmp_path / "two"), _losses(tmp_path / "one"), rtol=1e-5)
    for one, two in zip(*(RunFolder(tmp_path / name).epochs() for name in ("one", "two")), strict=True):
        assert (one["ranks"], two["ranks"]) == (1, 2)
        assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-3)
        assert two["validation"]["ndcg@10"] == pytest.approx(one["validation"]["ndcg@10"], abs=0.02)
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)


def test_more_ranks_than_a_last_batch_has_histories(tmp_path: Path) -> None:
    settings = {"batch_size": 59}  # of 60 people: the last batch is one
    alone(_train, tmp_path / "one", {"name": "sasrec"}, None, settings)
    on_ranks(3, _train, tmp_path / "three", {"name": "sasrec"}, None, settings)
    np.testing.assert_allclose(_losses(tmp_path / "three"), _losses(tmp_path / "one"), rtol=1e-5)
    _close(_last(tmp_path / "one"), _last(tmp_path / "three"))


class Recording(SoftmaxLoss):
    """Keeps the hidden states of its first batch."""

    def __init__(self) -> None:
        super().__init__(SoftmaxConfig())
        self.seen: Tensor | None = None

    def __call__(self, h_BLD: Tensor, targets_BL: Tensor, item_vectors: Any, batch: Batch) -> Tensor:
        self.seen = torch.rand(3) if self.seen is None else self.seen
        return super().__call__(h_BLD, targets_BL, item_vectors, batch)


def test_ranks_draw_dropout_from_seeds_of_their_own(tmp_path: Path) -> None:
    first, second = on_ranks(2, _train, tmp_path / "run", {"name": "sasrec"}, Recording(), {"epochs": 1})
    assert not first["seen"].equal(second["seen"])


@pytest.mark.parametrize("name", ["bert4rec", "gru4rec"])
def test_models_that_draw_masks_or_run_in_libraries(name: str, tmp_path: Path) -> None:
    on_ranks(3, _train, tmp_path / "run", {"name": name, "dropout": 0.1}, None, {"item_dropout": 0.2, "batch_size": 19})
    assert np.isfinite(_losses(tmp_path / "run")).all()


# --- the same evaluation


def _evaluate(ranks: Ranks, name: str, most_cases: int | None) -> Any:
    torch.manual_seed(0)
    evaluator = Evaluator(synthetic_data(), EvaluationConfig(), "cpu", ranks)
    evaluator.most_cases = most_cases
    found = evaluator.evaluate(build_model({**SMALL, "name": name}, ITEMS), "test")
    return found.ranks, found.lists, found.targets, found.summary()


@pytest.mark.parametrize(("size", "most_cases"), [(2, 7), (3, 20), (3, None)])
def test_ranks_and_lists_are_those_of_one_process(size: int, most_cases: int | None) -> None:
    expected = alone(_evaluate, "sasrec", most_cases)
    for found in on_ranks(size, _evaluate, "sasrec", most_cases):
        assert all(np.array_equal(one, other) for one, other in zip(expected[:3], found[:3], strict=True))
        assert found[3] == expected[3]


# --- stopping and going on


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_what_other_optimisers_keep_is_shared_out_too(optimizer: str, tmp_path: Path) -> None:
    settings = {"optimizer": optimizer, "weight_decay": 0.0, "shard_items": True, "average_best": 2}
    alone(_train, tmp_path / "straight", {"name": "sasrec"}, None, {**settings, "epochs": 3})
    on_ranks(2, _train, tmp_path / "run", {"name": "sasrec"}, None, settings)
    alone(_train, tmp_path / "run", {"name": "sasrec"}, None, {**settings, "epochs": 3})
    _close(_last(tmp_path / "straight"), _last(tmp_path / "run"))


@pytest.mark.parametrize(("sizes", "shard"), [((2, 1), True), ((1, 3), True), ((2, 3), False)])
def test_a_checkpoint_goes_on_with_any_number_of_processes(sizes: tuple[int, int], shard: bool, tmp_path: Path) -> None:
    model, settings = {"name": "sasrec", "similarity": "dot"}, {"shard_items": shard}
    alone(_train, tmp_path / "straight", model, None, {"epochs": 4})
    on_ranks(sizes[0], _train, tmp_path / "run", model, None, settings)
    on_ranks(sizes[1], _train, tmp_path / "run", model, None, {**settings, "epochs": 4})
    assert [epoch["ranks"] for epoch in RunFolder(tmp_path / "run").epochs()] == [sizes[0]] * 2 + [sizes[1]] * 2
    _close(_last(tmp_path / "straight"), _last(tmp_path / "run"))


class Stopping(SoftmaxLoss):
    """Somebody presses Ctrl-C at one rank's 12th step, or something worse happens to it."""

    def __init__(self, how: str) -> None:
        super().__init__(SoftmaxConfig(label_smoothing=0.1))
        self.how, self.steps = how, 0

    def __call__(self, h_BLD: Tensor, targets_BL: Tensor, item_vectors: Any, batch: Batch) -> Tensor:
        self.steps += 1
        loss = super().__call__(h_BLD, targets_BL, item_vectors, batch)
        if self.steps != 12 or dict(os.environ).get("RANK") != "1":
            return loss
        if self.how == "signal":
            os.kill(os.getpid(), signal.SIGINT)
        elif self.how == "death":
            os._exit(9)
        return loss * torch.nan if self.how == "nan" else loss


def test_ctrl_c_at_one_rank_stops_all_and_nothing_is_lost(tmp_path: Path) -> None:
    model = {"name": "sasrec", "dropout": 0.2}
    on_ranks(2, _train, tmp_path / "straight", model, None, {"epochs": 4})
    stopped = on_ranks(2, _train, tmp_path / "run", model, Stopping("signal"), {"epochs": 4})
    for error in stopped:
        assert isinstance(error, TrainingInterrupted)
        assert "Stopped in epoch 2; saved" in str(error)
    assert len(RunFolder(tmp_path / "run").epochs()) == 1
    on_ranks(2, _train, tmp_path / "run", model, None, {"epochs": 4})
    straight, resumed = _last(tmp_path / "straight"), _last(tmp_path / "run")
    assert set(straight) == set(resumed)
    assert {"random.cpu", "random.cpu.1"} <= set(straight)
    assert all(value.equal(resumed[name]) for name, value in straight.items())


def test_a_rank_that_dies_stops_the_others_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    settings = {"epochs": 4, "checkpoint_seconds": 0.0}
    survivor, dead = on_ranks(2, _train, tmp_path / "run", {"name": "sasrec"}, Stopping("death"), settings)
    assert dead is None
    assert isinstance(survivor, RankError)
    assert "it stopped or died" in str(survivor)
    assert 0 < load_checkpoint(RunFolder(tmp_path / "run").last)[1]["position"]["step"] < 12
    alone(_train, tmp_path / "straight", {"name": "sasrec"}, None, {"epochs": 4})
    alone(_train, tmp_path / "run", {"name": "sasrec"}, None, {"epochs": 4})
    _close(_last(tmp_path / "straight"), _last(tmp_path / "run"))


def test_a_loss_that_is_not_finite_on_one_rank_stops_all(tmp_path: Path) -> None:
    for error in on_ranks(2, _train, tmp_path / "run", {"name": "sasrec"}, Stopping("nan"), {"epochs": 4}):
        assert isinstance(error, TrainingError)
        assert "not finite in epoch 2" in str(error)


def test_a_batch_has_to_be_shared_by_all(tmp_path: Path) -> None:
    for error in on_ranks(3, _train, tmp_path / "run", {"name": "sasrec"}, None, {"batch_size": 2}):
        assert isinstance(error, ConfigError)
        assert "Batches of 2 histories cannot be shared among 3 processes" in str(error)


# --- what is sent


def _sent_in_a_step(ranks: Ranks, folder: Path, shard: bool) -> tuple[dict[str, int], int, int]:
    """Bytes of the whole of what each kind of message carries in one step, positions, and parameters on this rank."""
    folder.mkdir(exist_ok=True)
    made: Any = build_model({**SMALL, "name": "sasrec", "similarity": "dot"}, ITEMS)
    config = TrainingConfig(batch_size=8, shard_items=shard)
    evaluator = Evaluator(synthetic_data(), EvaluationConfig(), "cpu", ranks)
    trainer = Trainer(made, SoftmaxLoss(SoftmaxConfig()), evaluator, config, RunFolder(folder), 1)
    sent: dict[str, int] = {}

    def counted(kind: str, function: Any, whole: int) -> Any:
        def call(*arguments: Any) -> None:
            sent[kind] = sent.get(kind, 0) + arguments[whole].numel() * arguments[whole].element_size()
            function(*arguments)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed.dist, "all_reduce", counted("all_reduce", distributed.dist.all_reduce, 0))
        patch.setattr(distributed, "_all_gather", counted("all_gather", distributed._all_gather, 0))
        patch.setattr(distributed, "_reduce_scatter", counted("reduce_scatter", distributed._reduce_scatter, 1))
        rows = torch.stack([torch.arange(8), torch.arange(8), torch.full((8,), 3)])
        trainer.step(ranks.share(rows), 5, 1e-3, 0)
    return sent, 8 * 4, sum(parameter.numel() for parameter in trainer.model.parameters())


def test_what_a_step_sends_is_what_the_page_says(tmp_path: Path) -> None:
    sent, _, P = on_ranks(2, _sent_in_a_step, tmp_path / "copied", False)[0]
    assert sent == {"all_reduce": 4 + 4 * P + 4}
    sent, A, held = on_ranks(2, _sent_in_a_step, tmp_path / "sharded", True)[0]
    D, P = SMALL["embedding_dim"], held - ITEMS // 2 * (SMALL["embedding_dim"] + 1)
    assert sent == {
        "all_reduce": 4 * P + 8 + 4 + 4 * A + 12 * A,
        "all_gather": 8 * A + 4 * A * D + (4 * A * D + 8 * A) + 4 * A,
        "reduce_scatter": 4 * A * D + 4 * A * D,
    }
