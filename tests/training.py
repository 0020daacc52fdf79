"""A trainer of a small model on synthetic data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqrec.data.prepared import PreparedData
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models.base import SequenceModel
from seqrec.models.build import build_model
from seqrec.run_folder import RunFolder
from seqrec.testing import ITEMS, synthetic_data
from seqrec.training.config import TrainingConfig
from seqrec.training.tracking import Tracker
from seqrec.training.trainer import Trainer


def trainer(
    folder: Path,
    data: PreparedData | None = None,
    loss: Any = None,
    model: str = "sasrec",
    trackers: Sequence[Tracker] = (),
    **settings: Any,
) -> Trainer:
    """A trainer of a small model, seeded, on synthetic data."""
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    made = build_model({"name": model, "embedding_dim": 16, "max_length": 8}, ITEMS)
    assert isinstance(made, SequenceModel)
    config = TrainingConfig(**{"batch_size": 16, "patience": 50, "epochs": 2, **settings})
    evaluator = Evaluator(data or synthetic_data(), EvaluationConfig())
    return Trainer(made, loss or SoftmaxLoss(SoftmaxConfig()), evaluator, config, RunFolder(folder), 1, trackers)


def trained(folder: Path, **settings: Any) -> dict[str, Tensor]:
    """Weights at the end of training, not the best ones."""
    mine = trainer(folder, **settings)
    mine.train()
    return {name: value.detach().clone() for name, value in mine.model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())
