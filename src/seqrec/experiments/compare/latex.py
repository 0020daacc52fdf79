r"""A comparison as LaTeX tables, to be read with `\input`; they need the packages booktabs and graphicx.

A table that is wider than the line is scaled down to it.
"""

from __future__ import annotations

import re

from seqrec.experiments.compare.table import Comparison
from seqrec.experiments.compare.tables import Cell, Sheet, sheets
from seqrec.experiments.compare.words import gaps, sentences

#: Characters that LaTeX does not take as themselves, and what stands for them in text.
_REPLACED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\`{}",
    "±": r"$\pm$",
    "–": r"\textendash{}",  # noqa: RUF001
    "—": r"\textemdash{}",
    "×": r"$\times$",  # noqa: RUF001
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\rightarrow$",
}
_MINUS = re.compile(r"(?<![\w.)])-(?=\.?\d)")
#: Two hyphens would become a dash.
_DASHES = re.compile("-(?=-)")
#: Mean and deviation, which is set small.
_SPREAD = re.compile(r"([.\d]+) ± ([.\d]+)")
#: Rows that one page holds; longer tables go on in another.
PAGE = 40
#: Opens what is scaled down to the line, if it is wider.
FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
#: Columns of the tests that a page has no room for.
LEFT_OUT = ("p bootstrap", "p permutation")


def to_latex(comparison: Comparison) -> str:
    """Every table of a comparison, the sentences above them as comments."""
    lines = [f"% {_comment(comparison.name)}", r"% Needs \usepackage{booktabs,graphicx} in the preamble."]
    for line, items in gaps(comparison):
        lines += [f"% {_comment(line)}", *(f"%   {_comment(item)}" for item in items)]
    for number, part in enumerate(comparison.parts, 1):
        lines += ["", f"% ---- {_comment(', '.join(part))}"]
        lines += [f"% {_comment(text)}" for text in sentences(comparison, part)]
        for sheet in map(_narrowed, sheets(comparison, part)):
            slug = re.sub(r"[^a-z0-9]+", "-", sheet.title.lower()).strip("-")
            lines.append(to_table(sheet, ", ".join(part), f"tab:compare-{number}-{slug}"))
    return "\n".join(lines) + "\n"


def to_table(sheet: Sheet, where: str, label: str) -> str:
    """One float, or several where it is longer than a page."""
    pages = [sheet.rows[start : start + PAGE] for start in range(0, len(sheet.rows), PAGE)]
    made = []
    for number, rows in enumerate(pages):
        caption = (
            f"{sheet.title}: {where}. {sheet.explained()}".strip() if number == 0 else f"{sheet.title}, continued."
        )
        made.append(_float(sheet, rows, caption, label if number == 0 else f"{label}-{number + 1}"))
    return "\n".join(made)


def escape(text: str) -> str:
    """Text as LaTeX takes it; minus signs in front of numbers are minus signs."""
    plain = "".join(_REPLACED.get(c, c) for c in " ".join(text.split()))
    return _MINUS.sub("$-$", _DASHES.sub("-{}", plain))


def _narrowed(sheet: Sheet) -> Sheet:
    """Without columns that a page has no room for; the other files have them."""
    return sheet.only(header for header in sheet.headers if header not in LEFT_OUT)


def _float(sheet: Sheet, rows: tuple[tuple[Cell, ...], ...], caption: str, label: str) -> str:
    columns = "".join("l" if place < sheet.left else "r" for place in range(len(sheet.headers)))
    # Braces first: a row that starts with [ or * would be read as an option of the line before.
    body = ["{}" + " & ".join(map(_cell, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{{label}}}\vspace{{4pt}}",
            FITTED,
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            " & ".join(map(escape, sheet.headers)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    )


def _cell(cell: Cell) -> str:
    found = _SPREAD.fullmatch(cell.text)
    text = escape(found[1] if found else cell.text)
    bold = rf"\textbf{{{text}}}" if cell.strong and text else text
    return rf"{bold}{{\scriptsize\,$\pm$\,{found[2]}}}" if found else bold


def _comment(text: str) -> str:
    return " ".join(text.split())
