"""A data report on a terminal: tables with small bars, in plain characters where nobody looks at one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from seqrec.analysis.bars import Bars
from seqrec.analysis.data_report import DataReport
from seqrec.analysis.sequentiality import OrderEffect
from seqrec.analysis.timing import Coverage
from seqrec.analysis.wording import ORDER_HEADERS, TARGET_HEADERS, duration, order_rows, share, target_rows

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

#: A title, a table, and what there is to say about it; titles and notes are as wide as the terminal.
Block: TypeAlias = "list[Text | Table]"

BAR = 30
COLUMNS = 72
EIGHTHS = " ▏▎▍▌▋▊▉█"
HEIGHTS, PLAIN_HEIGHTS = " ▁▂▃▄▅▆▇█", " .:-=+*#%@"


def terminal(report: DataReport, plain: bool = False) -> Block:
    """What to print, one after the other, on a console without markup.

    Args:
        plain: ASCII only, for pipes and files.
    """
    blocks = [
        _bars("Users by number of events", "events", "users", report.lengths, plain),
        _popularity(report, plain),
        _fewer(report, plain),
    ]
    if report.coverage is not None:
        blocks.append(_coverage(report.coverage, plain))
    if report.gaps is not None:
        median = "" if report.gaps.median is None else f", median {duration(report.gaps.median)} without ties"
        title = f"Time between neighbouring events of a user{median}"
        blocks.append(_bars(title, "gap", "gaps", report.gaps.bars, plain))
    blocks.append(_targets(report, plain))
    if report.order is not None:
        blocks.append(_order(report.order, plain))
    return [part for block in blocks for part in block]


def bar(part: float, plain: bool = False) -> str:
    """A bar for a share from 0 to 1, `BAR` characters when full."""
    eighths = round(part * BAR * 8)
    if plain:
        return "#" * round(eighths / 8)
    return EIGHTHS[-1] * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def heights(counts: Sequence[int], plain: bool = False) -> str:
    """Counts as one line of columns of different heights, neighbours added up where there are too many."""
    step = -(-len(counts) // COLUMNS)
    sums = [sum(counts[start : start + step]) for start in range(0, len(counts), step)]
    levels = PLAIN_HEIGHTS if plain else HEIGHTS
    # What is not nothing is shown: rounded up.
    return "".join(levels[-(-count * (len(levels) - 1) // max(*sums, 1))] for count in sums)


def _bars(title: str, name: str, what: str, bars: Bars, plain: bool) -> Block:
    table = _table(plain, name, what, "share")
    table.add_column("")
    total, most = bars.total, max(*bars.counts, 1)
    for label, count in zip(bars.names, bars.counts, strict=True):
        table.add_row(label, f"{count:,}", share(count / total), bar(count / most, plain))
    return _block(title, table)


def _popularity(report: DataReport, plain: bool) -> Block:
    found = report.popularity
    table = _table(plain, "items", "events")
    table.add_column("")
    for top, held in found.top:
        table.add_row(f"top {100 * top:g}%", share(held), bar(held, plain))
    note = f"Gini {found.gini:.2f}: 0 if all items occur alike, near 1 if few have everything."
    return _block("Events of the most popular items", table, note)


def _fewer(report: DataReport, plain: bool) -> Block:
    table = _table(plain, "fewer than", "users", "share", "items", "share")
    users, items = report.facts["users"], report.facts["items"]
    for k, few_users, few_items in report.fewer:
        cells = f"{few_users:,}", share(few_users / users), f"{few_items:,}", share(few_items / items)
        table.add_row(f"{k} events", *cells)
    return _block("Users and items with few events", table)


def _coverage(found: Coverage, plain: bool) -> Block:
    bars = found.bars
    most = bars.fullest
    table = _table(plain, f"events per {found.unit}")
    table.add_row(heights(bars.counts, plain))
    note = f"Most in {bars.names[most]}: {bars.counts[most]:,}. Without any event: {bars.counts.count(0):,}."
    return _block(f"Time, {bars.names[0]} to {bars.names[-1]}", table, note)


def _targets(report: DataReport, plain: bool) -> Block:
    table = _table(plain, *TARGET_HEADERS)
    for row in target_rows(report):
        table.add_row(*row)
    tied = "" if report.ties is None else f" and {share(report.ties)} tied"
    note = (
        "Cold: not in the training part. Repeated: the user had it before. Tied: same time as the event before. "
        f"Of all events {share(report.repeats)} are repeated{tied}."
    )
    return _block("Targets", table, note)


def _order(found: OrderEffect, plain: bool) -> Block:
    table = _table(plain, *ORDER_HEADERS)
    table.columns[1].justify = "left"
    for row in order_rows(found):
        table.add_row(*(cell.replace("±", "+-") if plain else cell for cell in row))
    return _block(f"How sequential is this log? {found.verdict}", table, found.protocol)


def _table(plain: bool, *headers: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.ASCII2 if plain else box.HEAVY_HEAD)
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number else "left")
    return table


def _block(title: str, table: Table, note: str = "") -> Block:
    from rich.text import Text

    return [Text(title, style="bold"), table, Text(f"{note}\n" if note else "")]
