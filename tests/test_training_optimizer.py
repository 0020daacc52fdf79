"""Steps, decay, clipping and averaging, each against its definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from seqrec.data.batches import Batch
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models import MODELS
from seqrec.models.base import SequenceModel
from seqrec.models.build import build_model
from seqrec.models.sasrec import SASRec, SASRecConfig
from seqrec.run_folder import RunFolder
from seqrec.testing import ITEMS, synthetic_data
from seqrec.training.config import TrainingConfig
from seqrec.training.optimizer import AveragedModel, BlockNorms, make_optimizers, set_learning_rate
from seqrec.training.trainer import Trainer

TRAINED = [name for name in MODELS if isinstance(build_model({"name": name}, 3), nn.Module)]


def small(dropout: float = 0.0) -> SASRec:
    torch.manual_seed(0)
    return SASRec(SASRecConfig(embedding_dim=4, max_length=6, dropout=dropout), 5)


@pytest.mark.parametrize("name", TRAINED)
def test_matrices_decay_and_norms_and_biases_do_not(name: str) -> None:
    model = build_model({"name": name, "embedding_dim": 4}, 5)
    assert isinstance(model, nn.Module)
    (optimizer,) = make_optimizers(model, TrainingConfig(weight_decay=0.2))
    decaying, others = optimizer.param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.2, 0.0)
    assert all(parameter.ndim >= 2 for parameter in decaying["params"])
    assert all(parameter.ndim < 2 for parameter in others["params"])
    kept = {id(parameter) for group in (decaying, others) for parameter in group["params"]}
    assert kept == {id(parameter) for parameter in model.parameters()}


def test_without_gradient_decay_is_all_that_happens() -> None:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    (optimizer,) = make_optimizers(model, TrainingConfig(learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, before[name] * (1 - 0.1 * 0.5 if value.ndim >= 2 else 1))


#: Each optimiser as torch has it, with the settings that are its own here; weight decay .01 on matrices.
THEIRS: dict[str, Callable[[list[Any]], torch.optim.Optimizer]] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.98), foreach=False),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.1, betas=(0.9, 0.98), foreach=False),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.1, alpha=0.98, momentum=0.5, foreach=False),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.5, nesterov=True, foreach=False),
}


@pytest.mark.parametrize("name", THEIRS)
def test_steps_are_those_of_torch(name: str) -> None:
    """Of the plain form, one parameter at a time, with a rate that changes and decay on matrices alone."""
    mine, other = small().double(), small().double()
    settings = TrainingConfig.parse({"optimizer": name, "learning_rate": 0.1, "weight_decay": 0.01, "momentum": 0.5})
    optimizers = make_optimizers(mine, settings)
    groups = [{"params": [p], "weight_decay": 0.01 if p.ndim >= 2 else 0.0} for p in other.parameters()]
    expected = THEIRS[name](groups)
    random = torch.Generator().manual_seed(0)
    for step in range(5):
        set_learning_rate([expected], 0.1 / (step + 1))
        set_learning_rate(optimizers, 0.1 / (step + 1))
        for one, two in zip(mine.parameters(), other.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=random, dtype=torch.float64)
            two.grad = one.grad.clone()
        for optimizer in (*optimizers, expected):
            optimizer.step()
    for (name, one), two in zip(mine.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, msg=lambda text, n=name: f"{n}: {text}")


def test_sgd_without_momentum() -> None:
    (optimizer,) = make_optimizers(small(), TrainingConfig(optimizer="sgd", momentum=0))
    assert optimizer.param_groups[0]["nesterov"] is False


def test_a_schedule_goes_on_where_it_was_when_training_is_resumed(tmp_path: Path) -> None:
    def train(folder: str, epochs: int) -> list[dict[str, Any]]:
        settings = {"epochs": epochs, "batch_size": 16, "warmup_steps": 2, "patience": 50}
        config = TrainingConfig(**settings, learning_rate=0.1, schedule="step", step_epochs=2, step_factor=0.3)
        run = RunFolder(tmp_path / folder)
        run.path.mkdir(exist_ok=True)
        evaluator = Evaluator(synthetic_data(), EvaluationConfig())
        torch.manual_seed(0)
        model = SASRec(SASRecConfig(embedding_dim=4, max_length=32), ITEMS)
        Trainer(model, SoftmaxLoss(SoftmaxConfig()), evaluator, config, run, seed=1).train()
        return [{key: value for key, value in epoch.items() if key != "speed"} for epoch in run.epochs()]

    straight = train("straight", 5)
    train("halves", 3)
    assert train("halves", 5) == straight
    assert [epoch["learning_rate"] for epoch in straight] == pytest.approx([0.1, 0.1, 0.03, 0.03, 0.009])


def test_blocks_are_parts_of_the_model_and_entries_of_lists() -> None:
    norms = BlockNorms.of(small())
    assert norms.names == ["positions", "items", "blocks.0", "blocks.1", "norm"]
    assert sum(map(len, norms.parameters)) == len(list(small().parameters()))


@given(scale=st.floats(1e-3, 1e3), limit=st.floats(0.01, 100))
def test_clip_tells_the_true_norms_and_scales_exactly(scale: float, limit: float) -> None:
    model = small()
    norms = BlockNorms.of(model)
    random = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=random) * scale
    gradients = [[p.grad.double() for p in group if p.grad is not None] for group in norms.parameters]
    blocks = [math.sqrt(sum(float((g * g).sum()) for g in group)) for group in gradients]
    total = math.sqrt(sum(block**2 for block in blocks))

    found = norms.clip(limit)

    assert found.tolist() == pytest.approx([total, *blocks], rel=1e-5)
    factor = min(1.0, limit / (total + 1e-6))
    for group, before in zip(norms.parameters, gradients, strict=True):
        for parameter, gradient in zip(group, before, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad.double(), gradient * factor, rtol=1e-5, atol=1e-9)


def test_a_block_without_gradient_has_norm_zero() -> None:
    model = small()
    model.norm.weight.grad = torch.full((4,), 3.0)
    found = dict(zip(["total", *BlockNorms.of(model).names], BlockNorms.of(model).clip(1.0).tolist(), strict=True))
    assert found == {"total": 6.0, "positions": 0, "items": 0, "blocks.0": 0, "blocks.1": 0, "norm": 6.0}
    torch.testing.assert_close(model.norm.weight.grad, torch.full((4,), 0.5))


@pytest.mark.parametrize("name", ["lstm", "gru4rec"])
def test_the_average_of_a_recurrent_model_is_its_own_and_gives_the_same(name: str) -> None:
    model = build_model({"name": name, "embedding_dim": 4}, 5)
    assert isinstance(model, SequenceModel)
    model.eval()
    average = AveragedModel(model, decay=0.9).model
    batch = Batch.of([[1, 2, 3], [4]])
    with torch.no_grad():
        expected = model.scores(batch)
        torch.testing.assert_close(average.scores(batch), expected)
        for parameter in model.parameters():
            parameter.zero_()
        torch.testing.assert_close(average.scores(batch), expected)


def test_the_average_follows_the_model() -> None:
    model = small(dropout=0.5)
    average = AveragedModel(model, decay=0.9)
    expected = average.model.norm.weight.clone()
    for step in range(200):
        with torch.no_grad():
            model.norm.weight.fill_(step)
        average.at_step(step)
        average.update(model)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.model.norm.weight, expected)
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert model.training
    assert torch.equal(average.model.positions, model.positions)
