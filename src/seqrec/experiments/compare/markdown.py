"""A comparison in Markdown, as GitHub and most readers draw it; columns line up in plain text too."""

from __future__ import annotations

import re
from unicodedata import combining, east_asian_width

from seqrec.experiments.compare.table import Comparison
from seqrec.experiments.compare.tables import Cell, Sheet, sheets
from seqrec.experiments.compare.words import gaps, headline, protocol, sentences

#: What Markdown reads as more than itself, and what would end a cell or open a tag.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&])")


def to_markdown(comparison: Comparison) -> str:
    """The whole comparison."""
    lines = [f"# {escape(comparison.name)}", escape(headline(comparison))]
    for line, items in gaps(comparison):
        lines += [f"**{escape(line)}**", _bullets(items)]
    for part in comparison.parts:
        lines += [f"## {escape(', '.join(part))}"]
        lines += [f"*{escape(text)}*" for text in protocol(comparison, part)]
        lines += [_bullets(sentences(comparison, part))]
        for sheet in sheets(comparison, part):
            lines += [f"### {escape(sheet.title)}", to_table(sheet)]
            lines += [escape(note)] if (note := sheet.explained()) else []
    return "\n\n".join(lines) + "\n"


def to_table(sheet: Sheet) -> str:
    """One table: every line is equally wide."""
    grid = [[escape(header) for header in sheet.headers]]
    grid += [[_cell(cell) for cell in row] for row in sheet.rows]
    widths = [max(3, *(_width(line[place]) for line in grid)) for place in range(len(sheet.headers))]
    rule = ["-" * width if place < sheet.left else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    lines = [_line(grid[0], widths, sheet.left), "| " + " | ".join(rule) + " |"]
    return "\n".join(lines + [_line(line, widths, sheet.left) for line in grid[1:]])


def escape(text: str) -> str:
    """Text that stands for itself, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return f"**{text}**" if cell.strong and text else text


def _line(cells: list[str], widths: list[int], left: int) -> str:
    padded = []
    for place, (text, width) in enumerate(zip(cells, widths, strict=True)):
        space = " " * (width - _width(text))
        padded.append(text + space if place < left else space + text)
    return "| " + " | ".join(padded) + " |"


def _width(text: str) -> int:
    """Columns that a monospaced font needs."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _bullets(lines: tuple[str, ...] | list[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)
