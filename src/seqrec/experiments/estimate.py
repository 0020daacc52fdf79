"""Time, memory and disk of a run before it starts, from a rehearsal in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqrec.data.load import Report
from seqrec.errors import ConfigError, DataError, ScoreError, SeqrecError, TrainingError, UnknownNameError
from seqrec.experiments.door import prepare_run
from seqrec.experiments.environment import choose_device
from seqrec.experiments.rehearsal.measure import Rehearsed
from seqrec.files import DiskError

#: Bytes of run.json and results.json, which hardly vary.
SMALL_FILES = 40_000
#: Errors of the other process that are raised here as what they are.
ERRORS = {
    error.__name__: error for error in (ConfigError, DataError, DiskError, ScoreError, TrainingError, UnknownNameError)
}


@dataclass(frozen=True)
class Estimate:
    """What a run will take. A model without gradients has no epochs: `epoch_seconds` is its whole fit.

    Attributes:
        device: where it would run.
        epochs: at most; early stopping makes it fewer.
        evaluate_every: epochs between evaluations.
        checkpoint_seconds: between checkpoints to resume from.
        cases: of validation and test together.
        prepared_bytes: of the prepared data, which runs share.
        rehearsed: what was measured.
        took: seconds that the estimate itself took.
    """

    device: str
    epochs: int
    evaluate_every: int
    checkpoint_seconds: float
    cases: int
    prepared_bytes: int
    rehearsed: Rehearsed
    took: float

    def evaluations(self, epochs: int) -> int:
        """How many of so many epochs end in an evaluation; the last one that is allowed always does."""
        return epochs // self.evaluate_every + (epochs == self.epochs and epochs % self.evaluate_every > 0)

    def training_seconds(self, epochs: int | None = None) -> float:
        """Training with its evaluations and checkpoints, for all epochs or for so many."""
        found = self.rehearsed
        if not self.epochs:
            return found.epoch_seconds
        epochs = self.epochs if epochs is None else epochs
        seconds = epochs * found.epoch_seconds + self.evaluations(epochs) * found.evaluation_seconds
        each = max(self.checkpoint_seconds, found.epoch_seconds / max(found.steps, 1))
        return seconds + (1 + seconds / each) * found.saving_seconds

    def seconds(self, epochs: int | None = None) -> float:
        """From the start of the process to the test results, on data that are prepared."""
        found = self.rehearsed
        return found.start_seconds + self.training_seconds(epochs) + self.cases * found.case_seconds

    def run_bytes(self, epochs: int | None = None) -> float:
        """What the folder of the finished run holds."""
        found = self.rehearsed
        epochs = self.epochs if epochs is None else epochs
        told = epochs * found.epoch_bytes + self.evaluations(epochs) * found.evaluation_bytes if self.epochs else 0.0
        return SMALL_FILES + found.items_bytes + found.weights_bytes + told + self.cases * found.case_bytes

    def most_bytes(self) -> float:
        """What it holds at most while it trains: a new checkpoint is whole before the old one goes."""
        return self.run_bytes() + 2 * self.rehearsed.checkpoint_bytes

    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return {
            **asdict(self),
            "training_seconds_at_most": self.training_seconds(),
            "seconds_at_most": self.seconds(),
            "run_bytes_at_most": self.run_bytes(),
            "disk_bytes_at_most": self.most_bytes(),
        }


def estimate(
    data: Any,
    model: str = "xlstm",
    *,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    report: Report = lambda line: None,
) -> Estimate:
    """What `train` with the same arguments will take on this machine, as busy as it is now.

    A process of its own builds the model, takes a few real steps for each shape of batch an epoch has, evaluates a
    few blocks of cases, and writes each kind of file once. A model without gradients is fitted on growing shares of
    the users while there is time, and the rest drawn as a straight line: what grows faster than the number of
    users is then underrated.

    Args:
        data, model, preset, settings, device: as in `train`; the data are prepared if they are not yet.
        report: told in words what is being done.

    Raises:
        ConfigError, DataError: as `train` would.
        TrainingError: the rehearsal was killed, as happens where memory is too small, or the GPU's is.
    """
    began = time.monotonic()
    where = choose_device(device)
    config, prepared = prepare_run(data, model, preset, settings or {}, report)
    asked = {"config": config.to_dict(), "data": str(prepared.folder.resolve()), "device": str(where)}
    found = _rehearsed(asked)
    return Estimate(
        device=str(where),
        epochs=config.training.epochs if found.steps else 0,
        evaluate_every=config.training.evaluate_every,
        checkpoint_seconds=config.training.checkpoint_seconds,
        cases=sum(len(prepared.cases(part)) for part in ("validation", "test")),
        prepared_bytes=sum(file.stat().st_size for file in Path(prepared.folder).rglob("*") if file.is_file()),
        rehearsed=found,
        took=time.monotonic() - began,
    )


def _rehearsed(asked: Mapping[str, Any]) -> Rehearsed:
    """What the process of the rehearsal answers; its errors are raised here."""
    # Models may live beside the user, wherever this process found them.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "seqrec.experiments.rehearsal"],
        input=json.dumps({**asked, "began": time.time()}),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        raise TrainingError(
            f"The rehearsal was killed by signal {-done.returncode}, as happens where memory is too small. "
            "Try a smaller training.batch_size, model.max_length or evaluation.memory_mb."
        )
    if done.returncode:
        raise SeqrecError(f"The rehearsal failed:\n{done.stderr.strip()}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise ERRORS.get(answer["error"], SeqrecError)(answer["message"])
    return Rehearsed(**answer["found"])
