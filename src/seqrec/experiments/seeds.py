"""One configuration, several seeds: how much of a difference is chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqrec.experiments.run import Run

#: Seeds of a repeated run, unless others are asked for.
SEEDS = (42, 123, 2023)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1; 0 for a single run) over seeds."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.deviation:.4f}"


def spread(values: Sequence[float]) -> Spread:
    """Of one measure over runs that differ in their seed only."""
    return Spread(mean(values), stdev(values) if len(values) > 1 else 0.0)


def over_seeds(runs: Sequence[Run], metric: str) -> Spread:
    """Of a test measure, such as `ndcg@10`."""
    return spread([run.metrics[metric] for run in runs])
