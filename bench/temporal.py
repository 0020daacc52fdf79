"""A global split in time beside leave-one-out: the same models, logs and catalogue, judged twice.

python bench/temporal.py --parallel 3
python bench/temporal.py --data FOLDER      FOLDER/ml-100k-temporal, ...: prepared folders, for a bare GPU machine
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from accuracy import SEEDS, one
from record import ROOT, Row, put, record

DATASETS = ("ml-100k", "ml-latest-small")
#: Split -> the variant of the preset that was chosen for it, on its own validation part.
SPLITS = {"leave_one_out": None, "temporal": "temporal"}
TRAINED = ("xlstm", "sasrec")
FITTED = ("recent_popularity", "markov", "popularity")
METRICS = ("ndcg@10", "recall@10")


def data_of(dataset: str, split: str, folder: Path | None) -> Any:
    """The prepared data: of the data set by name, or of its folder in `folder`."""
    import seqrec

    return seqrec.load_data(folder / f"{dataset}-{split}") if folder else seqrec.load_data(dataset, split=split)


def measure(dataset: str, split: str, model: str, seed: int, device: str, folder: Path | None) -> dict[str, Any]:
    """Figures of one model with one seed; of a baseline that has none, whatever the seed."""
    import seqrec

    data = data_of(dataset, split, folder)
    if model in TRAINED:
        return one(dataset, str(data.folder), model, seed, device, SPLITS[split])
    found = {part: seqrec.evaluate(model, data, part, device).metrics for part in ("validation", "test")}
    return {
        "test": {name: found["test"][name] for name in METRICS},
        "validation": found["validation"]["ndcg@10"],
        "targets": data.facts["test_targets"],
    }


def rows(dataset: str, split: str, model: str, found: list[dict[str, Any]]) -> list[Row]:
    """Figures as mean ± standard deviation over seeds."""

    def spread(values: list[float]) -> str:
        return f"{mean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else f"{values[0]:.4f}"

    name = f"{dataset}, {split.replace('_', '-')}, {model}"
    table = [
        Row(f"{name}: test NDCG@10", spread([run["test"]["ndcg@10"] for run in found]), ""),
        Row(f"{name}: test Recall@10", spread([run["test"]["recall@10"] for run in found]), ""),
        Row(f"{name}: validation NDCG@10", spread([run["validation"] for run in found]), ""),
    ]
    assert len({run["targets"] for run in found}) == 1, "the seeds were not judged alike"
    return table


def overview() -> list[str]:
    """Test NDCG@10 and Recall@10 of both splits side by side, from the stored figures."""
    stored = json.loads((ROOT / "bench" / "results" / "temporal.json").read_text(encoding="utf-8"))
    value = {row["metric"]: row["value"] for row in stored["rows"]}
    lines = ["| log | model | leave-one-out NDCG@10 | Recall@10 | split in time NDCG@10 | Recall@10 |"]
    lines.append("|---|---|---|---|---|---|")
    for dataset, model in product(DATASETS, (*TRAINED, *FITTED)):
        names = [f"{dataset}, {split.replace('_', '-')}, {model}: test" for split in SPLITS]
        cells = [value[f"{name} {metric}"] for name in names for metric in ("NDCG@10", "Recall@10")]
        lines.append(f"| {dataset} | {model} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Every job in a process of its own, `--parallel` at a time; then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--one", nargs=4, metavar=("DATASET", "SPLIT", "MODEL", "SEED"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        dataset, split, model, seed = asked.one
        print("FOUND " + json.dumps(measure(dataset, split, model, int(seed), asked.device, asked.data)))
        return

    def run(job: tuple[str, ...]) -> dict[str, Any]:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", *job]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return json.loads(output.partition("FOUND ")[2])  # type: ignore[no-any-return]

    lines = [(*key, model) for key in product(DATASETS, SPLITS) for model in (*TRAINED, *FITTED)]
    jobs = [(*line, str(seed)) for line in lines for seed in (SEEDS if line[2] in TRAINED else SEEDS[:1])]
    with ThreadPoolExecutor(asked.parallel) as pool:
        found = dict(zip(jobs, pool.map(run, jobs), strict=True))
    table = [
        row for line in lines for row in rows(*line, [figures for job, figures in found.items() if job[:3] == line])
    ]
    for dataset, split in product(DATASETS, SPLITS):
        facts = data_of(dataset, split, asked.data).facts
        table.append(Row(f"{dataset}, {split.replace('_', '-')}: test cases", f"{facts['test']['cases']:,}", ""))
        table.append(Row(f"{dataset}, {split.replace('_', '-')}: target hash", facts["test_targets"][:16], ""))
    protocol = (
        "5-core; whole catalogue ranked, seen items left out, ties against the model. Temporal: validation from the "
        "0.8, test from the 0.9 quantile of all times, every later event asked for with all before it as history "
        "(averaged over events). Each split has its own settings (presets), chosen on its validation part with seed "
        f"42; the epoch is chosen on validation NDCG@10, the test scored once. Seeds {', '.join(map(str, SEEDS))}."
    )
    record("temporal", table, protocol, device=asked.device)
    for page in ("benchmarks.md", "protocol.md"):
        put("temporal-overview", overview(), ROOT / "docs" / page)


if __name__ == "__main__":
    main()
