"""seqrec ensemble: several runs in, one run out that knows what each of them knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqrec.cli import options

if TYPE_CHECKING:
    from rich.table import Table


def ensemble(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Two or more different finished runs, on the same data.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new run.")],
    fusion: Annotated[str, typer.Option(help="zscore or reciprocal_rank: how scores become comparable.")] = "zscore",
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Combine runs with weights chosen on validation, score the test once, and keep the result as a run."""
    from seqrec.cli.show import console, metrics_table, print_json
    from seqrec.experiments.combine import combine
    from seqrec.experiments.run import Run

    made = combine(runs, out, fusion, device)
    members = [Run(path) for path in runs]
    weights = [member["weight"] for member in made.results["training"]["members"]]
    if as_json:
        print_json({"run": str(made.path), "weights": weights, **made.results})
        return
    rows = [("ensemble", made.metrics, made.validation["ndcg@10"])] + [
        (f"{run.config.model_name}, seed {run.config.seed}", run.metrics, run.validation["ndcg@10"]) for run in members
    ]
    test = made.results["test"]
    screen = console()
    title = f"Test, {made.facts['data']['name']}, {test['cases']:,} cases, scored once"
    screen.print(_with_weights(metrics_table(rows, test["protocol"], title), weights))
    for weight, run in zip(weights, members, strict=True):
        screen.print(f"weight {weight:.2f}  {run.path}", soft_wrap=True)
    screen.print("Weights were chosen on validation NDCG@10, which flatters the ensemble's own a little.")
    screen.print(f"Kept in {made.path}. Recommend with: seqrec recommend {made.path} TITLE ...", soft_wrap=True)


def _with_weights(table: Table, weights: Sequence[float]) -> Table:
    """The table with weights beside the names; the first row is the ensemble's own."""
    from seqrec.cli.show import new_table

    # Headers of two lines leave room for names, which are folded where it is not enough and never cut.
    columns = [(str(column.header).replace(" ", "\n"), column.justify, list(column.cells)) for column in table.columns]
    columns.insert(1, ("weight", "right", ["", *(f"{weight:.2f}" for weight in weights)]))
    whole = new_table(title=table.title, caption=table.caption, caption_justify=table.caption_justify)
    for header, justify, _ in columns:
        whole.add_column(header, justify=justify, overflow="fold")
    for row in zip(*(cells for _, _, cells in columns), strict=True):
        whole.add_row(*row)
    return whole
