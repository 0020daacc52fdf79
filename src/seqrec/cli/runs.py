"""seqrec runs: what has been trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqrec.cli import options

app = typer.Typer(help="List and show runs.", no_args_is_help=True)


@app.command("list")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Where the runs are.")] = Path("runs"),
    as_json: options.Json = False,
) -> None:
    """Every run in a folder, newest last."""
    from seqrec.cli.show import console, new_table, print_json
    from seqrec.errors import SeqrecError
    from seqrec.run_folder import RunFolder

    rows = []
    for path in sorted(folder.glob("*/run.json"), key=lambda path: path.stat().st_mtime):
        run = RunFolder(path.parent)
        try:
            config, results = run.facts()["config"], run.results()
        except SeqrecError as error:
            typer.echo(f"warning: {error}", err=True)
            continue
        rows.append(
            {
                "run": str(run.path),
                "data": config["data"]["source"],
                "model": config["model"]["name"],
                "seed": config["seed"],
                "seen items": "left out" if config["evaluation"]["filter_seen"] else "ranked",
                "epochs": len(run.epochs()),
                "validation ndcg@10": results and results["validation"]["metrics"]["ndcg@10"],
                "test ndcg@10": results and results["test"]["metrics"]["ndcg@10"],
            }
        )
    if as_json:
        print_json(rows)
        return
    if not rows:
        console().print(f"No runs in {folder}. Make one: seqrec train ml-100k xlstm --preset quick")
        return
    table = new_table(*rows[0])
    for row in rows:
        table.add_row(
            *("unfinished" if x is None else f"{x:.4f}" if isinstance(x, float) else str(x) for x in row.values())
        )
    console().print(table)


@app.command("show")
def show(run: Annotated[Path, typer.Argument(help="A run folder.")], as_json: options.Json = False) -> None:
    """Settings, epochs and results of one run."""
    import yaml

    from seqrec.cli.show import all_metrics_table, breakdown_table, console, print_json
    from seqrec.run_folder import RunFolder

    folder = RunFolder(run)
    facts, results, epochs = folder.facts(), folder.results(), folder.epochs()
    if as_json:
        print_json({**facts, "results": results, "epochs": epochs})
        return
    screen = console()
    screen.print(yaml.safe_dump(facts["config"], sort_keys=False))
    for epoch in epochs:
        norm, metric = epoch["gradient_norm"], facts["config"]["training"]["metric"]
        validation = f"validation {metric} {epoch['validation'][metric]:.4f}" if "validation" in epoch else ""
        screen.print(
            f"epoch {epoch['epoch']:>3}  loss {epoch['train']['loss']:.3f}  {validation}  "
            f"gradient norm {norm['total']:.2f}, clipped {norm['clipped_share']:.0%}"
        )
    if results is None:
        screen.print(f"Not finished. Go on with: seqrec train --resume {run}")
        return
    for part in ("validation", "test"):
        screen.print(all_metrics_table(results[part]["metrics"], f"{part}, {results[part]['cases']:,} cases"))
    screen.print(breakdown_table(results["test"]["by_popularity"], "Test by popularity of the target"))
    screen.print(breakdown_table(results["test"]["by_length"], "Test by length of the history"))
    screen.print(results["test"]["protocol"])
