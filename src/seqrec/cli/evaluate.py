"""seqrec evaluate: judge a run again, a baseline that needs no training, or lists that another toolkit made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqrec.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from seqrec.experiments.versus import Versus


def evaluate(
    what: Annotated[
        str | None,
        typer.Argument(help="A run folder, or a model fitted without training (markov); not with --predictions."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Argument(help="Data set or table: needed with --predictions; ml-100k for a model; a run brings its own."),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Parquet or CSV with lists or scores of another toolkit.")
    ] = None,
    missing: Annotated[
        str, typer.Option(help="People without a list, and places that a list leaves empty: refuse, or miss.")
    ] = "refuse",
    against: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="Paired test against a run, a predictions file or a baseline."),
    ] = None,
    part: Annotated[str, typer.Option(help="validation or test.")] = "test",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting, as evaluation.filter_seen=false; data.split=temporal; of a model, model.window=3.",
        ),
    ] = None,
    device: options.Device = "auto",
    user: options.User = None,
    item: options.Item = None,
    time: options.Time = None,
    time_unit: options.TimeUnit = None,
    as_json: options.Json = False,
) -> None:
    """Rank every case against the whole catalogue and print every measure."""
    from seqrec.cli.show import all_metrics_table, breakdown_table, console, print_json
    from seqrec.experiments.versus import Subject, opponent, versus

    columns = options.columns(user, item, time, time_unit)
    changes = options.changes(settings) | {f"data.{name}": value for name, value in columns.items()}
    if against:
        opponent(against)  # a misspelt one is told before anything is judged
    subject = Subject.named(what, data, predictions, missing, changes)
    found = subject.judged(part, device)
    compared = versus(subject, found, against, part, device) if against else None
    if as_json:
        print_json(found.summary() | ({"against": compared.summary()} if compared else {}))
        return
    screen = console()
    screen.print(all_metrics_table(found.metrics, f"{subject.name}, {part}, {len(found.ranks):,} cases"))
    screen.print(breakdown_table(found.by_popularity(), "By popularity of the target"))
    screen.print(breakdown_table(found.by_length(), "By length of the history"))
    screen.print(found.protocol)
    if compared:
        screen.print(_versus_table(subject.name, compared))


def _versus_table(name: str, compared: Versus) -> Table:
    """The paired test, one number a line."""
    from seqrec.cli.show import new_table

    test = compared.test
    rows = {
        f"{compared.metric} of {name}": f"{compared.value:.4f}",
        f"{compared.metric} of {compared.against}": f"{compared.other:.4f}",
        "difference": f"{test.difference:+.4f}",
        "95% interval over people": f"{test.low:+.4f} to {test.high:+.4f}",
        "p value, permutation": f"{test.p_permutation:.4f}",
        "p value, bootstrap": f"{test.p_bootstrap:.4f}",
        "effect size (d_z)": f"{test.effect:+.3f}",
        "verdict": f"{name}: {compared.verdict}",
    }
    table = new_table(title=f"Paired test on the same {test.users:,} people", show_header=False)
    for row in rows.items():
        table.add_row(*row)
    return table
