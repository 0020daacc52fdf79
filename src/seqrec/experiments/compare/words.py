"""What a comparison says, in sentences that are drawn from its numbers.

A difference is stated where a test shows one, and nowhere else: the highest number is called the highest number.
"""

from __future__ import annotations

from seqrec.evaluation.significance import Verdict
from seqrec.experiments.compare.notation import (
    duration,
    interval,
    listed,
    measure,
    number,
    p_number,
    p_words,
    short,
)
from seqrec.experiments.compare.standing import (
    MEMBER,
    PAIR,
    Axis,
    Line,
    Part,
    against,
    axes,
    ranked,
    reference,
    seen_from,
    tests_of,
)
from seqrec.experiments.compare.table import Comparison, Row, Test

#: Up to this many tests are told one by one; more are summed up.
TOLD = 4
#: Shown beside the tested measure, since many papers argue with it.
BESIDE = "recall@10"


def sentences(comparison: Comparison, part: Part) -> list[str]:
    """All that is said of one (data, split)."""
    return [*overall(comparison, part), *varied(comparison, part)]


def overall(comparison: Comparison, part: Part) -> list[str]:
    """Which row has the highest value, and who is shown to be worse, better or neither."""
    rows = ranked(comparison, part)
    anchors = against(comparison, part)
    said = [_highest(comparison, rows), *_reference(comparison, part, rows)]
    for anchor, tests in anchors.items():
        said += _tested(anchor, tests, rows)
    tests = tests_of(comparison, part)
    pairs = [test for test in tests if test.why == PAIR]
    if pairs:
        shown = sum(test.verdict != "no difference shown" for test in pairs)
        said.append(f"A difference is shown for {shown} of the {_counted(len(pairs), 'pair')} tested.")
    said += [_fused(test) for test in tests if test.why == MEMBER]
    named = {name for test in tests for name in (test.first, test.second)}
    untested = [row.name for row in rows if row.name not in named]
    if len(rows) > 1 and untested:
        whom = listed(untested) if len(untested) <= 2 * TOLD else f"{len(untested)} of the {len(rows)} rows"
        said.append(f"Not tested: {whom}.")
    return said


def varied(comparison: Comparison, part: Part) -> list[str]:
    """For every setting that varies, one sentence per model."""
    return [_along(comparison.metric, axis, line) for axis in axes(comparison, part) for line in axis.lines]


def gaps(comparison: Comparison) -> list[tuple[str, tuple[str, ...]]]:
    """What is not in the tables: a line that says so and its items, for failures and for runs not made yet."""
    failed, missing = len(comparison.failures), len(comparison.missing)
    found = []
    if failed:
        is_are = "is" if failed == 1 else "are"
        line = f"{_counted(failed, 'part')} of this comparison failed and {is_are} missing below."
        found.append((line, comparison.failures))
    if missing:
        wait = "waits" if missing == 1 else "wait"
        found.append((f"So far: {_counted(missing, 'row')} {wait} for runs that are not made yet.", comparison.missing))
    return found


def _counted(many: int, what: str) -> str:
    return f"{many:,} {what}" if many == 1 else f"{many:,} {what}s"


def _highest(comparison: Comparison, rows: list[Row]) -> str:
    best = rows[0]
    title = measure(comparison.metric)
    found = best.test.get(comparison.metric)
    if found is None:
        return f"{title} was not measured."
    runs = f", mean of {len(best.seeds)} seeds" if len(best.seeds) > 1 else ""
    what = f"{number(found.mean)} (95% interval {interval(best.low, best.high)}{runs})"
    if len(rows) == 1:
        return f"{best.name} has {title} {what}. There is nothing here to compare it with."
    return f"{best.name} has the highest {title} of {len(rows)}: {what}."


def _reference(comparison: Comparison, part: Part, rows: list[Row]) -> list[str]:
    """Where the reference stands, when it is not the highest."""
    whom = reference(comparison, part)
    if whom is None or whom is rows[0] or comparison.metric not in whom.test:
        return []
    what = f"{number(whom.test[comparison.metric].mean)} (95% interval {interval(whom.low, whom.high)})"
    better = any(test.verdict == "better" for test in against(comparison, part)[whom.name])
    none = "" if better else " No row is shown to be better than it."
    return [f"The reference, {whom.name}, is number {rows.index(whom) + 1} with {what}.{none}"]


def _tested(anchor: str, tests: list[Test], rows: list[Row]) -> list[str]:
    """The tests against one row, which is their second."""
    groups: dict[Verdict, list[Test]] = {}
    for test in tests:
        groups.setdefault(test.verdict, []).append(test)
    sides: tuple[Verdict, Verdict] = ("better", "worse")
    said = [
        f"Shown to be {verdict} than {anchor}: {_gathered(groups[verdict], rows)}."
        for verdict in sides
        if verdict in groups
    ]
    alike = [seen_from(test, anchor) for test in groups.get("no difference shown", [])]
    if len(alike) > TOLD:
        names = _names([test.second for test in alike], rows)
        return [
            *said,
            f"No difference is shown between {anchor} and any of {names} ({anchor} minus each: {_range(alike)}).",
        ]
    return said + [f"No difference is shown between {anchor} and {test.second} ({_numbers(test)})." for test in alike]


def _fused(test: Test) -> str:
    """An ensemble against the best of its members."""
    verdict = "not shown to be better" if test.verdict == "no difference shown" else f"shown to be {test.verdict}"
    return f"{test.first} is {verdict} than the member that is best on validation, {test.second} ({_numbers(test)})."


def _gathered(tests: list[Test], rows: list[Row]) -> str:
    """Rows that were tested against one other, which is the second of each test."""
    if len(tests) > TOLD:
        return f"{_names([test.first for test in tests], rows)} (each minus {tests[0].second}: {_range(tests)})"
    return "; ".join(f"{test.first} ({_numbers(test, f'it minus {test.second}:')})" for test in tests)


def _names(names: list[str], rows: list[Row]) -> str:
    """Names in the order of rows; rows of one model that differ in one setting are told together."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.name in names:
            groups.setdefault((row.label, *row.varied), []).append(row)
    said = []
    for (label, *keys), group in groups.items():
        if len(group) > 1 and len(keys) == 1:
            values = [str(row.varied[keys[0]]) for row in group]
            said.append(f"{label} with {short(keys[0])} {listed(values)}")
        else:
            said += [row.name for row in group]
    return listed(said)


def _numbers(test: Test, what: str = "difference") -> str:
    """First minus second, which is called `what`: in a sentence that names two, the one named first comes first."""
    return f"{what} {number(test.difference)}, 95% interval {interval(test.low, test.high)}, {p_words(test.p_holm)}"


def _range(tests: list[Test]) -> str:
    differences = sorted(test.difference for test in tests)
    least, most = (p_number(p) for p in (min(test.p_holm for test in tests), max(test.p_holm for test in tests)))
    p = least if least == most else f"{least} to {most}"
    return f"{interval(differences[0], differences[-1])}, p {p} after Holm"


def _along(metric: str, axis: Axis, line: Line) -> str:
    """One model along one setting: what is claimed, whether it is shown, and what it costs."""
    values = list(line.rows)
    low, high = values[0], values[-1]
    first, last = line.rows[low], line.rows[high]
    found = ", ".join(
        f"{measure(name)} {number(first.test[name].mean)} at {low}, {number(last.test[name].mean)} at {high}"
        for name in dict.fromkeys((metric, BESIDE))
        if name in first.test and name in last.test
    )
    if metric in first.test and metric in last.test:
        found += _between(metric, list(line.rows.values()))
    if line.test is None:
        return f"{line.name}: {found}; not tested.{_epochs(first, last, low, high)}"
    tested = _numbers(line.test, f"{measure(metric)} at {high} minus at {low}:")
    return f"{_claim(line, line.test, short(axis.key))} ({found}; {tested}).{_epochs(first, last, low, high)}"


def _claim(line: Line, test: Test, key: str) -> str:
    """What is shown about the two ends, and no more: nothing is claimed about what lies between or beyond them."""
    low, *_, high = line.rows
    if test.verdict == "no difference shown":
        return f"No difference is shown for {line.name} between {key} {high} and {low}"
    other = "worse" if test.verdict == "better" else "better"
    return f"{line.name} is {test.verdict} with {key} {high} than with {low}: shown; that it is {other} is not"


def _between(metric: str, rows: list[Row]) -> str:
    """Values between the ends that lie above or below both."""
    values = [row.test[metric].mean for row in rows]
    low, high = sorted((values[0], values[-1]))
    outside = [row for row, value in zip(rows[1:-1], values[1:-1], strict=True) if not low <= value <= high]
    return "".join(f"; between them {number(row.test[metric].mean)} for {row.name}" for row in outside)


def _epochs(first: Row, last: Row, low: str, high: str) -> str:
    a, b = first.seconds_per_epoch, last.seconds_per_epoch
    if a is None or b is None:
        return ""
    times = f", {b / a:.1f} times as long" if a > 0 and b > 0 else ""
    return f" An epoch takes {duration(a)} at {low} and {duration(b)} at {high}{times}."


def headline(comparison: Comparison) -> str:
    """What was compared, in one line."""
    parts = comparison.parts
    rows = _counted(len(comparison.rows), "row")
    where = listed(list(dict.fromkeys(data for data, _ in parts))) if parts else "no data"
    device = f" Run on {listed(comparison.device.split(', '))}." if comparison.device else ""
    return (
        f"{rows} on {where}, judged by {measure(comparison.metric)} on the test part. "
        f"{_counted(len(comparison.tests), 'paired test')}, each family of them held at an error rate of "
        f"{comparison.alpha:g}.{device}"
    )


def protocol(comparison: Comparison, part: Part) -> list[str]:
    """How the numbers of one (data, split) are measured, and the hash of what they are measured on."""
    words = comparison.protocols.get(", ".join(part))
    targets = list(dict.fromkeys(row.targets for row in comparison.of(part) if row.targets))
    hashes = [f"Test targets: {listed([target[:16] for target in targets])}."] if targets else []
    return ([f"{words}."] if words else []) + hashes
