"""A comparison on a terminal, at 80 columns too: what it says, then the numbers it is said from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seqrec.cli.show import new_table
from seqrec.experiments.compare.notation import measure
from seqrec.experiments.compare.standing import Part, axes
from seqrec.experiments.compare.table import Comparison
from seqrec.experiments.compare.tables import Sheet, cost, main, varied
from seqrec.experiments.compare.words import gaps, headline, protocol, sentences

#: Terminals below this get fewer columns.
WIDE = 110


def show_comparison(screen: Console, comparison: Comparison) -> None:
    """Print all of it."""
    screen.print(Text(comparison.name, style="bold"))
    screen.print(headline(comparison))
    for part in comparison.parts:
        screen.print()
        screen.print(Text(", ".join(part), style="bold underline"))
        for text in protocol(comparison, part):
            screen.print(Text(text, style="dim"))
        screen.print(_bullets(sentences(comparison, part)))
        for sheet in _sheets(comparison, part, screen.width):
            screen.print()
            screen.print(_drawn(sheet, screen.width))
    for line, items in gaps(comparison):
        screen.print()
        screen.print(Text(line, style="bold red"))
        screen.print(_bullets(items))


def _sheets(comparison: Comparison, part: Part, width: int) -> Iterator[Sheet]:
    accuracy, costs = main(comparison, part), cost(comparison, part)
    metric = measure(comparison.metric)
    beside = "NDCG@10" if comparison.metric == "recall@10" else "Recall@10"
    wide = width >= WIDE
    yield accuracy if wide else accuracy.only(("model", metric, beside, "95% interval", accuracy.headers[-1]))
    for axis in axes(comparison, part):
        yield from varied(comparison, axis)
    yield costs if wide else costs.only(("model", "training", "per epoch", "parameters", "peak memory"))


def _drawn(sheet: Sheet, width: int) -> Table:
    """Deviations go where there is no room for them."""
    cells = [
        [f"* {cell.text}" if cell.strong and not n else cell.text for n, cell in enumerate(row)] for row in sheet.rows
    ]
    columns, note = list(zip(sheet.headers, *cells, strict=True)), sheet.explained("*")
    if sum(max(map(cell_len, column)) + 3 for column in columns) + 1 > width:
        columns = [tuple(text.partition(" ± ")[0] for text in column) for column in columns]
        note = note.replace("Mean ± standard deviation", "Mean")
    table = new_table(title=sheet.title, caption=note or None, caption_justify="left")
    for place, (header, *_) in enumerate(columns):
        table.add_column(Text(header), justify="left" if place < sheet.left else "right", overflow="fold")
    for row, texts in zip(sheet.rows, zip(*(column[1:] for column in columns), strict=True), strict=True):
        pairs = zip(row, texts, strict=True)
        table.add_row(*(Text(text, style="bold" if cell.strong else "") for cell, text in pairs))
    return table


def _bullets(lines: Sequence[str]) -> Table:
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row("•", Text(line))
    return grid
