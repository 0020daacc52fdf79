"""seqrec's accuracy measures, case by case, against those of ranx, an independent library for ranking evaluation.

python bench/metrics_against_ranx.py --ranx PYTHON        (the interpreter of an environment that has ranx)

seqrec counts from the rank of the target among all items and never looks at a list. ranx is given the lists with
their scores, and orders and counts for itself, so the ranking is compared too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Row, record

from seqrec.evaluation import ACCURACY
from seqrec.evaluation.evaluation import Evaluation
from seqrec.kernels.ranking import exclude, target_ranks, top_items

CASES, ITEMS = 10_000, 500
KS = (1, 5, 10, 20, 50)
METRICS = [f"{name}@{k}" for name in ACCURACY for k in KS]
PEER = Path(__file__).parent / "peers" / "ranx_metrics.py"


def cases(seed: int = 0) -> tuple[Evaluation, Any]:
    """Targets that are liked a little, much or not, and anything from none to nearly all items left out.

    One target in twenty is itself left out. Scores have no ties: ranx breaks them as the sort happens to fall, seqrec
    against the model. Returns the evaluation and the (M, k) scores of its lists.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(CASES, ITEMS, generator=generator).argsort(1).float()
    targets = torch.randint(1, ITEMS + 1, (CASES,), generator=generator)
    rows = torch.arange(CASES)
    liked = ITEMS * torch.rand(CASES, generator=generator).pow(0.3)
    scores[rows, targets - 1] = liked.floor() + 0.5
    share = torch.rand(CASES, 1, generator=generator).pow(4)
    left_out = torch.rand(CASES, ITEMS, generator=generator) < share
    left_out[rows, targets - 1] = torch.rand(CASES, generator=generator) < 0.05
    pairs = left_out.nonzero()
    scores = exclude(scores, pairs[:, 0], pairs[:, 1] + 1)
    lists, list_scores = top_items(scores, max(KS))
    zeros, ones = np.zeros(CASES, dtype=np.int64), np.ones(ITEMS, dtype=np.int64)
    ranks = target_ranks(scores, targets).numpy()
    return Evaluation(zeros, targets.numpy(), ranks, zeros, lists.numpy(), ones, KS, "made up"), list_scores.numpy()


def ask_ranx(python: str, evaluation: Evaluation, list_scores: Any) -> tuple[str, dict[str, Any]]:
    """ranx's version and its (M,) values by metric."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "cases.npz"), Path(folder, "values.npz")
        np.savez(asked, targets=evaluation.targets, items=evaluation.lists, scores=list_scores, metrics=METRICS)
        done = subprocess.run(
            [python, "-W", "ignore", str(PEER), str(asked), str(answered)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"ranx failed: {done.stderr[-2000:]}")
        with np.load(answered) as stored:
            return done.stdout.partition("FOUND ")[2].strip(), {name: stored[name] for name in stored.files}


def rows(evaluation: Evaluation, theirs: dict[str, Any]) -> list[Row]:
    """The largest difference over all cases and cut-offs, per measure, after what the cases are like."""
    listed = (evaluation.lists == evaluation.targets[:, None]).any(1)
    table = [
        Row("targets in the list of 50", f"{listed.mean():.1%}", ""),
        Row("targets that were themselves left out", f"{np.mean(evaluation.ranks > ITEMS):.1%}", ""),
        Row("lists that end before place 50", f"{np.mean(evaluation.lists[:, -1] == 0):.1%}", ""),
    ]
    for name in ACCURACY:
        metrics = [f"{name}@{k}" for k in KS]
        largest = max(float(np.abs(evaluation.per_case(metric) - theirs[metric]).max()) for metric in metrics)
        at_10 = float(evaluation.per_case(f"{name}@10").mean())
        what = f"{name}@{', '.join(map(str, KS))}: largest difference of a case (mean @10 {at_10:.4f})"
        table.append(Row(what, f"{largest:.1e}" if largest else "0", "", "<= 1e-12"))
    return table


def main() -> None:
    """Compare and record the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranx", metavar="PYTHON", required=True)
    evaluation, list_scores = cases()
    release, theirs = ask_ranx(parser.parse_args().ranx, evaluation, list_scores)
    sys.argv = [sys.argv[0], "--ranx", "PYTHON"]  # where the environment lies is nobody's business
    protocol = f"{CASES:,} made-up cases, {ITEMS} items, one target each; ranx {release}."
    record("metrics", rows(evaluation, theirs), protocol, page="results.md", device="cpu")


if __name__ == "__main__":
    main()
