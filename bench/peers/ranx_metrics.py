"""ranx's values of the accuracy measures, run in ranx's environment by `bench/metrics_against_ranx.py`.

python ranx_metrics.py CASES VALUES: CASES (npz) holds `targets` (M,), `items` and `scores` (M, k; item 0 is an empty
place) and `metrics` (names such as ndcg@10); VALUES (npz) gets (M,) float64 for each of them.
"""

import sys
from importlib.metadata import version

import numpy as np
from ranx import Qrels, Run, evaluate


def main(cases: str, values: str) -> None:
    """One query per case, the target its only relevant document."""
    with np.load(cases) as stored:
        targets, items, scores, metrics = (stored[name] for name in ("targets", "items", "scores", "metrics"))
    names = [f"{case:06d}" for case in range(len(targets))]  # ranx sorts by name
    qrels = {name: {str(target): 1} for name, target in zip(names, targets, strict=True)}
    run = {
        name: {str(item): float(score) for item, score in zip(*row, strict=True) if item > 0}
        for name, *row in zip(names, items, scores, strict=True)
    }
    found = evaluate(Qrels(qrels), Run(run), [str(metric) for metric in metrics], return_mean=False)
    np.savez(values, **found)
    print("FOUND", version("ranx"))


main(*sys.argv[1:])
