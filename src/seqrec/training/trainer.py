"""The training loop. Read `Trainer.train` first; everything below it is in the order it happens."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from seqrec.data.batches import BatchMaker, plan_epoch
from seqrec.errors import ConfigError, SeqrecError, TrainingError
from seqrec.evaluation.evaluator import Evaluator
from seqrec.files import append_line
from seqrec.models.base import SequenceModel
from seqrec.models.sharded import shard_items
from seqrec.run_folder import RunFolder
from seqrec.training.audience import Audience
from seqrec.training.averaging import forget, put_mean, weights_of, with_epoch
from seqrec.training.config import TrainingConfig
from seqrec.training.interrupt import StopRequest
from seqrec.training.monitor import GPUMonitor
from seqrec.training.pace import Pace
from seqrec.training.position import Position
from seqrec.training.probe import probe
from seqrec.training.schedule import after_evaluation, scheduled_learning_rate
from seqrec.training.state import fetch_training, save_training, save_weights
from seqrec.training.step import Loss, Step
from seqrec.training.tracking import Tracker

#: Seconds between reports of progress; each one waits for the device.
REPORT_EVERY = 0.5


class TrainingInterrupted(SeqrecError):
    """Somebody asked training to stop; everything up to the last step is saved."""

    exit_code = 130


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
        self._audience = Audience(trackers, config)
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
        self._audience.started(self.model, self.device, self.at)
        with StopRequest() as stop:
            while self._goes_on():
                self._train_epoch(stop)
                record = self._finish_epoch()
                if self.ranks.is_main:
                    append_line(self.folder.history, json.dumps(record))
                enough = self._audience.epoch_ended(record)
                self.at.stopped, asked, due = self.ranks.any(enough, stop.asked, self._unsaved_for_long())
                self._save_or_stop(asked, due)
        self._save()
        if len(self.at.kept) > 1:
            self._try_average()
        return self.at

    def _goes_on(self) -> bool:
        at, config = self.at, self.config
        return at.epoch < config.epochs and at.without_improvement < config.patience and not at.stopped

    def _train_epoch(self, stop: StopRequest) -> None:
        """Every history once. The plan of an epoch depends on its seed alone, so it can be picked up in the middle."""
        config, at = self.config, self.at
        train, max_length = self.evaluator.data.train, self.model.config.max_length
        plan = plan_epoch(train, max_length, self.batch_size, config.random_windows, [self.seed, at.epoch])
        self._tokens, self._steps_per_epoch = plan.num_targets, len(plan)
        told: list[Tensor] = []
        self.model.train()
        self._pace.start()
        for rows_3B, width in plan.batches(self.device, at.batch):
            rate = scheduled_learning_rate(config, at.step, at.epoch, len(plan), at.fallen)
            told.append(self.step(self.ranks.share(rows_3B), width, rate, at.step))
            at.batch += 1
            at.step += 1
            asked = stop.asked  # read once: a signal between two reads would save steps whose losses were not collected
            if self._pace.due(asked) or at.batch == len(plan):
                self._collect(told)
                at.seconds += self._pace.elapsed
                self._audience.progressed(at, plan.num_targets, len(plan))
                self._save_or_stop(*self._pace.agree(asked, self._unsaved_for_long()))
                self._pace.start()

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
        rate = scheduled_learning_rate(config, at.step - 1, at.epoch - 1, self._steps_per_epoch, at.fallen)
        record: dict[str, Any] = {
            "epoch": at.epoch,
            "step": at.step,
            "learning_rate": rate,
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
            record["speed"]["evaluation_seconds"] = self._audience.evaluation_seconds = time.monotonic() - began
        at.batch, at.seconds, at.losses, at.norms = 0, 0.0, [], []
        return record

    def _evaluate(self) -> dict[str, Any]:
        model, config, at = self._judged, self.config, self.at
        metrics = self.evaluator.evaluate(model, "validation").metrics
        value = metrics[config.metric]
        facts = {"epoch": at.epoch, config.metric: value}
        at.without_improvement += 1
        if at.best is None or value > at.best:
            at.best, at.best_epoch, at.without_improvement = value, at.epoch, 0
            save_weights(self.folder.best, model, facts, self.ranks)
        at.fallen, at.waited = after_evaluation(config, at.fallen, at.waited, at.best_epoch == at.epoch)
        if config.average_best > 1:
            at.kept = with_epoch(at.kept, at.epoch, value, config.average_best)
            if str(at.epoch) in at.kept:
                save_weights(weights_of(self.folder, at.epoch), model, facts, self.ranks)
        model.eval()
        return {"validation": metrics, "best": at.best_epoch == at.epoch} | probe(model, self.evaluator)

    @property
    def _judged(self) -> SequenceModel:
        """The model whose weights are evaluated and kept."""
        return self.model if self.step.average is None else self.step.average.model

    def _try_average(self) -> None:
        """Put the mean of the best epochs' weights in the place of the best ones, if it is better on validation."""
        at, metric, model = self.at, self.config.metric, copy.deepcopy(self._judged)
        put_mean([weights_of(self.folder, epoch) for epoch in at.kept], model, self.ranks)
        value = self.evaluator.evaluate(model, "validation").metrics[metric]
        assert at.best is not None
        if value > at.best:
            at.best, at.averaged = value, sorted(map(int, at.kept))
            facts = {"epoch": at.best_epoch, metric: value, "averaged_epochs": at.averaged}
            save_weights(self.folder.best, model, facts, self.ranks)

    def _save(self) -> None:
        save_training(self.folder.last, self.step, {"position": asdict(self.at)}, self.ranks)
        if self.ranks.is_main:
            forget(self.folder, but=self.at.kept)  # only now: until then, resuming might need others
        self._saved = time.monotonic()

    def _load(self) -> None:
        facts = fetch_training(self.folder.last, self.step, self.ranks, self.ranks.seed(self.seed))
        self.at = Position(**facts["position"])

    def _gpu(self) -> dict[str, float]:
        if self.device.type != "cuda":
            return {}
        peak = {"peak_allocated_mib": torch.cuda.max_memory_allocated(self.device) / 2**20}
        return peak | (self._monitor.read() if self._monitor else {})
