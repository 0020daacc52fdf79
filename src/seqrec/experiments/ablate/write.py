"""An ablation on disk: the facts as JSON, and pages for readers. The comparison that it rests on lies beside them."""

from __future__ import annotations

from html import escape as in_html
from pathlib import Path

from seqrec.experiments.ablate.sheets import figure, headline, main, sentences, skipped
from seqrec.experiments.ablate.table import Ablation
from seqrec.experiments.compare.html import document, to_figure, to_list
from seqrec.experiments.compare.html import to_table as html_table
from seqrec.experiments.compare.markdown import escape
from seqrec.experiments.compare.markdown import to_table as markdown_table
from seqrec.files import atomic_file, write_json

#: What everything else is written from; raised when the facts change.
FACTS, FORMAT_VERSION = "ablation.json", 1
PAGES = ("ablation.md", "ablation.html")


def write_ablation(ablation: Ablation, out: Path) -> list[Path]:
    """Write every file of an ablation into `out`, each whole or not at all; their paths, facts first."""
    write_json(out / FACTS, {"format": FORMAT_VERSION, **ablation.to_dict()})
    for name, to_text in zip(PAGES, (to_markdown, to_html), strict=True):
        with atomic_file(out / name) as temporary:
            temporary.write_text(to_text(ablation), encoding="utf-8")
    return [out / name for name in (FACTS, *PAGES)]


def to_markdown(ablation: Ablation) -> str:
    """The whole ablation."""
    lines = [f"# {escape(ablation.label)}", escape(headline(ablation)), f"*{escape(ablation.protocol)}.*"]
    lines += [_bullets([f"Failed: {why}" for why in ablation.failures])] if ablation.failures else []
    lines.append(_bullets(sentences(ablation)))
    for sheet in (main(ablation), skipped(ablation)):
        if sheet.rows:
            lines += [f"## {escape(sheet.title)}", markdown_table(sheet)]
            lines += [escape(note)] if (note := sheet.explained()) else []
    return "\n\n".join(lines) + "\n"


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)


def to_html(ablation: Ablation) -> str:
    """The same as one page that needs nothing else."""
    failed = ""
    if ablation.failures:
        failed = f'<div class="failed"><strong>Failed</strong>{to_list(list(ablation.failures), "")}</div>'
    pieces = [
        f'<p class="note">{in_html(ablation.protocol)}.</p>',
        failed,
        to_list(sentences(ablation)),
        html_table(main(ablation)),
        to_figure(figure(ablation)),
        html_table(skipped(ablation)),
    ]
    return document(ablation.label, headline(ablation), "", "\n".join(filter(None, pieces)))
