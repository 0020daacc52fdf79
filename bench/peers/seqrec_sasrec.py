"""Our SASRec under the clock of `bench/peers_cpu.py`, as the peers' beside this file.

python seqrec_sasrec.py DATA SCORES SETTINGS: trains on the prepared folder DATA with SETTINGS (JSON, dotted keys) by
the trainer that `seqrec train` uses. After each epoch it writes the score of every item for every validation case to
SCORES (npy, float32), prints a line of JSON, and waits for a line that says `on` or `stop`; the clock stands still
meanwhile.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqrec.data.prepared import PreparedData
from seqrec.evaluation.evaluation import Evaluation
from seqrec.evaluation.evaluator import Evaluator
from seqrec.experiments.config import RunConfig, settings_for
from seqrec.experiments.environment import environment, process_peak_mib
from seqrec.losses import LOSSES
from seqrec.models.base import Scorer, SequenceModel
from seqrec.models.build import build_model
from seqrec.registry import resolve
from seqrec.run_folder import RunFolder
from seqrec.training.tracking import Progress
from seqrec.training.trainer import Trainer


class ToldToStop(Exception):
    """Leaves the training loop."""


class Clock(Evaluator):
    """The evaluator and a tracker of training: its time is all but that of evaluating, which ends with the epoch."""

    epoch, outside, outside_processor = 0, 0.0, 0.0

    def begin(self, scores: str, every: int) -> None:
        """Training starts now."""
        self.scores, self.every = scores, every
        self.began, self.began_processor = time.perf_counter(), time.process_time()

    def evaluate(self, scorer: Scorer, part: str) -> Evaluation:
        """Evaluate, write the scores, say how long it took."""
        self.stopped, self.stopped_processor = time.perf_counter(), time.process_time()
        found = super().evaluate(scorer, part)
        evaluation = time.perf_counter() - self.stopped
        self.epoch += self.every
        np.save(self.scores, all_scores(scorer, self))
        say(
            epoch=self.epoch,
            seconds=self.stopped - self.began - self.outside,
            processor=self.stopped_processor - self.began_processor - self.outside_processor,
            evaluation=evaluation,
            own=found.metrics["ndcg@10"],
            peak=process_peak_mib(),
        )
        wait()
        return found

    def epoch_ended(self, record: Mapping[str, Any]) -> None:
        """What the trainer does with an evaluation is part of it."""
        if "validation" in record:
            self.outside += time.perf_counter() - self.stopped
            self.outside_processor += time.process_time() - self.stopped_processor

    def started(self, facts: Mapping[str, Any]) -> None:
        """A tracker is told; nobody asked."""

    def progressed(self, progress: Progress) -> None:
        """A tracker is told; nobody asked."""

    def ended(self, facts: Mapping[str, Any]) -> None:
        """A tracker is told; nobody asked."""


def main(folder: str, scores: str, given: str) -> None:
    """Prepare, say what is asked, train until told to stop."""
    data = PreparedData.load(Path(folder))
    config = RunConfig.from_dict(settings_for(data.name, "sasrec", "none", json.loads(given)))
    torch.manual_seed(config.seed)
    model = build_model(config.to_dict()["model"], data.sequences.num_items)
    assert isinstance(model, SequenceModel)
    loss = resolve("loss", config.loss_name, LOSSES)(config.loss)
    clock = Clock(data, config.evaluation)
    with tempfile.TemporaryDirectory() as place:
        run = RunFolder.create(Path(place) / "run", config.to_dict(), environment(clock.device), dict(data.facts))
        trainer = Trainer(model, loss, clock, config.training, run, config.seed, [clock])
        cases = data.cases("validation")
        users, items = data.user_ids(), data.catalogue.ids
        targets = [items[item - 1] for item in data.sequences.items[cases.positions]]
        parameters = sum(parameter.numel() for parameter in model.parameters())
        asked = [str(users[user]) for user in cases.users]
        say(users=asked, targets=targets, items=list(items), parameters=parameters)
        try:
            wait()
            clock.begin(scores, config.training.evaluate_every)
            trainer.train()
        except ToldToStop:
            pass


@torch.inference_mode()
def all_scores(scorer: Scorer, evaluator: Evaluator) -> np.ndarray:
    """(cases, items) in the order of both that was said."""
    assert isinstance(scorer, SequenceModel)
    scorer.eval()
    cases = evaluator.data.cases("validation")
    blocks = np.array_split(np.arange(len(cases)), 8)
    return np.concatenate([scorer.scores(evaluator.histories(scorer, cases.take(block))).numpy() for block in blocks])


def wait() -> None:
    if sys.stdin.readline().strip() != "on":
        raise ToldToStop


def say(**facts: object) -> None:
    print("FOUND", json.dumps(facts), flush=True)


main(*sys.argv[1:])
