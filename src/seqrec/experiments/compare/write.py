"""A comparison on disk: the facts as JSON and Parquet, and the same for readers."""

from __future__ import annotations

from pathlib import Path

from seqrec.errors import DataError
from seqrec.experiments.compare.html import to_html
from seqrec.experiments.compare.latex import to_latex
from seqrec.experiments.compare.markdown import to_markdown
from seqrec.experiments.compare.parquet import write_rows, write_tests
from seqrec.experiments.compare.table import Comparison
from seqrec.files import atomic_file, read_json, write_json

#: What everything else is written from.
FACTS = "comparison.json"
#: Raised when the facts change.
FORMAT_VERSION = 1
#: What is written from it.
PAGES = ("comparison.md", "comparison.html", "comparison.tex", "rows.parquet", "tests.parquet")


def write_report(comparison: Comparison, out: Path) -> list[Path]:
    """Write every file of a comparison into `out`, each whole or not at all; their paths, facts first.

    Raises:
        DiskError: the disk is full or `out` may not be written.
    """
    write_json(out / FACTS, {"format": FORMAT_VERSION, **comparison.to_dict()})
    return [out / FACTS, *write_pages(comparison, out)]


def write_pages(comparison: Comparison, out: Path) -> list[Path]:
    """What is drawn from the facts: Markdown, HTML, LaTeX, and two Parquet tables."""
    markdown, html, latex, rows, tests = paths = [out / name for name in PAGES]
    for path, to_text in ((markdown, to_markdown), (html, to_html), (latex, to_latex)):
        with atomic_file(path) as temporary:
            temporary.write_text(to_text(comparison), encoding="utf-8")
    write_rows(comparison, rows)
    write_tests(comparison, tests)
    return paths


def read_comparison(folder: Path) -> Comparison:
    """The comparison whose facts are in a folder.

    Raises:
        DataError: there are none, or they are not a comparison's.
    """
    path = folder / FACTS
    try:
        facts = read_json(path)
        if facts.pop("format", None) != FORMAT_VERSION:
            raise ValueError("it is of another version of seqrec")
        return Comparison.from_dict(facts)
    except FileNotFoundError:
        raise DataError(f"There is no {path}. Make it: seqrec compare FILE.yaml --out {folder}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is not a comparison's ({error}). Run the comparison again.") from None
