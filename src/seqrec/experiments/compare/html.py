"""A comparison as one page that needs nothing else: no script, no network, dark on white, made to be printed too."""

from __future__ import annotations

from html import escape

from seqrec.experiments.compare import figures
from seqrec.experiments.compare.figures import Figure
from seqrec.experiments.compare.standing import Part, axes
from seqrec.experiments.compare.table import Comparison
from seqrec.experiments.compare.tables import Cell, Sheet, by_length, by_popularity, cost, main, tests, varied
from seqrec.experiments.compare.words import gaps, headline, overall, protocol
from seqrec.experiments.compare.words import varied as varied_sentences

#: Tables with more columns are set smaller.
MANY = 9
STYLE = """
:root { color-scheme: light; --ink: #1c2128; --muted: #5b6470; --line: #dfe3e8; --soft: #f5f7f9; --accent: #0072b2;
  --bad: #a33a00; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 2.75rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .35rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 3.25rem 0 .25rem; padding-top: 1.5rem; border-top: 2px solid var(--ink);
  overflow-wrap: anywhere; }
h3 { font-size: 1.02rem; margin: 2.25rem 0 .4rem; }
p { margin: .4rem 0; max-width: 56rem; }
.lead, .note, figcaption, nav { color: var(--muted); }
.note, figcaption { font-size: .85rem; max-width: 62rem; text-wrap: pretty; }
nav { margin: 1rem 0 0; font-size: .92rem; } nav a { color: var(--accent); margin-right: 1.1rem; }
.said { margin: 1.1rem 0; padding: .7rem 1.1rem .7rem 2.2rem; background: var(--soft);
  border-left: 4px solid var(--accent); border-radius: 0 .4rem .4rem 0; }
.said li { margin: .3rem 0; max-width: 62rem; text-wrap: pretty; overflow-wrap: anywhere; }
.said li:first-child { font-weight: 600; }
.varied li:first-child { font-weight: inherit; }
.failed { margin: 1.25rem 0; padding: .7rem 1.1rem; border: 2px solid var(--bad); border-radius: .4rem; }
.failed strong { color: var(--bad); } .failed ul { margin: .3rem 0 0; padding-left: 1.2rem; }
.failed li { overflow-wrap: anywhere; }
figure { margin: 1rem 0 .5rem; }
figure svg { display: block; width: 100%; max-width: 62rem; height: auto; }
svg text { font-family: inherit; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; line-height: 1.4; }
thead th { border-top: 1.5px solid var(--ink); border-bottom: 1px solid var(--ink); vertical-align: bottom; }
tbody tr:last-child > * { border-bottom: 1.5px solid var(--ink); }
tbody tr:not(:last-child) > * { border-bottom: 1px solid var(--line); }
tbody tr:hover > * { background: var(--soft); }
th, td { padding: .32rem .55rem; text-align: left; font-weight: 400; vertical-align: top; }
th { font-weight: 600; } tbody th { font-weight: 400; } tbody th { min-width: 10rem; }
tbody th, td.word { overflow-wrap: break-word; } td.word { min-width: 10rem; }
.many { font-size: .78rem; } .many td, .many th { padding: .3rem .42rem; }
.many tbody th, .many td.word { min-width: 9rem; }
tbody .strong { font-weight: 700; }
th.number, td.number { text-align: right; } td.number { white-space: nowrap; }
@media print { @page { margin: 14mm; } body { font-size: 10.5pt; } main { max-width: none; padding: 0; }
  table { font-size: 7pt; } th, td { padding: .15rem .3rem; }
  tbody th, td.word, .many tbody th, .many td.word { min-width: 0; }
  .note, figcaption { font-size: 8.5pt; } .wide { overflow: visible; } nav { display: none; }
  h2, h3 { break-after: avoid; } figure, tr, .said { break-inside: avoid; }
  .said, .failed { print-color-adjust: exact; }
  thead { display: table-header-group; } }
"""


def to_html(comparison: Comparison) -> str:
    """The whole document. The browser is told to run no script and to load nothing."""
    parts = "\n".join(_part(comparison, part, number) for number, part in enumerate(comparison.parts, 1))
    return document(comparison.name, headline(comparison), _contents(comparison), f"{_gaps(comparison)}{parts}")


def document(title: str, lead: str, contents: str, body: str) -> str:
    """A page around `contents` (links, or nothing) and `body`, both HTML."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
{contents}</header>
{body}
</main>
</body>
</html>
"""


def _contents(comparison: Comparison) -> str:
    if len(comparison.parts) < 2:
        return ""
    links = (f'<a href="#part-{n}">{escape(", ".join(part))}</a>' for n, part in enumerate(comparison.parts, 1))
    return f'<nav aria-label="Contents">{" ".join(links)}</nav>\n'


def _gaps(comparison: Comparison) -> str:
    pieces = []
    for line, items in gaps(comparison):
        bullets = "".join(f"<li>{escape(item)}</li>" for item in items)
        pieces.append(f'<div class="failed"><strong>{escape(line)}</strong><ul>{bullets}</ul></div>\n')
    return "".join(pieces)


def _part(comparison: Comparison, part: Part, number: int) -> str:
    """One data set and split: what is said first, then what it is said from."""
    pieces = [f'<p class="note">{escape(text)}</p>' for text in protocol(comparison, part)]
    pieces += [to_list(overall(comparison, part)), to_table(main(comparison, part))]
    pieces += [to_figure(figures.intervals(comparison, part, f"intervals-{number}"))]
    told = varied_sentences(comparison, part)
    if told:
        pieces += ["<h3>What the varied settings do</h3>", to_list(told, "said varied")]
    for place, axis in enumerate(axes(comparison, part), 1):
        pieces.append(to_figure(figures.along(comparison, axis, f"along-{number}-{place}")))
        pieces += [to_table(sheet) for sheet in varied(comparison, axis)]
    pieces += [to_table(cost(comparison, part)), to_figure(figures.costs(comparison, part, f"costs-{number}"))]
    pieces += [to_table(sheet(comparison, part)) for sheet in (by_popularity, by_length, tests)]
    body = "\n".join(piece for piece in pieces if piece)
    return f'<section id="part-{number}">\n<h2>{escape(", ".join(part))}</h2>\n{body}\n</section>'


def to_list(lines: list[str], role: str = "said") -> str:
    """Sentences as a list."""
    return f'<ul class="{role}">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def to_figure(drawn: Figure | None) -> str:
    """A drawing over its caption."""
    if drawn is None:
        return ""
    return f"<figure>\n{drawn.svg}\n<figcaption>{escape(drawn.caption)}</figcaption>\n</figure>"


def to_table(sheet: Sheet) -> str:
    """A table under its title; nothing where it has no rows."""
    if not sheet.rows:
        return ""
    kinds = ["word" if place < sheet.left else "number" for place in range(len(sheet.headers))]
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(words)}</th>' for kind, words in zip(kinds, sheet.headers, strict=True)
    )
    body = "\n".join(f"<tr>{_cells(row, kinds)}</tr>" for row in sheet.rows)
    look = ' class="many"' if len(sheet.headers) > MANY else ""
    note = f'\n<p class="note">{escape(sheet.explained())}</p>' if sheet.explained() else ""
    return (
        f"<h3>{escape(sheet.title)}</h3>\n"
        f'<div class="wide"><table{look}>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>{note}"
    )


def _cells(row: tuple[Cell, ...], kinds: list[str]) -> str:
    made = []
    for place, (cell, kind) in enumerate(zip(row, kinds, strict=True)):
        look = f"{kind} strong" if cell.strong else kind
        tag, scope = ("th", ' scope="row"') if place == 0 else ("td", "")
        made.append(f'<{tag}{scope} class="{look}">{escape(cell.text)}</{tag}>')
    return "".join(made)
