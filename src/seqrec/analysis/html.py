"""One HTML file that needs nothing else: no script, no network, light and dark, readable without seeing the figures.

What comes from data is text and is escaped here, once. What is `Html` was made here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NewType

Html = NewType("Html", str)

#: Colours by role; figures use the same names (see `data_figures.COLOURS`).
STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2128; --muted: #5b6470; --line: #dfe3e8;
  --soft: #f5f7f9; --accent: #2f6fb3; --second: #b9650f; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e4e7eb; --muted: #9aa4b1; --line: #2d333b;
  --soft: #1b1f25; --accent: #6aa9e9; --second: #e2a05a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .5rem; padding-top: 1.25rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 46rem; }
.lead, figcaption, caption, footer, .note { color: var(--muted); }
.note, figcaption, caption, footer { font-size: .875rem; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .75rem;
  margin: 1.5rem 0; }
.numbers div { background: var(--soft); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; }
.numbers dt { color: var(--muted); font-size: .8125rem; }
.numbers dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.verdict { border-left: 3px solid var(--accent); padding: .1rem 0 .1rem .9rem; font-weight: 600; }
figure { margin: 1rem 0 .5rem; overflow-x: auto; }
figure svg { display: block; width: 100%; min-width: 34rem; height: auto; }
svg text { font-family: inherit !important; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; max-width: 40rem; margin: .75rem 0;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .35rem; }
th, td { padding: .3rem 0 .3rem 1.25rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; }
th:first-child, td:first-child { padding-left: 0; }
td { overflow-wrap: anywhere; }
th.number, td.number { text-align: right; white-space: nowrap; }
details { margin: .25rem 0 1rem; }
summary { cursor: pointer; color: var(--muted); font-size: .875rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; overflow-wrap: anywhere; }
@media print { details { display: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def page(title: str, lead: str, parts: Iterable[Html]) -> str:
    """The whole document. The browser is told to run no script and to load nothing."""
    body = "\n".join(parts)
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
</header>
{body}
</main>
</body>
</html>
"""


def section(heading: str, *parts: Html) -> Html:
    """A part of the page under its own heading."""
    return Html(f"<section>\n<h2>{escape(heading)}</h2>\n" + "\n".join(parts) + "\n</section>")


def paragraph(text: str, role: str = "") -> Html:
    """Text; `role` is `verdict`, `note` or nothing."""
    return Html(f'<p class="{role}">{escape(text)}</p>' if role else f"<p>{escape(text)}</p>")


def numbers(pairs: Iterable[tuple[str, str]]) -> Html:
    """A few numbers that matter most, each with its name."""
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return Html(f'<dl class="numbers">{tiles}</dl>')


def table(caption: str, headers: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Html:
    """A table whose first `left` columns are text and whose others are numbers."""
    kinds = ["" if column < left else ' class="number"' for column in range(len(headers))]
    head = "".join(f'<th scope="col"{kind}>{escape(text)}</th>' for kind, text in zip(kinds, headers, strict=True))
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td{kind}>{escape(text)}</td>" for kind, text in zip(kinds[1:], rest, strict=True))
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    body = "\n".join(lines)
    return Html(
        f'<div class="wide"><table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def figure(svg: Html, caption: str, behind: Html | None = None) -> Html:
    """A picture, what it shows, and the table of its numbers, folded away."""
    shown = f"<figure>\n{svg}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"
    return Html(shown if behind is None else f"{shown}\n<details><summary>Show the numbers</summary>{behind}</details>")


def footer(text: str) -> Html:
    """What stands at the end, in small letters."""
    return Html(f"<footer>{escape(text)}</footer>")
