"""What a run is made of, each part measured once."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seqrec.data.prepared import PreparedData
from seqrec.experiments.config import RunConfig
from seqrec.experiments.environment import process_peak_mib
from seqrec.experiments.losses import build_loss
from seqrec.experiments.rehearsal.fits import fit_growing
from seqrec.experiments.rehearsal.samples import TimedEvaluator, some_cases
from seqrec.experiments.rehearsal.steps import RehearsingTrainer
from seqrec.models.base import SequenceModel
from seqrec.models.build import build_model
from seqrec.run_folder import RunFolder
from seqrec.training.checkpoint import save_checkpoint
from seqrec.training.tracking import tensorboard_if_installed

#: What only an epoch that ends in an evaluation writes down.
EVALUATED = ("validation", "best", "loss", "train_loss_by_length")


@dataclass(frozen=True)
class Rehearsed:
    """What was measured. Seconds and bytes are of one; memory is the process's own peak.

    Attributes:
        start_seconds: from the start of the process to the first step: imports, data, model.
        epoch_seconds: training, without evaluation; for a model without gradients the whole fit.
        evaluation_seconds: over all validation cases, with all that follows an evaluation.
        case_seconds: one case of the final scoring, its measures and its line per user.
        saving_seconds: a checkpoint to resume from.
        epoch_bytes, evaluation_bytes, case_bytes: of history and TensorBoard, and what an evaluation adds; per-user.
        fitted_share: of the users, on which a model without gradients was fitted; the rest is a straight line.
    """

    parameters: int
    batch_size: int
    steps: int
    start_seconds: float
    epoch_seconds: float
    evaluation_seconds: float
    case_seconds: float
    saving_seconds: float
    weights_bytes: int
    checkpoint_bytes: int
    epoch_bytes: float
    evaluation_bytes: float
    case_bytes: float
    items_bytes: int
    memory_mib: float
    gpu_mib: float | None
    fitted_share: float | None


def rehearse(config: RunConfig, data: PreparedData, device: torch.device, began: float, path: Path) -> Rehearsed:
    """Measure in the folder `path`; `began` is when the process was started, as `time.time()` has it."""
    torch.manual_seed(config.seed)
    scorer = build_model(config.to_dict()["model"], data.sequences.num_items)
    folder = RunFolder(path)
    data.catalogue.save(folder.items)
    if isinstance(scorer, SequenceModel):
        return _trained(scorer, config, data, device, began, folder)
    return _fitted(config, data, device, began, folder)


def _trained(
    model: SequenceModel, config: RunConfig, data: PreparedData, device: torch.device, began: float, folder: RunFolder
) -> Rehearsed:
    model.fit_data(data)
    loss = build_loss(config, model, data)
    evaluator = TimedEvaluator(data, config.evaluation, device)
    trainer = RehearsingTrainer(model, loss, evaluator, config.training, folder, config.seed)
    start_seconds = time.time() - began
    steps, epoch_seconds = trainer.epoch()
    trainer.evaluator = evaluator = some_cases(evaluator, model)
    record, finish_seconds = trainer.written()
    cases = len(data.cases("validation"))
    evaluation_seconds = evaluator.seconds * cases / len(evaluator.found.ranks)
    saving_seconds = trainer.saved()
    epoch_bytes, evaluation_bytes = _record_bytes(record, steps, folder)
    case_seconds, case_bytes = _per_case(evaluator, folder)
    return Rehearsed(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        batch_size=trainer.batch_size,
        steps=steps,
        start_seconds=start_seconds,
        epoch_seconds=epoch_seconds,
        evaluation_seconds=evaluation_seconds + finish_seconds - evaluator.seconds,
        case_seconds=case_seconds,
        saving_seconds=saving_seconds,
        weights_bytes=folder.best.stat().st_size,
        checkpoint_bytes=folder.last.stat().st_size,
        epoch_bytes=epoch_bytes,
        evaluation_bytes=evaluation_bytes,
        case_bytes=case_bytes,
        items_bytes=folder.items.stat().st_size,
        memory_mib=process_peak_mib(),
        gpu_mib=torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None,
        fitted_share=None,
    )


def _fitted(config: RunConfig, data: PreparedData, device: torch.device, began: float, folder: RunFolder) -> Rehearsed:
    start_seconds = time.time() - began
    scorer, share, fit_seconds, fit_memory = fit_growing(config.to_dict()["model"], data)
    save_checkpoint(folder.best, scorer.state_dict())
    before = process_peak_mib()
    evaluator = some_cases(TimedEvaluator(data, config.evaluation, device), scorer)
    evaluator.evaluate(scorer, "validation")
    case_seconds, case_bytes = _per_case(evaluator, folder)
    return Rehearsed(
        parameters=0,
        batch_size=0,
        steps=0,
        start_seconds=start_seconds,
        epoch_seconds=fit_seconds,
        evaluation_seconds=0.0,
        case_seconds=case_seconds,
        saving_seconds=0.0,
        weights_bytes=folder.best.stat().st_size,
        checkpoint_bytes=0,
        epoch_bytes=0.0,
        evaluation_bytes=0.0,
        case_bytes=case_bytes,
        items_bytes=folder.items.stat().st_size,
        memory_mib=fit_memory + process_peak_mib() - before,
        gpu_mib=None,
        fitted_share=share,
    )


def _record_bytes(record: dict[str, Any], steps: int, folder: RunFolder) -> tuple[float, float]:
    """Bytes that an epoch adds to history and TensorBoard, and what one that ends in an evaluation adds to those."""
    tracker = tensorboard_if_installed(folder.tensorboard)
    if tracker is not None:
        tracker.started({"steps_done": 0, "parameters": 0})

    def told(of: dict[str, Any]) -> int:
        before = _size(folder.tensorboard)
        if tracker is not None:
            tracker.epoch_ended(of)
        return len(json.dumps(of)) + 1 + _size(folder.tensorboard) - before

    without = {**record, "losses": []}
    told(without)  # the start of the file
    bare = told({key: value for key, value in without.items() if key not in EVALUATED})
    whole = told(without)
    per_step = (told(record) - whole) / len(record["losses"])
    return bare + per_step * steps, whole - bare


def _per_case(evaluator: TimedEvaluator, folder: RunFolder) -> tuple[float, float]:
    """Seconds and bytes of one case in the final scoring."""
    found, names, users = evaluator.found, list(evaluator.data.catalogue.ids), evaluator.data.user_ids()
    path = folder.per_user("validation")
    size = 0
    for _ in range(2):  # the first time there is something to import
        began = time.perf_counter()
        found.summary()
        with suppress(ImportError):  # then the run will not write it either
            found.write_per_user(path, users, names)
            size = path.stat().st_size
        seconds = time.perf_counter() - began
    return (evaluator.seconds + seconds) / len(found.ranks), size / len(found.ranks)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
