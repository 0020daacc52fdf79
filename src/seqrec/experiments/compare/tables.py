"""The tables of a comparison, neutral: headers and cells, for whoever draws them.

What is bold is not shown to be worse than the reference, so that no difference is read where none is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from seqrec.experiments.compare.notation import (
    NONE,
    count,
    duration,
    interval,
    listed,
    measure,
    number,
    p_number,
    short,
    spread,
)
from seqrec.experiments.compare.standing import (
    MEMBER,
    Axis,
    Line,
    Part,
    against,
    axes,
    marked,
    ranked,
    reference,
    tests_of,
    told,
)
from seqrec.experiments.compare.table import Comparison, Row, Test

#: Measures that the main table always shows.
SHOWN = ("ndcg@10", "recall@10", "mrr@10")
#: What breakdowns are of.
BREAKDOWN = "ndcg@10"


@dataclass(frozen=True)
class Cell:
    """Text, and whether it stands out."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table: as many cells in a row as headers.

    Attributes:
        left: how many of the first columns are words; the others are numbers.
        note: what stands under it.
        marked: what it means that a cell stands out; empty where none does.
        tested: headers of which deviations stay however little room there is.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: int = 1
    note: str = ""
    marked: str = ""
    tested: tuple[str, ...] = ()

    def explained(self, mark: str = "Bold") -> str:
        """The note, and what standing out means, which is called `mark`."""
        return " ".join(filter(None, (self.marked and f"{mark}: {self.marked}.", self.note)))

    def only(self, keep: Iterable[str]) -> Sheet:
        """The same with fewer columns."""
        kept = set(keep)
        places = [place for place, header in enumerate(self.headers) if header in kept]
        return replace(
            self,
            headers=tuple(self.headers[place] for place in places),
            rows=tuple(tuple(row[place] for place in places) for row in self.rows),
            left=sum(place < self.left for place in places),
        )


def sheets(comparison: Comparison, part: Part) -> list[Sheet]:
    """Every table of one (data, split) that has something in it."""
    made = [
        main(comparison, part),
        *(sheet for axis in axes(comparison, part) for sheet in varied(comparison, axis)),
        by_popularity(comparison, part),
        by_length(comparison, part),
        cost(comparison, part),
        tests(comparison, part),
    ]
    return [sheet for sheet in made if sheet.rows]


def main(comparison: Comparison, part: Part) -> Sheet:
    """Accuracy on the test part, the validation beside it, and what the tests say; highest first."""
    metrics = list(dict.fromkeys((comparison.metric, *SHOWN)))
    title = measure(comparison.metric)
    strong, anchors = marked(comparison, part), against(comparison, part)
    shown = {test.first: test for tests in anchors.values() for test in tests}
    role = dict.fromkeys(anchors, "reference" if reference(comparison, part) else "highest")
    rows, lines = ranked(comparison, part), []
    for row in rows:
        runs = len(row.seeds)
        bold = row.name in strong.names
        values = [Cell(spread(row.test.get(name), runs), bold and name == comparison.metric) for name in metrics]
        beside = [interval(row.low, row.high), spread(row.validation.get(comparison.metric), runs)]
        lines.append((Cell(row.name, bold), *values, *map(Cell, (*beside, *_judged(row, shown, role)))))
    whom = f"against {next(iter(anchors))}" if len(anchors) == 1 else "against"
    headers = ("model", *map(measure, metrics), "95% interval", f"valid. {title}", "p", whom)
    ends = f"95% interval: bootstrap over people, around the mean {title} over cases."
    note = " ".join(filter(None, (_seeds(rows), ends, _p(comparison, part))))
    return _kept(Sheet("Accuracy", headers, tuple(lines), note=note, marked=strong.why, tested=(title,)))


def _seeds(rows: list[Row]) -> str:
    """What is averaged, and which rows have fewer runs than the others."""
    most = max(len(row.seeds) for row in rows)
    if most < 2:
        return ""
    fewer: dict[int, list[str]] = {}
    for row in rows:
        if 1 < len(row.seeds) < most:
            fewer.setdefault(len(row.seeds), []).append(row.name)
    said = "".join(f", over {many} for {listed(names)}" for many, names in sorted(fewer.items(), reverse=True))
    single = "; one run where there is no ±" if any(len(row.seeds) < 2 for row in rows) else ""
    return f"Mean ± standard deviation over {most} seeds{said}{single}."


def _p(comparison: Comparison, part: Part) -> str:
    """What the p values of the main table are of."""
    found = [test for tests in against(comparison, part).values() for test in tests]
    if not found:
        return ""
    family = found[0].family
    together = f", after Holm's correction over {family} tests" if family > 1 else ""
    title = measure(comparison.metric)
    return f"p: permutation test of {title} paired by person{together}; other columns are not tested."


def _judged(row: Row, shown: dict[str, Test], role: dict[str, str]) -> tuple[str, str]:
    if row.name in shown:
        return p_number(shown[row.name].p_holm), shown[row.name].verdict
    return "", role.get(row.name, "")


def by_popularity(comparison: Comparison, part: Part) -> Sheet:
    """Accuracy by how popular the target is."""
    return _breakdown(comparison, part, "by popularity of the target", lambda row: dict(row.by_popularity))


def by_length(comparison: Comparison, part: Part) -> Sheet:
    """Accuracy by how long the history is."""
    return _breakdown(comparison, part, "by length of the history", lambda row: dict(row.by_length))


def _breakdown(comparison: Comparison, part: Part, what: str, of: Callable[[Row], dict[str, float]]) -> Sheet:
    rows = [row for row in ranked(comparison, part) if of(row)]
    buckets = list(dict.fromkeys(name for row in rows for name in of(row)))
    cells = tuple(
        (Cell(row.name), *(Cell(number(of(row)[name]) if name in of(row) else NONE) for name in buckets))
        for row in rows
    )
    title = f"{measure(BREAKDOWN)} {what}"
    return Sheet(title, ("model", *buckets), cells, note="Mean over seeds; not tested.")


def cost(comparison: Comparison, part: Part) -> Sheet:
    """What each row took."""
    rows = ranked(comparison, part)
    shared = any(row.beside > 1 for row in rows if row.seconds is not None)
    headers = ["model", "time", "per epoch", "epochs", "parameters", "peak memory"]
    headers += ["runs at once"] if shared else []
    headers += ["on"] if len({row.device for row in comparison.rows if row.device}) > 1 else []
    cells = tuple(tuple(Cell(_cost(row)[header]) for header in headers) for row in rows)
    note = "Per run, mean over seeds."
    if any(test.why == MEMBER for test in tests_of(comparison, part)):
        note += " An ensemble's time is its members' and the search for its weights; fitted and trained rows include"
        note += " their evaluations."
    else:
        note += " Time includes evaluations."
    if shared:
        note += " Runs at once: how many shared the machine; where it is more than one, times are no benchmark."
    return _kept(Sheet("Cost", tuple(headers), cells, note=note))


def _cost(row: Row) -> dict[str, str]:
    """By header; a dash where nothing was measured."""
    return {
        "model": row.name,
        "time": duration(row.seconds),
        "per epoch": duration(row.seconds_per_epoch),
        "epochs": NONE if row.epochs is None else f"{row.epochs:.1f}".removesuffix(".0"),
        "parameters": count(row.parameters),
        "peak memory": NONE if row.peak_memory_mib is None else f"{row.peak_memory_mib:,.0f} MiB",
        "runs at once": NONE if row.seconds is None else str(row.beside),
        "on": row.device or NONE,
    }


def tests(comparison: Comparison, part: Part) -> Sheet:
    """Every test in full, one family after the other."""
    found = tests_of(comparison, part)
    numbers = ("difference", "95% interval", "p bootstrap", "p permutation", "p Holm", "effect")
    headers = ("first", "second", "why", *numbers, "tests together", "verdict")
    rows = tuple(tuple(map(Cell, _tested(test))) for test in found)
    people = listed(list(dict.fromkeys(f"{test.users:,}" for test in found))) if found else "none"
    note = (
        f"Of {measure(comparison.metric)}, first minus second, paired by person ({people} of them); the verdict is on "
        "the first. A difference is shown where p Holm, which is p permutation corrected for the tests together, is at "
        f"most {comparison.alpha:g}; intervals are not corrected. Effect: mean of the differences over their standard "
        "deviation."
    )
    pairs = [frozenset((test.first, test.second)) for test in found]
    if len(set(pairs)) < len(pairs):
        note += " A pair that is tested for two reasons is corrected with each of them, so its p Holm may differ."
    return Sheet("Tests", headers, rows, left=3, note=note)


def _tested(test: Test) -> tuple[str, ...]:
    return (
        test.first,
        test.second,
        told(test.why),
        number(test.difference),
        interval(test.low, test.high),
        p_number(test.p_bootstrap),
        p_number(test.p_permutation),
        p_number(test.p_holm),
        number(test.effect, 3),
        str(test.family),
        test.verdict,
    )


def varied(comparison: Comparison, axis: Axis) -> list[Sheet]:
    """One table per measure and one of the time: a row per model, a column per value of the setting."""
    key = short(axis.key)
    made = []
    for metric in dict.fromkeys((comparison.metric, "recall@10")):
        tested = metric == comparison.metric and any(line.test for line in axis.lines)
        headers = ("model", *axis.values, *(("p of the ends", "from first to last") if tested else ()))
        rows = []
        for line in axis.lines:
            values = _along(axis, line, partial(_accuracy, metric))
            rows.append(tuple(map(Cell, (line.name, *values, *(_ends(line) if tested else ())))))
        note = "" if tested else "Not tested."
        made.append(Sheet(f"{measure(metric)} by {key}", headers, tuple(rows), note=note))
    if any(row.seconds_per_epoch is not None for line in axis.lines for row in line.rows.values()):
        cells = tuple(
            tuple(map(Cell, (line.name, *_along(axis, line, lambda row: duration(row.seconds_per_epoch)))))
            for line in axis.lines
        )
        made.append(Sheet(f"Time per epoch by {key}", ("model", *axis.values), cells))
    return made


def _along(axis: Axis, line: Line, say: Callable[[Row], str]) -> list[str]:
    return [say(line.rows[value]) if value in line.rows else NONE for value in axis.values]


def _accuracy(metric: str, row: Row) -> str:
    return spread(row.test.get(metric), len(row.seeds))


def _ends(line: Line) -> tuple[str, str]:
    return (p_number(line.test.p_holm), line.test.verdict) if line.test else ("", "not tested")


def _kept(sheet: Sheet) -> Sheet:
    """Without columns that have nothing in them."""
    return sheet.only(
        header
        for place, header in enumerate(sheet.headers)
        if any(row[place].text not in ("", NONE) for row in sheet.rows)
    )
