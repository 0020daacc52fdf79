"""The tables of a comparison, neutral: headers and cells, for whoever draws them.

What is bold is not shown to be worse than anything else, so that no difference is read where none is shown.
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
    measure,
    number,
    p_number,
    short,
    spread,
)
from seqrec.experiments.compare.standing import (
    REFERENCE,
    Axis,
    Line,
    Part,
    against,
    axes,
    may_be_best,
    ranked,
    tests_of,
)
from seqrec.experiments.compare.table import Comparison, Row, Test

#: Measures that the main table always shows.
SHOWN = ("ndcg@10", "recall@10", "mrr@10")
#: What breakdowns are of.
BREAKDOWN = "ndcg@10"
MARKED = "no test shows it to be worse than another row"


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
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: int = 1
    note: str = ""
    marked: str = ""

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
    strong, anchors = may_be_best(comparison, part), against(comparison, part)
    shown = {test.first: test for tests in anchors.values() for test in tests}
    whom = next(iter(anchors)) if len(anchors) == 1 else "reference"
    rows, lines = ranked(comparison, part), []
    for row in rows:
        runs = len(row.seeds)
        bold = row.name in strong
        values = [Cell(spread(row.test.get(name), runs), bold and name == comparison.metric) for name in metrics]
        beside = [interval(row.low, row.high), spread(row.validation.get(comparison.metric), runs)]
        lines.append((Cell(row.name, bold), *values, *map(Cell, (*beside, *_judged(row, shown, anchors)))))
    seeds = max(len(row.seeds) for row in rows)
    note = f"Mean ± standard deviation over {seeds} seeds. " if seeds > 1 else ""
    note += "".join(f"{row.name}: {len(row.seeds)} seeds. " for row in rows if 1 < len(row.seeds) < seeds)
    note += f"The interval is a 95% bootstrap over people, of {title}."
    if shown:
        note += f" Tests are of {title}, p after Holm's correction; other columns are not tested."
    headers = ("model", *map(measure, metrics), "95% interval", f"valid. {title}", "p", f"against {whom}")
    return _kept(Sheet("Accuracy", headers, tuple(lines), note=note, marked=MARKED if strong else ""))


def _judged(row: Row, shown: dict[str, Test], anchors: dict[str, list[Test]]) -> tuple[str, str]:
    if row.name in shown:
        test = shown[row.name]
        return p_number(test.p_holm), test.verdict
    whys = {test.why for test in anchors.get(row.name, [])}
    return "", "reference" if REFERENCE in whys else "highest" if whys else ""


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
    headers = ("model", "training", "per epoch", "epochs", "parameters", "peak memory", "runs at once", "on")
    rows = tuple(
        tuple(
            map(
                Cell,
                (
                    row.name,
                    duration(row.seconds),
                    duration(row.seconds_per_epoch),
                    NONE if row.epochs is None else f"{row.epochs:.1f}".removesuffix(".0"),
                    count(row.parameters),
                    NONE if row.peak_memory_mib is None else f"{row.peak_memory_mib:,.0f} MiB",
                    str(row.beside),
                    row.device or NONE,
                ),
            )
        )
        for row in ranked(comparison, part)
    )
    note = "Per run, mean over seeds. Training includes its evaluations."
    if any(row.beside > 1 for row in comparison.of(part)):
        note += " Rows with several runs at once shared the machine: their times are no benchmark."
    return Sheet("Cost", headers, rows, note=note)


def tests(comparison: Comparison, part: Part) -> Sheet:
    """Every test in full."""
    found = tests_of(comparison, part)
    numbers = ("difference", "95% interval", "p bootstrap", "p permutation", "p Holm", "effect", "people")
    headers = ("first", "second", "why", *numbers, "tests together", "verdict")
    rows = tuple(
        tuple(
            map(
                Cell,
                (
                    test.first,
                    test.second,
                    short(test.why),
                    number(test.difference),
                    interval(test.low, test.high),
                    p_number(test.p_bootstrap),
                    p_number(test.p_permutation),
                    p_number(test.p_holm),
                    number(test.effect, 3),
                    f"{test.users:,}",
                    str(test.family),
                    test.verdict,
                ),
            )
        )
        for test in found
    )
    note = (
        f"Of {measure(comparison.metric)}, first minus second, paired by person; a difference is shown where p after "
        f"Holm is at most {comparison.alpha:g}; intervals are not corrected. Effect: mean of the differences over "
        "their standard deviation."
    )
    return Sheet("Tests", headers, rows, left=3, note=note)


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
