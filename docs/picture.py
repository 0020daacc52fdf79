"""Draw the README's picture from a finished run: `python docs/picture.py RUN`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from seqrec.cli.show import against_yardstick, example, metrics_table, summary
from seqrec.experiments.door import evaluate, run_data
from seqrec.experiments.run import Run
from seqrec.recommendation.showcase import examples

run = Run(sys.argv[1])
data = run_data(run)
rows = [(run.config.model_name, run.metrics, run.validation["ndcg@10"])]
for name in ("popularity", "markov"):
    validation = evaluate(name, data, "validation").metrics["ndcg@10"]
    rows.append((name, evaluate(name, data).metrics, validation))
screen = Console(record=True, width=112)
facts = summary(run.facts["data"])
facts.box = box.HEAVY_HEAD
screen.print(facts)
title = f"Test, {data.name}, {len(data.cases('test')):,} cases, scored once"
remark = against_yardstick(data.facts, rows[0][0], rows[0][1]["ndcg@10"])
table = metrics_table(rows, run.results["test"]["protocol"], title, remark)
table.box = box.HEAVY_HEAD
screen.print(table)
for found in examples(run.recommender(), data, users=1):
    for part in example(found):
        if isinstance(part, Table):
            part.box = box.HEAVY_HEAD
        screen.print(part)
# A picture that fetches nothing: the font is whatever monospace the reader has.
svg = re.sub(r"@font-face \{.*?\}\s*", "", screen.export_svg(title="make run"), flags=re.DOTALL)
(Path(__file__).parent / "images" / "run.svg").write_text(svg, encoding="utf-8")
