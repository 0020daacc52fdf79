"""From a configuration to a loss that knows what it has to know."""

from __future__ import annotations

from typing import Any

import torch

from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError, DataError
from seqrec.experiments.config import RunConfig
from seqrec.losses import LOSSES
from seqrec.models.base import SequenceModel
from seqrec.models.build import build_model
from seqrec.registry import resolve
from seqrec.run_folder import RunFolder
from seqrec.training.checkpoint import load_weights


def build_loss(config: RunConfig, model: SequenceModel, data: PreparedData) -> Any:
    """The loss that `config` names, with its teachers if it has any.

    Args:
        model: who is to learn by it.

    Raises:
        ConfigError: a teacher cannot teach this model.
        DataError: a teacher was trained on other data.
        RunFolderError: there is no such run, or it has no weights.
    """
    loss = resolve("loss", config.loss_name, LOSSES)(config.loss)
    if hasattr(loss, "learn_from"):
        loss.learn_from([_teacher(path, model, data) for path in loss.config.teachers])
    return loss


def _teacher(path: str, model: SequenceModel, data: PreparedData) -> SequenceModel:
    """The model of a run, with its best weights. What is drawn to make it is drawn in vain, so that the training of
    `model` does not depend on it."""
    folder = RunFolder(path)
    facts = folder.facts()
    for fact in ("fingerprint", "config", "test_targets"):
        if facts["data"][fact] != data.facts[fact]:
            raise DataError(
                f"loss.teachers: {path} was trained on other data: the {fact.replace('_', ' ')} differs. "
                "Train the teacher on these data."
            )
    spec = facts["config"]["model"]
    with torch.random.fork_rng(devices=[]):
        teacher = build_model(spec, data.sequences.num_items)
    if not isinstance(teacher, SequenceModel) or teacher.bidirectional:
        raise ConfigError(
            f"loss.teachers: {path} is of {spec['name']}, which does not say what comes next after every event. Name "
            "runs of models that do; of an ensemble, the runs of its members."
        )
    _check_shown(path, teacher, model)
    teacher.fit_data(data)
    load_weights(teacher, folder.best)
    return teacher


def _check_shown(path: str, teacher: SequenceModel, model: SequenceModel) -> None:
    """Refuse a teacher that needs to see what `model` is not shown."""
    if teacher.config.max_length < model.config.max_length:
        raise ConfigError(
            f"loss.teachers: {path} reads {teacher.config.max_length} events, and model.max_length is "
            f"{model.config.max_length}. Lower it, or name a teacher that reads as many."
        )
    if teacher.uses_times and not model.uses_times:
        raise ConfigError(
            f"loss.teachers: {path} looks at the times of events, which this model is not shown. Name a teacher that "
            "does without (for xlstm: model.time_gate=false)."
        )
    if teacher.uses_values and not model.uses_values:
        raise ConfigError(
            f"loss.teachers: {path} reads ratings, which this model is not shown. Name a teacher that does without "
            "(model.rating_input=false), or set model.rating_input=true."
        )
