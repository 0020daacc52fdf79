"""Who stands where: what the tests of a comparison say about each row, and which rows belong to one varied setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from seqrec.evaluation.significance import Verdict
from seqrec.experiments.compare.notation import short
from seqrec.experiments.compare.table import Comparison, Row, Test, in_order, is_number

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
    """Tests of one (data, split): against the reference or of pairs, of the ends of each setting, of ensembles."""
    found = [test for test in comparison.tests if (test.data, test.split) == part]
    keys = [REFERENCE, PAIR, *(test.why for test in found if test.why not in (REFERENCE, PAIR, MEMBER)), MEMBER]
    return sorted(found, key=lambda test: keys.index(test.why))


def told(why: str) -> str:
    """What a test is for, in words."""
    named = {REFERENCE: "against the reference", PAIR: "pair", MEMBER: "ensemble against its best member"}
    return named.get(why, f"ends of {short(why)}")


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


def reference(comparison: Comparison, part: Part) -> Row | None:
    """The row that every other was tested against; None where all pairs were tested, or nothing was."""
    if not any(test.why == REFERENCE for test in tests_of(comparison, part)):
        return None
    names = against(comparison, part)
    return next((row for row in ranked(comparison, part) if row.name in names), None)


@dataclass(frozen=True)
class Marked:
    """Rows that stand out, and in words why; no words where none does."""

    names: frozenset[str]
    why: str


def marked(comparison: Comparison, part: Part) -> Marked:
    """Rows that may be the best: not shown to be worse than the reference, or than any row where all pairs were tested.

    Where a test shows a row to be better than the reference, only such rows stand out. None does while a tested row
    above it does not. What is tested for another reason, such as an ensemble against its member, plays no part.
    """
    tests = [test for found in against(comparison, part).values() for test in found]
    whom = reference(comparison, part)
    if whom is None:
        tests = [seen for test in tests_of(comparison, part) if test.why == PAIR for seen in _both(test)]
    tested = {name for test in tests for name in (test.first, test.second)}
    wanted = tested - {test.first for test in tests if test.verdict == "worse"}
    why, cut = f"not shown to be worse than {whom.name if whom else 'any other row'}", "nor below a row that is"
    better = {test.first for test in tests if test.verdict == "better"}
    if whom and better:
        wanted, why, cut = better, f"shown to be better than {whom.name}", "and not below a row that is not"
    order = [row.name for row in ranked(comparison, part) if row.name in tested]
    names = frozenset(takewhile(wanted.__contains__, order))
    if not names:
        why = ""
    elif names != wanted:
        why += f", {cut}"
    return Marked(names, why)


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
