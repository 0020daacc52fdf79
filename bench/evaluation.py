"""ML-1M on a CPU: preparing the log, and ranking every user against the whole catalogue.

python bench/evaluation.py PATH_OF_ml-1m.zip
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import Row, record


def measure(what: str) -> None:
    """In a process of its own, so that the peak memory is this part's."""
    import seqrec
    from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
    from seqrec.experiments.environment import process_peak_mib
    from seqrec.models.build import build_model

    began = time.perf_counter()
    data = seqrec.load_data("ml-1m")
    if what != "prepare":
        spec = {"name": what, "embedding_dim": 256} if what in ("xlstm", "sasrec") else {"name": what}
        scorer = build_model(spec, data.sequences.num_items).fit(data.train)
        evaluator = Evaluator(data, EvaluationConfig())
        began = time.perf_counter()
        evaluator.evaluate(scorer, "test")
    seconds = time.perf_counter() - began
    print(f"FOUND {seconds} {process_peak_mib()}")


def main() -> None:
    """Measure each part and record the table."""
    if sys.argv[1] == "--part":
        measure(sys.argv[2])
        return
    archive = Path(sys.argv[1])
    table = []
    with tempfile.TemporaryDirectory() as cache:
        environ = {**os.environ, "SEQREC_CACHE": cache}
        subprocess.run(
            ["seqrec", "data", "add", "ml-1m", str(archive)], env=environ, check=True, stdout=subprocess.DEVNULL
        )
        for what in ("prepare", "popularity", "markov", "sasrec", "xlstm"):
            command = [sys.executable, __file__, "--part", what]
            output = subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout
            seconds, peak = (float(x) for x in output.partition("FOUND ")[2].split())
            name = "prepare from the zip" if what == "prepare" else f"evaluate {what}, 6,040 users x 3,416 items"
            table.append(Row(name, f"{seconds:.1f}", "s", "< 20" if what == "prepare" else ""))
            table.append(Row(f"{name}: peak memory of the process", f"{peak:,.0f}", "MiB"))
    sys.argv[1] = "ml-1m.zip"
    record("evaluation-ml-1m", table, "Whole process; xLSTM and SASRec with d 256, 2 blocks, length 200.", device="cpu")


if __name__ == "__main__":
    main()
