"""From a configuration and data to a finished run."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from seqrec.data.prepared import PreparedData
from seqrec.distributed import ALONE, Ranks
from seqrec.errors import ConfigError, DataError
from seqrec.evaluation.evaluation import Evaluation
from seqrec.evaluation.evaluator import Evaluator
from seqrec.experiments.config import RunConfig
from seqrec.experiments.environment import choose_device, environment, peak_memory_mib
from seqrec.experiments.losses import build_loss
from seqrec.experiments.run import Run
from seqrec.files import explained
from seqrec.models.base import Scorer, SequenceModel
from seqrec.models.build import build_model
from seqrec.models.sharded import count_parameters
from seqrec.run_folder import RunFolder
from seqrec.training.averaging import forget
from seqrec.training.checkpoint import save_checkpoint
from seqrec.training.start import refuse_other_split, start_from
from seqrec.training.state import fetch_weights
from seqrec.training.tracking import Tracker, tensorboard_if_installed
from seqrec.training.trainer import Trainer


def fit(
    config: RunConfig, data: PreparedData, out: Path, trackers: Sequence[Tracker] = (), device: str = "auto"
) -> Run:
    """Train, keep the best weights by validation, then score validation and test once.

    A folder that holds an unfinished run of the same configuration is picked up where it stopped.

    Args:
        out: the run's folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.

    Raises:
        RunFolderError: `out` holds a finished run or one of another configuration.
        TrainingInterrupted, TrainingError: see `Trainer.train`.
        DiskError: the disk is full or may not be written.
    """
    fit_together(config, data, out, trackers, device, ALONE)
    return Run(out)


def fit_together(
    config: RunConfig, data: PreparedData, out: Path, trackers: Sequence[Tracker], device: str, ranks: Ranks
) -> None:
    """As `fit`, called by all ranks. Rank 0 alone writes into `out`, and tells its trackers.

    Raises:
        ConfigError: several ranks for a model that is not trained by gradient, or for settings they do not fit.
        DataError: ranks have other data.
        RankError: another rank stopped or died.
    """
    with ranks.together():
        where = choose_device(ranks.device(device))
        _require_trained(config, ranks)
    ranks.require_same(data.facts["fingerprint"], "data set")
    with explained(out):
        _fit(config, data, out, trackers if ranks.is_main else (), where, ranks)


def _require_trained(config: RunConfig, ranks: Ranks) -> None:
    if ranks.size > 1 and not config.trained:
        raise ConfigError(f"{config.model_name} is fitted by one process: start seqrec without torchrun.")


def _fit(
    config: RunConfig, data: PreparedData, out: Path, trackers: Sequence[Tracker], where: torch.device, ranks: Ranks
) -> None:
    torch.manual_seed(config.seed)
    scorer = build_model(config.to_dict()["model"], data.sequences.num_items)
    with ranks.together():
        _start(scorer, config, data, RunFolder(out), ranks)
        folder = open_folder(config, data, out, where) if ranks.is_main else RunFolder(out)
    if isinstance(scorer, SequenceModel):
        scorer.fit_data(data)  # it only takes over what is known about items
        ranks.copy_weights(scorer)
        if ranks.size > 1:  # alone, dropout goes on where the weights stopped drawing
            torch.manual_seed(ranks.seed(config.seed))
    evaluator = Evaluator(data, config.evaluation, where, ranks)
    if isinstance(scorer, SequenceModel) and ranks.is_main:
        tensorboard = tensorboard_if_installed(folder.tensorboard)
        trackers = [*trackers, tensorboard] if tensorboard else trackers
    training = _train(scorer, config, evaluator, folder, trackers)
    trained_on = where if isinstance(scorer, SequenceModel) else torch.device("cpu")  # fitting is work of the CPU
    facts = training | {"peak_memory_mib": peak_memory_mib(trained_on)}
    if ranks.size > 1:
        facts |= {"ranks": ranks.size, "seeds": ranks.each(ranks.seed(config.seed))}
    results = judge(scorer, evaluator, folder, facts)
    if ranks.is_main:
        folder.last.unlink(missing_ok=True)
        forget(folder)
    metrics = {name: results["test"]["metrics"][name] for name in (config.training.metric, "recall@10", "ndcg@10")}
    for tracker in trackers:
        tracker.ended({"hyperparameters": _flat(config.to_dict()), "metrics": metrics})


def _start(scorer: Scorer, config: RunConfig, data: PreparedData, folder: RunFolder, ranks: Ranks) -> None:
    """Give the model the weights it is to start from. A training that is resumed has its own."""
    if config.training.start_from is None or not ranks.is_main or folder.last.exists():
        return
    if not isinstance(scorer, SequenceModel):
        raise ConfigError(f"training.start_from: {config.model_name} is fitted and has no weights to start from.")
    refuse_other_split(config.training.start_from, data.facts)
    print(start_from(config.training.start_from, scorer, data.catalogue), file=sys.stderr)


def open_folder(config: RunConfig, data: PreparedData, out: Path, device: torch.device) -> RunFolder:
    """A new folder, or that of an unfinished run of the same configuration.

    Raises:
        RunFolderError: `out` holds a finished run or one of another configuration.
        DataError: the run was begun on other data.
    """
    folder = RunFolder(out)
    if (out / "run.json").exists() and folder.results() is None and is_of(folder, config):
        require_same_data(folder.facts()["data"], data)
    else:
        facts = {**data.facts, "folder": str(data.folder.resolve())}
        folder = RunFolder.create(out, config.to_dict(), environment(device), facts)
    if not folder.items.exists():
        data.catalogue.save(folder.items)
    return folder


def is_of(folder: RunFolder, config: RunConfig) -> bool:
    """Whether the run in the folder has these settings; those that were not there yet when it began, their defaults."""
    return RunConfig.from_dict(folder.facts()["config"]).to_dict() == config.to_dict()


def judge(scorer: Scorer, evaluator: Evaluator, folder: RunFolder, training: Mapping[str, Any]) -> dict[str, Any]:
    """Score validation and test, once, and write down both and what is known about training: the run is finished."""
    results: dict[str, Any] = {"training": dict(training)}
    for part in ("validation", "test"):
        evaluation = evaluator.evaluate(scorer, part)
        results[part] = evaluation.summary()
        if evaluator.ranks.is_main:
            _keep_per_user(evaluation, folder, part, evaluator.data)
    if evaluator.ranks.is_main:
        folder.write_results(results)
    return results


def require_same_data(kept: Mapping[str, Any], data: PreparedData) -> None:
    """Refuse data that are not those of the facts that a run keeps.

    Raises:
        DataError: the log, how it was prepared, or the test targets differ.
    """
    for fact in ("fingerprint", "config", "test_targets"):
        if data.facts[fact] != kept[fact]:
            raise DataError(
                f"The run was made on other data: the {fact.replace('_', ' ')} of {data.folder} differs. "
                "Was the source changed? Train again, into another folder."
            )


def _train(
    scorer: Scorer, config: RunConfig, evaluator: Evaluator, folder: RunFolder, trackers: Sequence[Tracker]
) -> dict[str, Any]:
    began = time.monotonic()
    if not isinstance(scorer, SequenceModel):
        scorer.fit_data(evaluator.data)
        save_checkpoint(folder.best, scorer.state_dict())
        return {"seconds": time.monotonic() - began, "parameters": 0, "epochs": 0}
    loss = build_loss(config, scorer, evaluator.data)
    trainer = Trainer(scorer, loss, evaluator, config.training, folder, config.seed, trackers)
    end = trainer.train()
    fetch_weights(folder.best, scorer, evaluator.ranks)
    epochs = evaluator.ranks.of_main(folder.epochs())
    return {
        "seconds": sum(epoch["speed"]["seconds"] + epoch["speed"].get("evaluation_seconds", 0) for epoch in epochs),
        "epochs": end.epoch,
        "best_epoch": end.best_epoch,
        **({"averaged_epochs": end.averaged} if end.averaged else {}),
        "batch_size": trainer.batch_size,
        "parameters": count_parameters(scorer),
    }


def _keep_per_user(evaluation: Evaluation, folder: RunFolder, part: str, data: PreparedData) -> None:
    try:
        evaluation.write_per_user(folder.per_user(part), data.user_ids(), list(data.catalogue.ids))
    except ImportError:
        print("Per-user results are not kept: pyarrow is not installed.", file=sys.stderr)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
