"""seqrec evaluate: judge a run again, or a baseline that needs no training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqrec.cli import options


def evaluate(
    what: Annotated[str, typer.Argument(help="A run folder, or a model fitted without training, such as markov.")],
    data: Annotated[str | None, typer.Argument(help="Data set or table; a run brings its own.")] = None,
    part: Annotated[str, typer.Option(help="validation or test.")] = "test",
    settings: options.Set = None,
    device: options.Device = "auto",
    user: options.User = None,
    item: options.Item = None,
    time: options.Time = None,
    time_unit: options.TimeUnit = None,
    as_json: options.Json = False,
) -> None:
    """Rank every case against the whole catalogue and print every measure."""
    from seqrec.cli.show import all_metrics_table, breakdown_table, console, print_json
    from seqrec.data.load import load_data
    from seqrec.experiments import door
    from seqrec.experiments.run import Run

    asked = {key.removeprefix("evaluation."): value for key, value in options.changes(settings).items()}
    if Path(what).exists():
        found = door.evaluate(Run(what), data, part, device, asked)
    else:
        door.untrained(what)  # a misspelt name is not worth a download
        prepared = load_data(data or "ml-100k", **options.columns(user, item, time, time_unit))
        found = door.evaluate(what, prepared, part, device, asked)
    if as_json:
        print_json(found.summary())
        return
    screen = console()
    screen.print(all_metrics_table(found.metrics, f"{what}, {part}, {len(found.ranks):,} cases"))
    screen.print(breakdown_table(found.by_popularity(), "By popularity of the target"))
    screen.print(breakdown_table(found.by_length(), "By length of the history"))
    screen.print(found.protocol)
