"""A few steps of training, timed, and what an epoch of such steps takes."""

from __future__ import annotations

import time
from collections import Counter
from statistics import mean
from typing import Any

import numpy as np

from seqrec.data.batches import EpochPlan, plan_epoch
from seqrec.training.schedule import scheduled_learning_rate
from seqrec.training.trainer import Trainer

#: Seconds that steps are tried for; what is begun is finished.
BUDGET = 5.0
#: Steps of one shape that are timed at most, after some that are not: one that warms up, one that may be recorded.
STEPS, UNCOUNTED = 12, 2

#: Rows, and positions of each.
Shape = tuple[int, int]


class RehearsingTrainer(Trainer):
    """A trainer that takes a few steps of each shape an epoch has."""

    def epoch(self) -> tuple[int, float]:
        """Steps of an epoch, and the seconds they take together."""
        began = time.perf_counter()
        train, length = self.evaluator.data.train, self.model.config.max_length
        plan = plan_epoch(train, length, self.batch_size, self.config.random_windows, [self.seed, 0])
        seconds = time.perf_counter() - began
        self._tokens, self._steps_per_epoch = plan.num_targets, len(plan)
        shapes = list(zip(np.diff(plan.cuts).tolist(), plan.widths, strict=True))
        self.model.train()
        measured = self._measure(plan, shapes)
        return len(plan), seconds + sum(_nearest(measured, shape) for shape in shapes)

    def _measure(self, plan: EpochPlan, shapes: list[Shape]) -> dict[Shape, float]:
        """Seconds of a step by shape: the largest first, for its memory, then those that most of the work is in."""
        work = {shape: count * _cells(shape) for shape, count in Counter(shapes).items()}
        order = sorted(work, key=lambda shape: (_cells(shape) == max(map(_cells, work)), work[shape]), reverse=True)
        measured: dict[Shape, float] = {}
        ends = time.perf_counter() + BUDGET
        for shape in order:
            if measured and time.perf_counter() > ends:
                break
            chosen = [number for number, other in enumerate(shapes) if other == shape]
            numbers = [chosen[n % len(chosen)] for n in range(STEPS + UNCOUNTED)]
            measured[shape] = self._steps(numbers, plan, BUDGET / len(order))
        return measured

    def _steps(self, numbers: list[int], plan: EpochPlan, budget: float) -> float:
        """Mean seconds of a step, as an epoch is their sum; the first ones warm up and do not count."""
        batches = list(plan.batches(self.device))
        seconds: list[float] = []
        first = time.perf_counter()
        for place, number in enumerate(numbers):
            began = time.perf_counter()
            rate = scheduled_learning_rate(self.config, self.at.step, 0, len(plan))
            told = self.step(*batches[number], rate, self.at.step)
            self._collect([told])  # waits for the device
            self.at.step += 1
            if place >= UNCOUNTED:
                seconds.append(time.perf_counter() - began)
            if seconds and time.perf_counter() - first > budget:
                break
        return mean(seconds)

    def written(self) -> tuple[dict[str, Any], float]:
        """The record of an epoch that ends in an evaluation, and the seconds that took."""
        began = time.perf_counter()
        self.at.epoch = self.config.epochs - 1
        record = self._finish_epoch()
        return record, time.perf_counter() - began

    def saved(self) -> float:
        """Seconds that a checkpoint to resume from takes."""
        began = time.perf_counter()
        self._save()
        return time.perf_counter() - began


def _cells(shape: Shape) -> int:
    return shape[0] * shape[1]


def _nearest(measured: dict[Shape, float], shape: Shape) -> float:
    """Seconds of a step; of a shape that was not tried, those of the nearest one, by the number of cells."""
    near = min(measured, key=lambda other: abs(_cells(other) - _cells(shape)))
    return measured[near] * _cells(shape) / _cells(near)
