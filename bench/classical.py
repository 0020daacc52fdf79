"""Classical models on a large log: seconds to fit, seconds to score 256 histories, and the process' peak memory.

python bench/generate.py ml-20m LOG                                            (once; not counted)
seqrec data prepare LOG/ratings.csv --user userId --item movieId --time timestamp
python bench/classical.py PREPARED_FOLDER
python bench/classical.py PREPARED_FOLDER --models ease als --settings '{"ease": {"window": 20}}'

Every model in a process of its own, with its default settings, the cheapest first. One that takes longer than the
limit is stopped. The table is written after every model, so that it can be stopped too; models that are not asked for
keep the rows that they have.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import ROOT, Row, record

MODELS = ("popularity", "markov", "item_knn", "svd", "als", "nmf", "bpr", "user_knn", "ease", "pmf")
#: Seconds that one model may take, with imports and reading, and the memory that each is meant to stay below.
SECONDS, GOAL = 900, "< 8 GB"
PARTS = {"fit": "fit", "score": "score 256 histories against every item"}


def measure(name: str, folder: str, settings: str) -> None:
    """Fit and score here, so that the peak memory is this model's; print what was found."""
    import torch

    from seqrec.data.prepared import PreparedData
    from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
    from seqrec.experiments.environment import process_peak_mib
    from seqrec.models.build import build_model

    data = PreparedData.load(Path(folder))
    torch.manual_seed(0)
    began = time.perf_counter()
    model = build_model({"name": name, **json.loads(settings)}, data.sequences.num_items).fit_data(data)
    print(f"FOUND fit {time.perf_counter() - began} {process_peak_mib() / 2**10}", flush=True)
    batch = Evaluator(data, EvaluationConfig()).histories(model, data.cases("validation").take(np.arange(256)))
    started = time.perf_counter()
    model.scores(batch)
    print(f"FOUND score {time.perf_counter() - started} {process_peak_mib() / 2**10}", flush=True)


def rows(name: str, folder: Path, settings: dict[str, Any]) -> list[Row]:
    """What one model takes, as far as it came within the limit, or why it failed."""
    command = [sys.executable, __file__, "--part", name, str(folder), json.dumps(settings.get(name, {}))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    late = threading.Timer(SECONDS, process.kill)
    late.start()
    said, _ = process.communicate()
    stopped = not late.is_alive()
    late.cancel()
    found = {words[1]: words[2:] for words in map(str.split, said.splitlines()) if words[:1] == ["FOUND"]}
    table = []
    for part, what in PARTS.items():
        if part not in found:
            table.append(Row(f"{name}: {what}", f"more than {SECONDS}" if stopped else "failed", "s"))
            break
        table.append(Row(f"{name}: {what}", f"{float(found[part][0]):.3g}", "s"))
    peaks = [float(peak) for _, peak in found.values()]
    return [*table, Row(f"{name}: peak memory", f"{peaks[-1]:.1f}", "GiB", GOAL)] if peaks else table


def stored() -> list[Row]:
    """What was found before."""
    path = ROOT / "bench" / "results" / "classical.json"
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]] if path.exists() else []


def main() -> None:
    """Measure the models one after another and record the table."""
    if sys.argv[1:2] == ["--part"]:
        measure(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON: settings by model")
    options = parser.parse_args()
    facts = json.loads((options.folder / "facts.json").read_text(encoding="utf-8"))
    protocol = (
        f"A generated log with the counts of MovieLens-20M, 5-core, leave-one-out: {facts['users']:,} users, "
        f"{facts['items']:,} items, {facts['events']:,} events. A process per model, default settings, reading the "
        "prepared folder included in the memory."
    )
    found = [row for row in stored() if row.metric.split(":")[0] not in options.models]
    for name in options.models:
        found += rows(name, options.folder, options.settings)
        models = dict.fromkeys(row.metric.split(":")[0] for row in found)
        changed = ["--settings", f"'{json.dumps(options.settings)}'"] if options.settings else []
        # What gives the whole table; where the folder lies is nobody's business.
        sys.argv = ["bench/classical.py", "PREPARED_FOLDER", "--models", *models, *changed]
        record("classical", found, protocol, device="cpu")


if __name__ == "__main__":
    main()
