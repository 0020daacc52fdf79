"""seqrec ensemble: several runs in, one run out that knows what each of them knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqrec.cli import options


def ensemble(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Two finished runs or more, on the same data.")],
    out: Annotated[Path, typer.Option(help="Folder of the new run.")],
    fusion: Annotated[str, typer.Option(help="zscore or reciprocal_rank: how scores become comparable.")] = "zscore",
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Combine runs with weights chosen on validation, score the test once, and keep the result as a run."""
    from seqrec.cli.show import console, metrics_table, print_json
    from seqrec.experiments.combine import combine
    from seqrec.experiments.run import Run

    members = [Run(path) for path in runs]
    made = combine(members, out, fusion, device)
    weights = [member["weight"] for member in made.results["training"]["members"]]
    if as_json:
        print_json({"run": str(made.path), "weights": weights, **made.results})
        return
    weighed = list(zip(weights, members, strict=True))
    rows = [("ensemble", made.metrics, made.validation["ndcg@10"])] + [
        (f"{weight:.2f} {run.config.model_name}, seed {run.config.seed}", run.metrics, run.validation["ndcg@10"])
        for weight, run in weighed
    ]
    test = made.results["test"]
    screen = console()
    title = f"Test, {made.facts['data']['name']}, {test['cases']:,} cases, scored once"
    screen.print(metrics_table(rows, test["protocol"], title))
    for weight, run in weighed:
        screen.print(f"weight {weight:.2f}  {run.path}", soft_wrap=True)
    screen.print("Weights were chosen on validation NDCG@10, which flatters the ensemble's own a little.")
    screen.print(f"Kept in {made.path}. Recommend with: seqrec recommend {made.path} TITLE ...", soft_wrap=True)
