"""An ablation as tables, sentences and a figure, neutral: for whoever draws them."""

from __future__ import annotations

from seqrec.experiments.ablate.table import NOT_SHOWN, NOTHING, VERDICTS, Ablation, AblationRow, Drop
from seqrec.experiments.compare import svg
from seqrec.experiments.compare.figures import FOOT, LABELS, STEP, Figure, across, axis_name
from seqrec.experiments.compare.notation import interval, listed, measure, number, p_number, spread
from seqrec.experiments.compare.tables import Cell, Sheet

#: Room beside the plot for a drop and its verdict.
RIGHT = 200.0


def main(ablation: Ablation) -> Sheet:
    """What each feature is worth, the largest drop first."""
    title = measure(ablation.metric)
    headers = (
        "feature",
        "setting",
        "on valid.",
        "interval there",
        "p there",
        title,
        "drop",
        "95% interval",
        "p",
        "seeds",
        "verdict",
    )
    whole = ("all of it", "as trained", "", "", "", spread(ablation.test, len(ablation.seeds)), "", "", "", "", "")
    lines = [tuple(map(Cell, whole))]
    for row in ablation.rows:
        strong = row.verdict in VERDICTS.values()
        lines.append((Cell(row.feature, strong), *map(Cell, _numbers(row, len(ablation.seeds)))))
    many = len(ablation.rows)
    family = "both parts have one test" if many == 1 else f"each part's {many} tests are corrected by Holm together"
    note = (
        f"Drop: the run minus the run without the feature, in {title} on the test part, and on validation. Intervals "
        f"and p values: paired by person, values averaged over seeds; {family}. "
        "Seeds: how many have a drop of that sign; a verdict needs all of them."
    )
    marked = (
        f"the feature is shown to help or to hurt on the test part (p at most {ablation.alpha:g}, every seed agrees)"
    )
    return Sheet("What each feature is worth", headers, tuple(lines), left=2, note=note, marked=marked)


def _numbers(row: AblationRow, seeds: int) -> tuple[str, ...]:
    valid, test = row.validation.test, row.test.test
    agree = f"{row.test.agreeing} of {seeds}"
    return (
        row.words,
        number(valid.difference),
        interval(valid.low, valid.high),
        p_number(valid.p_holm),
        spread(row.test.without, seeds),
        number(test.difference),
        interval(test.low, test.high),
        p_number(test.p_holm),
        agree,
        row.verdict,
    )


def skipped(ablation: Ablation) -> Sheet:
    """What was not switched off, and why."""
    lines = tuple((Cell(name), Cell(why)) for name, why in ablation.skipped.items())
    return Sheet("Not switched off", ("feature", "why"), lines, left=2)


def headline(ablation: Ablation) -> str:
    """What was done, in one line."""
    title, many = measure(ablation.metric), len(ablation.seeds)
    seeds = f"mean of {many} seeds" if many > 1 else f"seed {ablation.seeds[0]} alone"
    what = f"{title} {number(ablation.test.mean)} on the test part, {number(ablation.validation.mean)} on validation"
    epochs = f", trained for at most {ablation.epochs} epochs" if ablation.epochs else ""
    return f"{ablation.run}{epochs}, with one feature less at a time. The run has {what} ({seeds})."


def sentences(ablation: Ablation) -> list[str]:
    """What is shown, and what is not."""
    said = []
    for verdict, words in (("helps", "Shown to help"), ("hurts", "Shown to hurt")):
        found = [row for row in ablation.rows if row.verdict == verdict]
        if found:
            said.append(f"{words}: {'; '.join(f'{row.feature} (drop {_told(row.test)})' for row in found)}.")
    for verdict, words in (
        (NOT_SHOWN, "No difference is shown without"),
        (NOTHING, "Nobody's list is another one without"),
    ):
        names = [row.feature for row in ablation.rows if row.verdict == verdict]
        if names:
            said.append(f"{words} {listed(names)}.")
    return said


def _told(drop: Drop) -> str:
    test = drop.test
    return f"{number(test.difference)}, 95% interval {interval(test.low, test.high)}, p {p_number(test.p_holm)}"


def figure(ablation: Ablation) -> Figure | None:
    """A bar per feature from zero to its drop on the test part, with its interval, and its drop on validation."""
    rows = ablation.rows
    if not rows:
        return None
    title = f"Drop in {measure(ablation.metric)} without each feature"
    left = min(max(svg.text_width(row.feature, bold=True) for row in rows) + 24, LABELS)
    top, bottom, right = 12.0, 12 + STEP * len(rows), svg.WIDTH - RIGHT
    ends = [end for row in rows for end in (row.test.test.low, row.test.test.high, row.validation.test.difference, 0.0)]
    scale = svg.Scale(*svg.padded(ends), left, right)
    parts = [*across(scale, top, bottom), axis_name((left + right) / 2, bottom, title)]
    parts.append(svg.line(scale(0), top, scale(0), bottom, svg.INK))
    parts += [_bar(row, scale, left, 12 + STEP * (place + 0.5)) for place, row in enumerate(rows)]
    caption = (
        "Bars: drop on the test part, with its 95% interval; to the right the feature helps. Diamonds: drop on "
        "validation. Filled: shown by the test, after Holm."
    )
    about = " ".join(f"{row.feature}: {number(row.test.test.difference)}, {row.verdict}." for row in rows)
    return Figure(svg.figure("drops", title, about, bottom + FOOT, parts), caption)


def _bar(row: AblationRow, scale: svg.Scale, left: float, y: float) -> str:
    test, shown = row.test.test, row.verdict in VERDICTS.values()
    colour = svg.COLOURS[0 if test.difference >= 0 else 1] if shown else svg.MUTED
    start, end = sorted((scale(0), scale(test.difference)))
    box = f'x="{start:.1f}" y="{y - 7:.1f}" width="{end - start:.1f}" height="14"'
    weight = 'font-weight="600"' if shown else ""
    return svg.group(
        f"{row.feature} ({row.words}): drop {_told(row.test)}; on validation {number(row.validation.test.difference)}",
        svg.text(left - 14, y + 4.5, svg.clipped(row.feature, left - 20, bold=shown), "end", more=weight),
        f'<rect {box} fill="{colour}" opacity="{0.75 if shown else 0.35}"/>',
        svg.line(scale(test.low), y, scale(test.high), y, svg.INK, 1.5),
        svg.marker("diamond", scale(row.validation.test.difference), y, colour, shown, 4),
        svg.text(svg.WIDTH - RIGHT + 12, y + 4.5, f"{number(test.difference)}  {row.verdict}", more=weight),
    )
