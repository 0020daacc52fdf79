"""All trackers of a training together, and what they are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from seqrec.models.base import SequenceModel
from seqrec.models.sharded import count_parameters
from seqrec.training.config import TrainingConfig
from seqrec.training.position import Position
from seqrec.training.tracking import Progress, StopTraining, Tracker


class Audience:
    """Tells each tracker the same.

    Attributes:
        evaluation_seconds: what the last evaluation took, for the time that is left.
    """

    def __init__(self, trackers: Sequence[Tracker], config: TrainingConfig) -> None:
        self._trackers = trackers
        self._config = config
        self.evaluation_seconds = 0.0

    def started(self, model: SequenceModel, device: torch.device, at: Position) -> None:
        """Before the first step, from which training starts or goes on."""
        facts = {
            "parameters": count_parameters(model),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
            "epochs": self._config.epochs,
            "epochs_done": at.epoch,
            "steps_done": at.step,
        }
        for tracker in self._trackers:
            tracker.started(facts)

    def epoch_ended(self, record: Mapping[str, Any]) -> bool:
        """Whether one of them says that it was the last epoch; all are told first."""
        enough = False
        for tracker in self._trackers:
            try:
                tracker.epoch_ended(record)
            except StopTraining:
                enough = True
        return enough

    def progressed(self, at: Position, tokens: int, steps: int) -> None:
        """Between steps of an epoch that has so many tokens and steps."""
        done = at.batch / steps
        epochs_left = self._config.epochs - at.epoch
        evaluation = self.evaluation_seconds / self._config.evaluate_every
        progress = Progress(
            epoch=at.epoch + 1,
            epochs=self._config.epochs,
            step=at.batch,
            steps=steps,
            loss=sum(at.losses) / len(at.losses),
            tokens_per_second=tokens * done / max(at.seconds, 1e-9),
            seconds_left=at.seconds / done * (epochs_left - done) + evaluation * epochs_left,
        )
        for tracker in self._trackers:
            tracker.progressed(progress)
