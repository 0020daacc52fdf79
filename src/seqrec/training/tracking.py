"""Who is told how training goes. A tracker sees the start, each step's report, each epoch and the end."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Progress:
    """Where training stands, a few times a second."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    tokens_per_second: float
    seconds_left: float


class StopTraining(Exception):
    """Raised by a tracker in `epoch_ended`: no epoch follows, as if patience had run out. What was best is kept."""


class Tracker(Protocol):
    """Anything that follows a training run."""

    def started(self, facts: Mapping[str, Any]) -> None:
        """Parameters, device, epochs planned, epochs and steps already done."""

    def progressed(self, progress: Progress) -> None:
        """Called between steps, at most a few times a second."""

    def epoch_ended(self, record: Mapping[str, Any]) -> None:
        """The record of an epoch as it is stored in the run.

        Raises:
            StopTraining: where this is to be the last epoch; the other trackers are told all the same.
        """

    def ended(self, facts: Mapping[str, Any]) -> None:
        """Hyper-parameters and final metrics, flat."""


#: Parts of an epoch's record that are shown as `part/name`. `loss` is the probe's: without dropout, on both parts.
GROUPS = ("train", "loss", "validation", "gradient_norm", "speed", "gpu", "train_loss_by_length")


class TensorBoard:
    """Writes what TensorBoard shows: `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def started(self, facts: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What a training that died had written beyond its checkpoint is about to be written again.
        self._writer = SummaryWriter(str(self._folder), purge_step=facts["steps_done"] + 1)
        self._writer.add_scalar("model/parameters", facts["parameters"], 0)

    def progressed(self, progress: Progress) -> None:
        pass

    def epoch_ended(self, record: Mapping[str, Any]) -> None:
        step = record["step"]
        for number, loss in enumerate(record["losses"], start=step - len(record["losses"]) + 1):
            self._writer.add_scalar("train/loss_by_step", loss, number)
        self._writer.add_scalar("train/learning_rate", record["learning_rate"], step)
        for group in GROUPS:
            for name, value in record.get(group, {}).items():
                self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.flush()

    def ended(self, facts: Mapping[str, Any]) -> None:
        self._writer.add_hparams(
            {
                name: value
                for name, value in facts["hyperparameters"].items()
                if isinstance(value, (int, float, str, bool))
            },
            {f"final/{name}": value for name, value in facts["metrics"].items()},
            run_name=".",
        )
        self._writer.close()


def tensorboard_if_installed(folder: Path) -> TensorBoard | None:
    """A TensorBoard tracker, or None and a line that says so where the package is missing."""
    if importlib.util.find_spec("tensorboard"):
        return TensorBoard(folder)
    print("Nothing is written for TensorBoard: it is not installed.", file=sys.stderr)
    return None
