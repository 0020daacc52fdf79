"""seqrec soup: several runs of one model in, one run out whose weights are their mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqrec.cli import options


def soup(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Two or more finished runs of one model on the same data.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new run.")],
    uniform: Annotated[
        bool, typer.Option("--uniform", help="Take all runs; by itself, only those that validation is better with.")
    ] = False,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Average the weights of runs that started from the same weights, score the test once, keep the result as a run.

    The mean of runs that share a start is often better than each of them, at the cost of one. Train one run, then
    others from it with --set training.start_from=RUN and seeds of their own. Runs that do not share a start have
    nothing in common to average.
    """
    from seqrec.cli.show import console, new_table, print_json
    from seqrec.experiments.run import Run
    from seqrec.experiments.soup import share_start
    from seqrec.experiments.soup import soup as make

    screen = console(stderr=as_json)
    if not share_start([Run(path) for path in runs]):
        screen.print("These runs do not share a training.start_from: expect the mean to be worse than its members.")
    made = make(runs, out, uniform, device)
    members = made.results["training"]["members"]
    if as_json:
        print_json({"run": str(made.path), "weights": [member["weight"] for member in members], **made.results})
        return
    metric = made.config.training.metric
    table = new_table(
        "run", "seed", "weight", f"validation {metric}", f"test {metric}", title="Best on validation first"
    )
    for member in members:
        numbers = [f"{member[name]:.4f}" for name in ("validation", "test")]
        table.add_row(member["run"], str(member["seed"]), f"{member['weight']:.2f}", *numbers)
    table.add_row("soup", "", "", f"{made.validation[metric]:.4f}", f"{made.metrics[metric]:.4f}")
    screen.print(table)
    taken, how = sum(member["weight"] > 0 for member in members), "as asked" if uniform else "chosen on validation"
    screen.print(f"{taken} of {len(members)} runs are in the soup, {how}; the test was scored once.")
    screen.print(made.results["test"]["protocol"])
    screen.print(f"Kept in {made.path}. Recommend with: seqrec recommend {made.path} TITLE ...", soft_wrap=True)
