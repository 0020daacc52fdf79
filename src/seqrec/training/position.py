"""Where a training stands."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Position:
    """Where training stands: together with weights, optimisers and random state, all that resuming needs.

    Attributes:
        stopped: whether a tracker said that it is enough.
        fallen, waited: see `after_evaluation`.
        kept: metric of the epochs whose weights are kept for an average, best first.
        averaged: epochs whose mean the best weights are, where that is better than the best of them.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    without_improvement: int = 0
    stopped: bool = False
    fallen: float = 1.0
    waited: int = 0
    kept: dict[str, float] = field(default_factory=dict)
    averaged: list[int] = field(default_factory=list)
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    norms: list[list[float]] = field(default_factory=list)
