"""Classical models on a large log: seconds to fit, seconds to score 256 histories, and the process' peak memory.

python bench/generate.py ml-20m LOG                                            (once; not counted)
seqrec data prepare LOG/ratings.csv --user userId --item movieId --time timestamp
python bench/classical.py PREPARED_FOLDER
python bench/classical.py PREPARED_FOLDER --models ease als --settings '{"ease": {"window": 20}}'

Every model in a process of its own, with its default settings. One that takes longer than the limit is stopped.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import Row, record

MODELS = ("popularity", "markov", "ease", "als", "bpr", "svd", "nmf", "pmf", "item_knn", "user_knn")
#: Seconds that one model may take, and the memory that each is meant to stay below.
SECONDS, GOAL = 900, "< 8 GB"


def measure(name: str, folder: str, settings: str) -> None:
    """Fit and score here, so that the peak memory is this model's; print what was found."""
    import torch

    from seqrec.data.prepared import PreparedData
    from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
    from seqrec.models.build import build_model

    data = PreparedData.load(Path(folder))
    torch.manual_seed(0)
    began = time.perf_counter()
    model = build_model({"name": name, **json.loads(settings)}, data.sequences.num_items).fit_data(data)
    fitted = time.perf_counter()
    batch = Evaluator(data, EvaluationConfig()).histories(model, data.cases("validation").take(np.arange(256)))
    started = time.perf_counter()
    model.scores(batch)
    scored = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("FOUND " + json.dumps({"fit": fitted - began, "score": scored - started, "peak": peak}))


def rows(name: str, folder: Path, settings: dict[str, Any]) -> list[Row]:
    """What one model takes, or why it has no figures."""
    command = [sys.executable, __file__, "--part", name, str(folder), json.dumps(settings.get(name, {}))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return [Row(f"{name}: fit", f"over {SECONDS}", "s")]
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return [Row(f"{name}: fit", f"failed: {(done.stderr.strip().splitlines() or ['killed'])[-1][:80]}", "")]
    found = json.loads(done.stdout.partition("FOUND ")[2])
    return [
        Row(f"{name}: fit", f"{found['fit']:.0f}", "s"),
        Row(f"{name}: score 256 histories against every item", f"{found['score']:.2f}", "s"),
        Row(f"{name}: peak memory", f"{found['peak']:.1f}", "GiB", GOAL),
    ]


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
    found = [row for name in options.models for row in rows(name, options.folder, options.settings)]
    sys.argv = [sys.argv[0], "PREPARED_FOLDER", *sys.argv[2:]]  # where the folder lies is nobody's business
    protocol = (
        f"A generated log with the counts of MovieLens-20M, 5-core, leave-one-out: {facts['users']:,} users, "
        f"{facts['items']:,} items, {facts['events']:,} events. A process per model, default settings, reading the "
        "prepared folder included in the memory."
    )
    record("classical", found, protocol, device="cpu")


if __name__ == "__main__":
    main()
