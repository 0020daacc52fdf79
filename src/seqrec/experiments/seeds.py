"""One configuration, several seeds: how much of a difference is chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from seqrec.experiments.run import Run


@dataclass(frozen=True)
class OverSeeds:
    """Mean and standard deviation (n - 1; 0 for a single run) of a test measure over runs."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.deviation:.4f}"


def over_seeds(runs: Sequence[Run], metric: str) -> OverSeeds:
    """Summarise `metric`, such as `ndcg@10`, over runs that differ in their seed only."""
    values = [run.metrics[metric] for run in runs]
    return OverSeeds(mean(values), stdev(values) if len(values) > 1 else 0.0)
