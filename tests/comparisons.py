"""Made-up comparisons: three rows, many, odd names, nothing tested, nothing there, a setting that varies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from seqrec.experiments.compare import table
from seqrec.experiments.seeds import Spread

PART = ("ml-100k", "leave-one-out")
NASTY = "<b>&_%$#{x}\\ ^~|`*[1]\" -- 'q' -.5"
UNICODE = "序列模型 é ± наш"


def row(label: str, value: float, varied: dict[str, Any] | None = None, **changes: Any) -> table.Row:
    measures = {"ndcg@10": value, "recall@10": value * 1.9, "mrr@10": value * 0.7}
    made = table.Row(
        device="a machine",
        data=PART[0],
        split=PART[1],
        label=label,
        varied=varied or {},
        seeds=(42, 123, 2023),
        test={name: Spread(mean, 0.0011) for name, mean in measures.items()},
        validation={name: Spread(mean * 1.05, 0.0012) for name, mean in measures.items()},
        low=value - 0.006,
        high=value + 0.006,
        by_popularity={"head": value * 1.4, "mid": value * 0.8, "tail": value * 0.3},
        by_length={"1-9": value * 0.9, "200+": value * 1.1},
        seconds=30.0,
        seconds_per_epoch=1.5,
        epochs=20.0,
        parameters=345_678,
        peak_memory_mib=512.3,
        targets="ab" * 32,
    )
    return replace(made, **changes)


def judged(first: str, second: str, difference: float, p: float, why: str = "reference") -> table.Test:
    verdict: Any = "no difference shown" if p > 0.05 else "better" if difference > 0 else "worse"
    low, high = difference - 0.005, difference + 0.005
    numbers = (difference, low, high, p / 2, p / 3, p, difference * 10, 943, 9)
    return table.Test(*PART, why, first, second, *numbers, verdict)


def made(rows: list[table.Row], tests: list[table.Test] | None = None, **changes: Any) -> table.Comparison:
    protocols = {", ".join(PART): "ml-100k, 5-core, every item ranked"}
    facts = table.Comparison("A & B", "ndcg@10", 0.05, tuple(rows), tuple(tests or ()), (), protocols)
    return replace(facts, **changes)


def by_length(step: float, p: float, label: str = "SASRec") -> table.Comparison:
    rows = [
        row(label, 0.1 + step * place, {"model.max_length": length}, seconds_per_epoch=1.0 + place)
        for place, length in enumerate((32, 64, 128))
    ]
    name = f"{label}, max_length "
    return made(rows, [judged(name + "128", name + "32", 2 * step, p, "model.max_length")])


THREE = made(
    [row("xLSTM", 0.12), row("LSTM", 0.118), row("popularity", 0.03, seeds=(42,))],
    [judged("xLSTM", "LSTM", 0.002, 0.41), judged("xLSTM", "popularity", 0.09, 0.0003)],
)
MANY = made(
    [row(f"model {n // 3}", 0.01 + n * 0.001, {"a.b": n % 3}) for n in range(90)],
    [judged("model 29, b 2", f"model {n // 3}, b {n % 3}", 0.001 * (89 - n), 0.001) for n in range(89)],
)
ODD = made(
    [row(NASTY, 0.12), row(UNICODE, 0.11, {"a.x": "<i>"}), row(UNICODE, 0.10, {"a.x": "é|"})],
    [judged(NASTY, f"{UNICODE}, x <i>", 0.01, 0.2), judged(NASTY, f"{UNICODE}, x é|", 0.02, 0.01)],
    name=NASTY,
    failures=(f"{NASTY}: broke\non two lines",),
    protocols={},
)
BARE = made(
    [row("lists of others", 0.1, seeds=(), validation={}, seconds=None, seconds_per_epoch=None, epochs=None)],
    failures=("x: no",),
)
EMPTY = made([], failures=("everything: broke",))
ALL = {"three": THREE, "many": MANY, "odd": ODD, "bare": BARE, "empty": EMPTY, "varied": by_length(0.004, 0.01)}
ALL["no tests"] = made([row("a", 0.1), row("b", 0.2)])
ALL["no time"] = made([row("a", 0.1, seconds=0.0), row("b", 0.1, seconds=5e-5), row("c", 0.1, seconds=9e5)])
everything = pytest.mark.parametrize("facts", ALL.values(), ids=ALL)
