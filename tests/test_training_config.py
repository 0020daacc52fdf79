"""Training settings are checked before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest

from seqrec.cli.options import changes
from seqrec.config import Range
from seqrec.errors import ConfigError
from seqrec.evaluation import ACCURACY
from seqrec.training.config import TrainingConfig


def test_defaults_are_valid_and_survive_json() -> None:
    config = TrainingConfig()
    assert TrainingConfig.parse(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("name", ACCURACY)
def test_every_accuracy_measure_can_choose_the_epoch(name: str) -> None:
    assert TrainingConfig(metric=f"{name}@5").metric == f"{name}@5"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"metric": "ndgc@10"}, "training.metric: Unknown metric 'ndgc'. Did you mean 'ndcg'?"),
        ({"metric": "ndcg"}, "training.metric: a metric is written name@k"),
        ({"metric": "ndcg@0"}, "training.metric: a metric is written name@k"),
        ({"metric": "ndcg@ten"}, "training.metric: a metric is written name@k"),
        ({"metric": "coverage@10"}, "training.metric: Unknown metric 'coverage'"),
        ({"epochs": 0}, "training.epochs: "),
        ({"batch_size": 0}, "training.batch_size: "),
        ({"learning_rate": 0}, "training.learning_rate: "),
        ({"learning_rate": float("inf")}, "training.learning_rate: "),
        ({"item_dropout": 1.0}, "training.item_dropout: "),
        ({"weight_decay": -1}, "training.weight_decay: "),
        ({"clip_norm": 0}, "training.clip_norm: "),
        ({"ema_decay": 1.0}, "training.ema_decay: "),
        ({"patience": 0}, "training.patience: "),
        ({"evaluate_every": 0}, "training.evaluate_every: "),
        ({"precision": "float16"}, "training.precision: "),
        ({"schedule": "cosines"}, "training.schedule: "),
        ({"schedule": "plateau", "patience": 3}, "training: plateau_patience 3 is never over before patience 3 ends"),
        ({"plateau_patience": -1}, "training.plateau_patience: "),
        ({"decay_share": 0}, "training.decay_share: "),
        ({"optimizer": "lion"}, "training.optimizer: "),
        ({"momentum": 1.0}, "training.momentum: "),
        ({"average_best": 0}, "training.average_best: "),
        ({"step_epochs": 0}, "training.step_epochs: "),
        ({"step_factor": 0}, "training.step_factor: "),
        ({"step_factor": 1.5}, "training.step_factor: "),
        ({"betas": [0.9]}, "training.betas.1: "),
        ({"lr": 0.1}, "Unknown key training.lr."),
        ({"epoch": 3}, "Did you mean training.epochs?"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrainingConfig.parse(settings, "training.")
    assert told in str(error.value)


def test_what_is_searched_may_be_set() -> None:
    for name, values in TrainingConfig.space.items():
        ends = (values.low, values.high) if isinstance(values, Range) else values.values
        for value in ends:
            assert getattr(TrainingConfig.parse({name: value}), name) == value


@pytest.mark.parametrize("betas", [(1.0, 0.9), (-0.1, 0.9), (0.9, 1.5)])
def test_betas_are_refused_here_and_not_by_the_optimiser(betas: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"training\.betas"):
        TrainingConfig.parse({"betas": betas}, "training.")


def test_off_as_yaml_reads_it() -> None:
    (read,) = changes(["training.compile=off"]).values()
    assert TrainingConfig.parse({"compile": read}, "training.").compile == "off"
    with pytest.raises(ConfigError, match=r"training\.compile"):
        TrainingConfig.parse({"compile": True}, "training.")
