"""A comparison on a terminal, at 80 columns too: what it says, then the numbers it is said from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seqrec.cli.show import new_table
from seqrec.experiments.compare.notation import measure
from seqrec.experiments.compare.standing import Part, axes
from seqrec.experiments.compare.table import Comparison
from seqrec.experiments.compare.tables import SHOWN, Cell, Sheet, cost, main, varied
from seqrec.experiments.compare.words import gaps, headline, protocol, sentences

#: Columns of the cost that go where there is no room, the first first.
SPARE_COSTS = ("epochs", "runs at once", "on", "peak memory", "parameters")


def show_comparison(screen: Console, comparison: Comparison) -> None:
    """Print all of it."""
    screen.print(Text(comparison.name, style="bold"))
    screen.print(headline(comparison))
    for part in comparison.parts:
        screen.print()
        screen.print(Text(", ".join(part), style="bold underline"))
        for text in protocol(comparison, part):
            screen.print(Text(text, style="dim"))
        screen.print(bullets(sentences(comparison, part)))
        for sheet in _sheets(comparison, part, screen.width):
            screen.print()
            screen.print(drawn(sheet))
    for line, items in gaps(comparison):
        screen.print()
        screen.print(Text(line, style="bold red"))
        screen.print(bullets(items))


def _sheets(comparison: Comparison, part: Part, width: int) -> Iterator[Sheet]:
    metric = measure(comparison.metric)
    beside = [header for header in map(measure, SHOWN) if header != metric]
    yield fitted(main(comparison, part), width, (*beside[1:], f"valid. {metric}", "p", *beside[:1]))
    for axis in axes(comparison, part):
        yield from (fitted(sheet, width) for sheet in varied(comparison, axis))
    yield fitted(cost(comparison, part), width, SPARE_COSTS)


def fitted(sheet: Sheet, width: int, spare: Sequence[str] = ()) -> Sheet:
    """Where there is no room: without deviations but those of what was tested, then without spare columns."""
    if _width(sheet) <= width:
        return sheet
    kept = [header in sheet.tested for header in sheet.headers]
    lines = (zip(row, kept, strict=True) for row in sheet.rows)
    sheet = replace(sheet, rows=tuple(tuple(cell if keep else _mean(cell) for cell, keep in line) for line in lines))
    for gone in spare:
        if _width(sheet) > width:
            sheet = sheet.only(header for header in sheet.headers if header != gone)
    return sheet


def _mean(cell: Cell) -> Cell:
    return replace(cell, text=cell.text.partition(" ± ")[0])


def _width(sheet: Sheet) -> int:
    """Columns of the terminal that the table needs."""
    lines = [sheet.headers, *([_text(row, n) for n in range(len(row))] for row in sheet.rows)]
    return sum(max(map(cell_len, column)) + 3 for column in zip(*lines, strict=True)) + 1


def _text(row: tuple[Cell, ...], place: int) -> str:
    return f"* {row[place].text}" if row[place].strong and not place else row[place].text


def drawn(sheet: Sheet) -> Table:
    """The table as a terminal shows it."""
    table = new_table(title=sheet.title, caption=sheet.explained("*") or None, caption_justify="left")
    for place, header in enumerate(sheet.headers):
        table.add_column(Text(header), justify="left" if place < sheet.left else "right", overflow="fold")
    for row in sheet.rows:
        table.add_row(*(Text(_text(row, n), style="bold" if cell.strong else "") for n, cell in enumerate(row)))
    return table


def bullets(lines: Sequence[str]) -> Table:
    """Sentences as a list."""
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row("•", Text(line))
    return grid
