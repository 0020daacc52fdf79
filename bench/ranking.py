"""Ranking every user against the whole catalogue: seconds, memory, and where the time goes.

    python bench/ranking.py [--before CHECKOUT] [--users U]

On a GPU: MovieLens-20M's shape (138,493 users, 26,744 items, histories made up on the spot), SASRec and xLSTM with
d 256, 2 blocks, length 200. On a CPU: MovieLens-1M, which has to be prepared, and 1,000 users against 1,000,000 items.
With `--before`, the same by the package of another checkout. Weights are random: ranking costs what it always does.

Each measurement has a process of its own. Of three evaluations the first compiles and warms up, the second counts, and
in the third events between the steps on the GPU tell them apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Row, record

from seqrec.data.catalogue import catalogue
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Sequences
from seqrec.data.splits import leave_one_out
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.experiments.environment import peak_memory_mib
from seqrec.models.base import SequenceModel
from seqrec.models.build import build_model

#: Users, items, and events per user of MovieLens-20M.
USERS, ITEMS, MEAN, LEAST, MOST = 138_493, 26_744, 144.4, 20, 9_254
WIDE = {"embedding_dim": 256, "num_blocks": 2, "max_length": 200}
#: What is told apart: module, name, and what it is called in the table.
STEPS = (
    ("seqrec.evaluation.questions", "Questions.histories", "histories"),
    ("seqrec.models.{model}", "{kind}.last_state", "encode"),
    ("seqrec.models.base", "ItemVectors.score", "score"),
    ("seqrec.evaluation.questions", "Questions.seen", "seen: find"),
    ("seqrec.kernels.ranking.blocks", "exclude", "seen: leave out"),
    ("seqrec.kernels.ranking.blocks", "finite_rows", "finite"),
    ("seqrec.kernels.ranking.blocks", "target_ranks", "rank"),
    ("seqrec.kernels.ranking.blocks", "top_items", "top-k"),
)


def made_up(users: int, items: int, mean: float, least: int, most: int) -> PreparedData:
    """Log-normal history lengths (sigma 1.25) of about that mean; few items get most of the events."""
    random = np.random.default_rng(0)
    spread = np.exp(1.25 * random.standard_normal(users))
    low, high = 0.0, float(most)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * spread, least, most).mean() < mean else (low, middle)
    ends = np.cumsum(np.clip(low * spread, least, most).astype(np.int64))
    events = (1 + items * random.random(int(ends[-1])) ** 3).astype(np.int32)
    sequences = Sequences(np.minimum(events, items), np.r_[0, ends[:-1]], ends, items)
    names = catalogue([str(item) for item in range(1, items + 1)])
    return PreparedData(Path(), sequences, leave_one_out(sequences), names, {"name": "made up"})


def evaluated(data: PreparedData, spec: dict[str, Any]) -> dict[str, float]:
    """Seconds of an evaluation and of its metrics, peak memory, and milliseconds of each step on a GPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    scorer = build_model(spec, data.sequences.num_items).fit(data.train)
    if isinstance(scorer, SequenceModel):
        scorer.to(device)
    evaluator = Evaluator(data, EvaluationConfig(), device)
    found = {"first": _seconds(lambda: evaluator.evaluate(scorer, "test"))}
    began = time.perf_counter()
    evaluation = evaluator.evaluate(scorer, "test")
    found["seconds"] = time.perf_counter() - began
    found["metrics"] = _seconds(lambda: evaluation.metrics)
    found["memory"] = peak_memory_mib(device)
    if device.type == "cuda" and hasattr(scorer, "last_state"):
        found |= _steps(lambda: evaluator.evaluate(scorer, "test"), scorer)
    return found


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _steps(work: Callable[[], Any], scorer: Any) -> dict[str, float]:
    """Milliseconds on the GPU in each of `STEPS`, from events around every call."""
    spans: dict[str, list[tuple[Any, Any]]] = {}

    def watched(plain: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            found = plain(*args)
            last.record()
            spans.setdefault(name, []).append((first, last))
            return found

        return call

    kind = type(scorer)
    for module, path, name in STEPS:
        place: Any = sys.modules[kind.__module__ if "{" in module else module]
        *outer, attribute = path.format(model="", kind=kind.__name__).split(".")
        for part in outer:
            place = getattr(place, part)
        setattr(place, attribute, watched(getattr(place, attribute), name))
    work()
    torch.cuda.synchronize()
    return {f"step {name}": sum(first.elapsed_time(last) for first, last in each) for name, each in spans.items()}


def measure(part: str, users: int) -> None:
    """One measurement, in this process: `ml-1m MODEL`, `ml-20m MODEL` or `million MODEL`."""
    shape, model = part.split()
    spec: dict[str, Any] = {"name": model} | (WIDE if model in ("sasrec", "xlstm") else {})
    if shape == "ml-1m":
        import seqrec

        data = seqrec.load_data("ml-1m")
    elif shape == "ml-20m":
        data = made_up(users or USERS, ITEMS, MEAN, LEAST, MOST)
    else:
        data, spec = made_up(1_000, 1_000_000, 20, 5, 200), spec | {"embedding_dim": 64, "num_blocks": 1}
    print(f"FOUND {json.dumps(evaluated(data, spec))}")


def separate(part: str, users: int, checkout: Path | None) -> dict[str, float]:
    """`measure` in a process of its own, with the package of `checkout` if given."""
    environ = dict(os.environ)
    if checkout is not None:
        environ["PYTHONPATH"] = os.pathsep.join([str(checkout / "src"), environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", __file__, "--users", str(users), "--part", part]
    output = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(output.partition("FOUND ")[2])
    return found


def rows_of(name: str, found: dict[str, float], goal: str = "") -> list[Row]:
    """The part of the table that one measurement makes."""
    table = [
        Row(name, f"{found['seconds']:.2f}", "s", goal),
        Row(f"{name}: the first time in a process", f"{found['first']:.2f}", "s"),
        Row(f"{name}: metrics of ranks and lists", f"{found['metrics']:.2f}", "s"),
        Row(f"{name}: peak memory", f"{found['memory']:,.0f}", "MiB"),
    ]
    return table + [Row(f"{name}: {key}", f"{value:,.0f}", "ms") for key, value in found.items() if "step " in key]


def main() -> None:
    """Measure what this machine is for, and record the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="a checkout whose package is measured too")
    parser.add_argument("--users", type=int, default=0, help="fewer users of MovieLens-20M's shape")
    parser.add_argument("--part", help="measure only this, in this process")
    asked = parser.parse_args()
    if asked.part:
        measure(asked.part, asked.users)
        return
    on_gpu = torch.cuda.is_available()
    parts = {f"ml-20m {model}": "< 3" for model in ("sasrec", "xlstm")}
    if not on_gpu:
        parts = dict.fromkeys([f"ml-1m {model}" for model in ("popularity", "markov", "sasrec", "xlstm")], "")
        parts["million sasrec"] = ""
    table = []
    for part, goal in parts.items():
        table += rows_of(part, separate(part, asked.users, None), goal)
        if asked.before:
            table += rows_of(f"{part}, before", separate(part, asked.users, asked.before))
        print(*(f"{row.metric:<60} {row.value:>12} {row.unit}" for row in table[-12:]), sep="\n", flush=True)
    protocol = "Second evaluation of the test part in a process; untrained models of d 256, 2 blocks, length 200."
    record(f"ranking-{'gpu' if on_gpu else 'cpu'}", table, protocol)


if __name__ == "__main__":
    main()
