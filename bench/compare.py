"""A comparison file, run to its end, and its tables put into docs/results.md.

python bench/compare.py examples/ml-100k.yaml --jobs 2
python bench/compare.py examples/ml-1m.yaml --jobs 12 --out FOLDER
python bench/compare.py examples/thesis.yaml --show FOLDER     only write what FOLDER/comparison.json holds
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from record import ROOT, commit, put

from seqrec.experiments.compare.markdown import to_markdown
from seqrec.experiments.compare.run import compare
from seqrec.experiments.compare.table import Comparison
from seqrec.files import read_json

#: Headings of a comparison stand this much deeper in the page.
DEEPER = "#"


def main() -> None:
    """Run it, keep its facts in bench/results, and renew the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--so-far", action="store_true", help="run nothing; judge what is there")
    parser.add_argument("--show", type=Path, help="a comparison that was made before")
    asked = parser.parse_args()
    out = asked.show or asked.out or Path("comparisons") / asked.file.stem
    if asked.show is None:
        compare(asked.file, out, asked.jobs, asked.device, print, asked.so_far)
    kept = (
        Path(os.environ.get("SEQREC_BENCH_RESULTS", ROOT / "bench" / "results")) / f"comparison-{asked.file.stem}.json"
    )
    options = (f" --jobs {asked.jobs}" if asked.jobs else "") + (" --so-far" if asked.so_far else "")
    command = f"python bench/compare.py examples/{asked.file.name}{options}"
    facts = read_json(out / "comparison.json") | {"command": command, "commit": commit()}
    kept.write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
    render(kept)


def render(kept: Path) -> None:
    """Put the comparison that a file of bench/results holds between its marks in docs/results.md."""
    facts = json.loads(kept.read_text(encoding="utf-8"))
    command, commit, _ = (facts.pop(name) for name in ("command", "commit", "format"))
    text = "\n".join(
        DEEPER + line if line.startswith("#") else line
        for line in to_markdown(Comparison.from_dict(facts)).splitlines()
    )
    put(kept.stem, [text, "", f"Command: `{command}`; commit {commit}."], ROOT / "docs" / "results.md")


if __name__ == "__main__":
    main()
