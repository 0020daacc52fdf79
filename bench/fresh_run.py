"""A whole training of MovieLens-1M in a fresh process on one GPU: start, training, evaluations, test, end.

    python bench/fresh_run.py PREPARED_ML_1M

An xLSTM of two blocks, with few epochs and a rate that falls to zero, early stopped on validation; once with no
compiled kernels at hand, then for each of three seeds with what the first run left in the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import Row, record

SEEDS, SECONDS, NDCG = (42, 123, 2023), 30, 0.19
SHORT = {
    "model.embedding_dim": 256,
    "model.dropout": 0.4,
    "loss.label_smoothing": 0.2,
    "training.item_dropout": 0.1,
    "training.epochs": 60,
    "training.learning_rate": 2e-3,
    "training.schedule": "linear",
    "training.evaluate_every": 5,
}


def train(folder: Path, out: Path, seed: int) -> None:
    """The run, in this process."""
    from seqrec.data.prepared import PreparedData
    from seqrec.experiments.config import RunConfig, settings_for
    from seqrec.experiments.fit import fit

    settings = settings_for("ml-1m", "xlstm", "none", SHORT)
    fit(RunConfig.from_dict({**settings, "seed": seed}), PreparedData.load(folder), out, device="cuda")


def fresh(folder: Path, out: Path, seed: int, cache: Path) -> tuple[float, dict[str, dict[str, float]]]:
    """Seconds of a process of its own, and what it found."""
    command = [sys.executable, __file__, str(folder), "--out", str(out), "--seed", str(seed)]
    began = time.perf_counter()
    subprocess.run(command, env={**os.environ, "TRITON_CACHE_DIR": str(cache)}, check=True)
    return time.perf_counter() - began, json.loads((out / "results.json").read_text("utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="MovieLens-1M, prepared")
    parser.add_argument("--out", type=Path, help="run once, in this process, into this folder")
    parser.add_argument("--seed", type=int, default=SEEDS[0])
    arguments = parser.parse_args()
    if arguments.out:
        train(arguments.folder, arguments.out, arguments.seed)
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        cold, _ = fresh(arguments.folder, place / "cold", SEEDS[0], place / "kernels")
        rows.append(Row("whole process, nothing compiled", f"{cold:.1f}", "s"))
        for seed in SEEDS:
            warm, found = fresh(arguments.folder, place / str(seed), seed, place / "kernels")
            of = found["training"]
            rows += [
                Row(f"seed {seed}: whole process, kernels in the cache", f"{warm:.1f}", "s", f"<= {SECONDS}"),
                Row(f"seed {seed}: of these, training with its evaluations", f"{of['seconds']:.1f}", "s"),
                Row(f"seed {seed}: best epoch of epochs", f"{of['best_epoch']} of {of['epochs']}", ""),
                Row(f"seed {seed}: validation NDCG@10", f"{found['validation']['metrics']['ndcg@10']:.4f}", ""),
                Row(f"seed {seed}: test NDCG@10", f"{found['test']['metrics']['ndcg@10']:.4f}", "", f">= {NDCG}"),
            ]
    protocol = (
        "5-core, leave-one-out, whole catalogue ranked, seen items left out, ties against the model; the epoch chosen "
        "on validation, the test scored once. From starting Python to its end, reading the prepared folder and writing "
        "the run included."
    )
    record("fresh-run", rows, protocol, device="cuda")


if __name__ == "__main__":
    main()
