"""The training loop. Read `Trainer.train` first; everything below it is in the order it happens."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from seqrec.data.batches import BatchMaker, plan_epoch
from seqrec.errors import ConfigError, SeqrecError, TrainingError
from seqrec.evaluation.evaluator import Evaluator
from seqrec.files import append_line
from seqrec.models.base import SequenceModel
from seqrec.models.sharded import count_parameters, shard_items
from seqrec.run_folder import RunFolder
from seqrec.training.config import TrainingConfig
from seqrec.training.interrupt import StopRequest
from seqrec.training.monitor import GPUMonitor
from seqrec.training.optimizer import scheduled_learning_rate
from seqrec.training.pace import Pace
from seqrec.training.probe import probe
from seqrec.training.state import fetch_training, save_training, save_weights
from seqrec.training.step import Loss, Step
from seqrec.training.tracking import Progress, Tracker

#: Seconds between reports of progress; each one waits for the device.
REPORT_EVERY = 0.5


class TrainingInterrupted(SeqrecError):
    """Somebody asked training to stop; everything up to the last step is saved."""

    exit_code = 130


@dataclass
class Position:
    """Where training stands: together with weights, optimiser and random state, all that resuming needs."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    without_improvement: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    norms: list[list[float]] = field(default_factory=list)


class Trainer:
    """Trains one model on one data set into one folder."""

    def __init__(
        self,
        model: SequenceModel,
        loss: Loss,
        evaluator: Evaluator,
        config: TrainingConfig,
        folder: RunFolder,
        seed: int,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self.device = evaluator.device
        self.ranks = evaluator.ranks
        if config.shard_items and self.ranks.size > 1:
            shard_items(model, self.ranks)
        self.model = model.to(self.device)
        self.evaluator = evaluator
        self.config = config
        self.folder = folder
        self.seed = seed
        self.trackers = trackers
        if hasattr(loss, "fit"):
            loss.fit(evaluator.data.train)
        self.step = Step(self.model, loss, config, BatchMaker(evaluator.data.sequences, self.device), self.ranks)
        self.at = Position()
        self.batch_size = config.histories_per_step(len(evaluator.data.train))
        if self.batch_size < self.ranks.size:
            raise ConfigError(
                f"Batches of {self.batch_size} histories cannot be shared among {self.ranks.size} processes. "
                "Raise training.batch_size, or lower --nproc-per-node."
            )
        self._pace = Pace(self.ranks, REPORT_EVERY)
        self._monitor = GPUMonitor.of(self.device)
        self._saved = time.monotonic()
        self._evaluation_seconds = 0.0

    def train(self) -> Position:
        """Train until the metric stops improving or the epochs are over; best weights are then in the folder.

        Ranks that train together call this together: each computes a share of every batch and evaluation, all have the
        same weights, and rank 0 alone writes.

        Starts from the folder's last checkpoint where there is one. On a CPU, a training that was killed and
        resumed ends with the very bits of one that was not.

        Raises:
            TrainingInterrupted: on Ctrl-C or SIGTERM, after saving.
            TrainingError: the loss or its gradient is not finite.
        """
        if self.ranks.of_main(self.folder.last.exists()):
            self._load()
        if self.ranks.is_main:
            self.folder.cut_history(self.at.epoch)
        self._tell_start()
        with StopRequest() as stop:
            while self.at.epoch < self.config.epochs and self.at.without_improvement < self.config.patience:
                self._train_epoch(stop)
                record = self._finish_epoch()
                if self.ranks.is_main:
                    append_line(self.folder.history, json.dumps(record))
                for tracker in self.trackers:
                    tracker.epoch_ended(record)
                self._save_or_stop(*self.ranks.any(stop.asked, self._unsaved_for_long()))
        self._save()
        return self.at

    def _train_epoch(self, stop: StopRequest) -> None:
        """Every history once. The plan of an epoch depends on its seed alone, so it can be picked up in the middle."""
        config, at = self.config, self.at
        train, max_length = self.evaluator.data.train, self.model.config.max_length
        plan = plan_epoch(train, max_length, self.batch_size, config.random_windows, [self.seed, at.epoch])
        told: list[Tensor] = []
        self.model.train()
        self._pace.start()
        for rows_3B, width in plan.batches(self.device, at.batch):
            rate = scheduled_learning_rate(config, at.step, at.epoch)
            told.append(self.step(self.ranks.share(rows_3B), width, rate, at.step))
            at.batch += 1
            at.step += 1
            asked = stop.asked  # read once: a signal between two reads would save steps whose losses were not collected
            if self._pace.due(asked) or at.batch == len(plan):
                self._collect(told)
                at.seconds += self._pace.elapsed
                self._tell_progress(plan.num_targets, len(plan))
                self._save_or_stop(*self._pace.agree(asked, self._unsaved_for_long()))
                self._pace.start()
        self._tokens = plan.num_targets

    def _unsaved_for_long(self) -> bool:
        return time.monotonic() - self._saved >= self.config.checkpoint_seconds

    def _save_or_stop(self, stop: bool, save: bool) -> None:
        if save or stop:
            self._save()
        if stop:
            raise TrainingInterrupted(
                f"Stopped in epoch {self.at.epoch + 1}; saved. Resume: seqrec train --resume {self.folder.path}"
            )

    def _collect(self, told: list[Tensor]) -> None:
        """Bring what the steps told to the host, which waits for the device, and stop if it is not finite."""
        rows = torch.stack(told).cpu()
        told.clear()
        self.at.losses += rows[:, 0].tolist()
        self.at.norms += rows[:, 1:].tolist()
        if not torch.isfinite(rows[:, :2]).all():
            raise TrainingError(
                f"The loss or its gradient is not finite in epoch {self.at.epoch + 1}, before step {self.at.step}. "
                "Lower training.learning_rate, lengthen training.warmup_steps or lower training.clip_norm. "
                "The best weights so far are kept."
            )

    def _finish_epoch(self) -> dict[str, Any]:
        """Evaluate, keep the weights if they are the best, and write down what cannot be recovered later."""
        at, config = self.at, self.config
        at.epoch += 1
        losses, norms = torch.tensor(at.losses), torch.tensor(at.norms)
        record: dict[str, Any] = {
            "epoch": at.epoch,
            "step": at.step,
            "learning_rate": scheduled_learning_rate(config, at.step - 1, at.epoch - 1),
            "train": {"loss": float(losses.mean())},
            "gradient_norm": {
                name: float(value) for name, value in zip(["total", *self.step.norms.names], norms.mean(0), strict=True)
            }
            | {
                "total_max": float(norms[:, 0].max()),
                "clipped_share": float((norms[:, 0] > config.clip_norm).float().mean()),
            },
            "ranks": self.ranks.size,
            "speed": {"seconds": at.seconds, "tokens_per_second": self._tokens / max(at.seconds, 1e-9)},
            "gpu": self._gpu(),
            "losses": at.losses,
        }
        if at.epoch % config.evaluate_every == 0 or at.epoch == config.epochs:
            began = time.monotonic()
            record |= self._evaluate()
            record["speed"]["evaluation_seconds"] = self._evaluation_seconds = time.monotonic() - began
        at.batch, at.seconds, at.losses, at.norms = 0, 0.0, [], []
        return record

    def _evaluate(self) -> dict[str, Any]:
        model = self.model if self.step.average is None else self.step.average.model
        metrics = self.evaluator.evaluate(model, "validation").metrics
        value, at = metrics[self.config.metric], self.at
        at.without_improvement += 1
        if at.best is None or value > at.best:
            at.best, at.best_epoch, at.without_improvement = value, at.epoch, 0
            save_weights(self.folder.best, model, {"epoch": at.epoch, self.config.metric: value}, self.ranks)
        model.eval()
        return {"validation": metrics, "best": at.best_epoch == at.epoch} | probe(model, self.evaluator)

    def _save(self) -> None:
        save_training(self.folder.last, self.step, {"position": asdict(self.at)}, self.ranks)
        self._saved = time.monotonic()

    def _load(self) -> None:
        facts = fetch_training(self.folder.last, self.step, self.ranks, self.ranks.seed(self.seed))
        self.at = Position(**facts["position"])

    def _gpu(self) -> dict[str, float]:
        if self.device.type != "cuda":
            return {}
        peak = {"peak_allocated_mib": torch.cuda.max_memory_allocated(self.device) / 2**20}
        return peak | (self._monitor.read() if self._monitor else {})

    def _tell_start(self) -> None:
        facts = {
            "parameters": count_parameters(self.model),
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU",
            "epochs": self.config.epochs,
            "epochs_done": self.at.epoch,
            "steps_done": self.at.step,
        }
        for tracker in self.trackers:
            tracker.started(facts)

    def _tell_progress(self, tokens: int, steps: int) -> None:
        done, seconds = self.at.batch / steps, self.at.seconds
        epochs_left = self.config.epochs - self.at.epoch
        evaluation = self._evaluation_seconds / self.config.evaluate_every
        progress = Progress(
            epoch=self.at.epoch + 1,
            epochs=self.config.epochs,
            step=self.at.batch,
            steps=steps,
            loss=sum(self.at.losses) / len(self.at.losses),
            tokens_per_second=tokens * done / max(seconds, 1e-9),
            seconds_left=seconds / done * (epochs_left - done) + evaluation * epochs_left,
        )
        for tracker in self.trackers:
            tracker.progressed(progress)
