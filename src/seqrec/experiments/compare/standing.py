"""Who stands where: what the tests of a comparison say about each row, and which rows belong to one varied setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from seqrec.evaluation.significance import Verdict
from seqrec.experiments.compare.notation import is_number
from seqrec.experiments.compare.table import Comparison, Row, Test, in_order

Part = tuple[str, str]
#: Reasons for a test that are not a varied setting.
REFERENCE, PAIR, MEMBER = "reference", "pair", "member"
OPPOSITE: dict[Verdict, Verdict] = {
    "better": "worse",
    "worse": "better",
    "no difference shown": "no difference shown",
}


def seen_from(test: Test, name: str) -> Test:
    """The same test with `name` as its first."""
    if test.first == name:
        return test
    return replace(
        test,
        first=test.second,
        second=test.first,
        difference=-test.difference,
        low=-test.high,
        high=-test.low,
        effect=-test.effect,
        verdict=OPPOSITE[test.verdict],
    )


def tests_of(comparison: Comparison, part: Part) -> list[Test]:
    """Tests of one (data, split)."""
    return [test for test in comparison.tests if (test.data, test.split) == part]


def ranked(comparison: Comparison, part: Part) -> list[Row]:
    """Rows of one (data, split), the highest test value first; one without that measure is last."""
    return sorted(comparison.of(part), key=lambda row: -_mean(row, comparison.metric))


def against(comparison: Comparison, part: Part) -> dict[str, list[Test]]:
    """By row that others were tested against: those tests, each with the other row as its first.

    Where all pairs were tested, that row is the one with the highest test value.
    """
    tests = tests_of(comparison, part)
    to_reference = [test for test in tests if test.why == REFERENCE]
    if to_reference:
        last = len({test.second for test in to_reference}) < len({test.first for test in to_reference})
        anchored = [test if last else seen_from(test, test.second) for test in to_reference]
    else:
        best = ranked(comparison, part)[0].name
        pairs = [test for test in tests if test.why == PAIR and best in (test.first, test.second)]
        anchored = [seen_from(test, test.first if test.second == best else test.second) for test in pairs]
    found: dict[str, list[Test]] = {}
    for test in anchored:
        found.setdefault(test.second, []).append(test)
    return found


def may_be_best(comparison: Comparison, part: Part) -> set[str]:
    """Names of rows that no test shows to be worse than another, and of the row with the highest value.

    Rows that were not tested are not in it, nor is anything where nothing was tested.
    """
    tests = tests_of(comparison, part)
    if not tests:
        return set()
    tested = {name for test in tests for name in (test.first, test.second)}
    worse = {seen.first for test in tests for seen in _both(test) if seen.verdict == "worse"}
    return (tested - worse) | ({ranked(comparison, part)[0].name} - worse)


@dataclass(frozen=True)
class Line:
    """One model along a varied setting.

    Attributes:
        name: the model, with what else varies.
        rows: by value of the setting, as text.
        test: the ends against each other, the last value first; None where they were not tested.
    """

    name: str
    rows: Mapping[str, Row]
    test: Test | None


@dataclass(frozen=True)
class Axis:
    """A setting that varies: its values as text, in order, and whether they are numbers."""

    key: str
    values: tuple[str, ...]
    numeric: bool
    lines: tuple[Line, ...]


def axes(comparison: Comparison, part: Part) -> list[Axis]:
    """Every setting that at least one model of a (data, split) has at two values."""
    keys = dict.fromkeys(key for row in comparison.of(part) for key in row.varied)
    return [axis for axis in (_axis(comparison, part, key) for key in keys) if axis.lines]


def _axis(comparison: Comparison, part: Part, key: str) -> Axis:
    groups: dict[str, dict[str, Row]] = {}
    for row in comparison.of(part):
        if key in row.varied:
            others = {other: value for other, value in row.varied.items() if other != key}
            groups.setdefault(replace(row, varied=others).name, {})[str(row.varied[key])] = row
    groups = {name: group for name, group in groups.items() if len(group) > 1}
    values: dict[str, Any] = {text: row.varied[key] for group in groups.values() for text, row in group.items()}
    numeric = all(is_number(value) for value in values.values())
    order = [str(value) for value in in_order(values.values())]
    tests = [test for test in tests_of(comparison, part) if test.why == key]
    lines = []
    for name, group in groups.items():
        along = {value: group[value] for value in order if value in group}
        lines.append(Line(name, along, _ends(tests, list(along.values()))))
    return Axis(key, tuple(order), numeric, tuple(lines))


def _ends(tests: list[Test], rows: list[Row]) -> Test | None:
    first, last = rows[0].name, rows[-1].name
    found = (seen_from(test, last) for test in tests if {test.first, test.second} == {first, last})
    return next(found, None)


def _both(test: Test) -> tuple[Test, Test]:
    return seen_from(test, test.first), seen_from(test, test.second)


def _mean(row: Row, metric: str) -> float:
    return row.test[metric].mean if metric in row.test else float("-inf")
