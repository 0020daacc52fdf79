"""A comparison as plain facts: what every page, table and file of it is written from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from seqrec.evaluation.significance import Verdict
from seqrec.experiments.seeds import Spread


def row_name(label: str, varied: Mapping[str, Any]) -> str:
    """How a row is called: `SASRec, max_length 32`."""
    return ", ".join([label, *(f"{key.rpartition('.')[2]} {value}" for key, value in varied.items())])


def is_number(value: Any) -> bool:
    """Whether more and less mean anything for it."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def in_order(values: Iterable[Any]) -> list[Any]:
    """Values of a varied setting: numbers by size, anything else by its text."""
    found = list(dict.fromkeys(values))
    return sorted(found) if all(map(is_number, found)) else sorted(found, key=str)


@dataclass(frozen=True)
class Row:
    """One model with one choice of settings on one data set and split.

    Attributes:
        data, split: what it was judged on; `split` as the data set words it.
        label: how the model is called; `varied`: the settings that vary, such as {"model.max_length": 32}.
        seeds: of its runs; a model without chance has one.
        test, validation: by measure, over seeds.
        low, high: 95% bootstrap interval of the comparison's metric over users (values averaged over seeds).
        by_popularity, by_length: the metric's cut-off-10 twin (NDCG@10) by bucket, averaged over seeds.
        seconds, seconds_per_epoch: averages; evaluation included in the first. None where nothing was trained here.
        parameters: learned by gradient. peak_memory_mib: of the device, or of the process
            on a CPU and where nothing is trained by gradient.
        targets: hash of the test targets.
        beside: how many runs shared the machine while this was timed. device: what it ran on; empty for lists.
    """

    data: str
    split: str
    label: str
    varied: Mapping[str, Any]
    seeds: tuple[int, ...]
    test: Mapping[str, Spread]
    validation: Mapping[str, Spread]
    low: float
    high: float
    by_popularity: Mapping[str, float]
    by_length: Mapping[str, float]
    seconds: float | None
    seconds_per_epoch: float | None
    epochs: float | None
    parameters: int | None
    peak_memory_mib: float | None
    targets: str
    beside: int = 1
    device: str = ""

    @property
    def name(self) -> str:
        """Label and what varies: `SASRec, max_length 32`."""
        return row_name(self.label, self.varied)

    def validated(self, metric: str) -> float:
        """Its mean on validation; lists that others made have none and stand below everything."""
        return self.validation[metric].mean if self.validation else -1.0


@dataclass(frozen=True)
class Test:
    """`first` against `second` (row names) on the same users; p values before and after Holm's correction.

    Attributes:
        why: `reference`, `pair`, `member` (an ensemble against the best of its members on validation), or the varied
            setting whose ends are compared.
        difference, low, high: mean of first minus second, and its 95% paired bootstrap interval.
        effect: Cohen's d of the paired differences.
        family: how many tests were corrected together.
        verdict: of `first`.
    """

    data: str
    split: str
    why: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_permutation: float
    p_holm: float
    effect: float
    users: int
    family: int
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """Everything a comparison found.

    Attributes:
        rows: by data set and split, best validation first.
        failures: what could not be run, and why. missing: rows that lack runs which were not made yet.
        protocols: how the numbers of each (data, split) are measured, in words.
    """

    name: str
    metric: str
    alpha: float
    rows: tuple[Row, ...]
    tests: tuple[Test, ...]
    failures: tuple[str, ...]
    protocols: Mapping[str, str]
    missing: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """What it ran on: every device, in the order of the rows."""
        return ", ".join(dict.fromkeys(row.device for row in self.rows if row.device))

    @property
    def parts(self) -> list[tuple[str, str]]:
        """(data, split) pairs, in order."""
        return list(dict.fromkeys((row.data, row.split) for row in self.rows))

    def of(self, part: tuple[str, str]) -> list[Row]:
        """Rows of one (data, split)."""
        return [row for row in self.rows if (row.data, row.split) == part]

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From what `to_dict` gave, read back from JSON."""
        rows = tuple(
            Row(
                **{
                    **row,
                    "seeds": tuple(row["seeds"]),
                    "test": {name: Spread(**spread) for name, spread in row["test"].items()},
                    "validation": {name: Spread(**spread) for name, spread in row["validation"].items()},
                }
            )
            for row in values["rows"]
        )
        tests = tuple(Test(**test) for test in values["tests"])
        return cls(
            **{
                **values,
                "rows": rows,
                "tests": tests,
                "failures": tuple(values["failures"]),
                "missing": tuple(values["missing"]),
            }
        )
