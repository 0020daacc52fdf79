"""An ablation as plain facts: what every page of it is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from seqrec.experiments.compare.table import Test
from seqrec.experiments.seeds import Spread

#: What is judged.
PARTS = ("validation", "test")
#: What a test of the run against the run without a feature says about the feature.
VERDICTS = {"better": "helps", "worse": "hurts"}
NOT_SHOWN, NOTHING = "not shown", "changes nothing"


@dataclass(frozen=True)
class Drop:
    """What switching a feature off costs on `validation` or `test`.

    Attributes:
        without: the metric without the feature, over seeds.
        test: the run against it: `difference` is the drop, with its interval and p values.
        by_seed: the drop of each seed.
    """

    without: Spread
    test: Test
    by_seed: tuple[float, ...]

    @property
    def agreeing(self) -> int:
        """How many seeds have a drop of the same sign as their mean."""
        return sum(drop * self.test.difference > 0 for drop in self.by_seed)

    @property
    def verdict(self) -> str:
        """`helps` or `hurts` where the test shows it and every seed agrees; otherwise `not shown`."""
        return VERDICTS.get(self.test.verdict, NOT_SHOWN) if self.agreeing == len(self.by_seed) else NOT_SHOWN


@dataclass(frozen=True)
class AblationRow:
    """A feature that was switched off.

    Attributes:
        changes: settings by dotted key, with the feature and without.
        words: the same in words.
        verdict: that of the test part; `changes nothing` where every person has the same value without it, on both
            parts and with every seed.
    """

    feature: str
    changes: Mapping[str, tuple[Any, Any]]
    words: str
    validation: Drop
    test: Drop
    verdict: str


@dataclass(frozen=True)
class Ablation:
    """Everything an ablation found.

    Attributes:
        run: folder of the run. label: its model and data, in words.
        validation, test: the metric of the run, over seeds.
        rows: the largest drop on the test part first.
        skipped: features that were not switched off, and why. failures: runs that failed, and why.
        protocol: how the numbers are measured, in words.
        epochs: how many there are at most, where that is not what the run says.
    """

    run: str
    label: str
    metric: str
    alpha: float
    seeds: tuple[int, ...]
    validation: Spread
    test: Spread
    rows: tuple[AblationRow, ...]
    skipped: Mapping[str, str]
    failures: tuple[str, ...]
    protocol: str
    epochs: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)
