"""Training on one GPU: how long an epoch takes, how far a step is from its matrix products, and where its time goes.

    python bench/training_gpu.py PREPARED_ML_1M

SASRec and xLSTM of d 256, 2 blocks and length 200 at a batch of 128: on MovieLens-1M, recorded and step by step; and in
the shape of MovieLens-20M (138,493 users, 26,744 items, histories made up on the spot). Each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ranking import ITEMS, LEAST, MEAN, MOST, USERS, WIDE, made_up
from record import Row, record

from seqrec.data.prepared import PreparedData
from seqrec.experiments.benchmark.measure import benchmark
from seqrec.experiments.config import RunConfig

MODELS = ("xlstm", "sasrec")
#: Seconds of an epoch of MovieLens-1M; a step over the sum of its matrix products.
EPOCH, TIMES = {"xlstm": 0.12, "sasrec": 0.09}, 2.5
#: How each part is called, and how its steps run.
PARTS = {"ML-1M": "auto", "ML-1M, step by step": "off", "ML-20M's shape": "auto"}
PLACES = 5


def measure(part: str, model: str, folder: Path) -> dict[str, Any]:
    """The figures of `seqrec bench`, in this process."""
    data = PreparedData.load(folder) if part.startswith("ML-1M") else made_up(USERS, ITEMS, MEAN, LEAST, MOST)
    settings = {
        "model": {"name": model} | WIDE,
        "training": {"item_dropout": 0.1, "batch_size": 128, "compile": PARTS[part]},
    }
    return benchmark(RunConfig.from_dict(settings), data, "cuda").to_dict()


def rows_of(part: str, model: str, found: dict[str, Any]) -> list[Row]:
    name, (rows, events) = f"{part}, {model}", found["step"]
    times = found["step_seconds"] / found["products_seconds"]
    goal = f"<= {EPOCH[model]}" if part == "ML-1M" else ""
    table = [
        Row(f"{name}: an epoch of {found['steps']:,} steps", f"{found['epoch_seconds']:.3f}", "s", goal),
        Row(f"{name}: tokens a second", f"{found['tokens_per_second'] / 1e6:.2f}", "million"),
        Row(f"{name}: a step of {rows} x {events}", f"{found['step_seconds'] * 1e3:.2f}", "ms"),
        Row(f"{name}: its matrix products alone", f"{found['products_seconds'] * 1e3:.2f}", "ms"),
        Row(f"{name}: step over products", f"{times:.2f}", "x", f"<= {TIMES}" if part.startswith("ML-20M") else ""),
        Row(f"{name}: of what the GPU does at best", f"{found['utilisation']:.0%}", ""),
        Row(f"{name}: peak memory", f"{found['peak_memory_mib']:,.0f}", "MiB"),
        Row(f"{name}: setting up", f"{found['set_up_seconds']:.1f}", "s"),
    ]
    if part.endswith("by step"):
        return table[:1]
    shares = [f"{place} {share:.0%}" for place, share in list(found["places"].items())[:PLACES]]
    return [*table, Row(f"{name}: where the time goes", ", ".join(shares), "")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="MovieLens-1M, prepared")
    parser.add_argument("--only", nargs=2, metavar=("PART", "MODEL"), help="measure in this process, and print JSON")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(*arguments.only, arguments.folder)))
        return
    table = []
    for part in PARTS:
        for model in MODELS:
            command = [sys.executable, __file__, str(arguments.folder), "--only", part, model]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{part}, {model}: {done.stderr}")
            table += rows_of(part, model, json.loads(done.stdout.splitlines()[-1]))
    protocol = (
        "Shipped settings of MovieLens-1M at a batch of 128; the shape of MovieLens-20M with d 256, 2 blocks, length "
        "200, batch 128, made-up histories; bfloat16. An epoch is timed whole, evaluation apart. Products: those of "
        "layers and scores, forward and backward, one by one; attention, cells and elementwise work are not among "
        "them. Where the time goes: kernels of a step that is not recorded. Setting up: with what caches of "
        "compiled kernels hold."
    )
    record("training-gpu", table, protocol, device="cuda")


if __name__ == "__main__":
    main()
