"""seqrec tune: a data set and a model in, settings out that were chosen on validation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqrec.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from seqrec.experiments.tune.report import Tuned

#: Trials that the table at the end shows.
SHOWN = 10


def tune(
    data: Annotated[str, typer.Argument(help="A data set, the path of a table, or a prepared folder.")],
    model: Annotated[str, typer.Argument(help="A model's name, or my_package.my_module:MyModel.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the study; tuning/DATA-MODEL when not given.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="How many settings to try.")] = 16,
    budget: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Wall time by GPUs, over restarts, to stop after.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trials that train at once; by itself 4 for each GPU, 1 on a CPU.")
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUES", help="What to search: model.dropout=0.1..0.5, training.batch_size=32,64."),
    ] = None,
    settings: options.Set = None,
    loss: Annotated[str | None, typer.Option(help="The loss's name, for all trials.")] = None,
    preset: options.Preset = None,
    reduction: Annotated[int, typer.Option(min=2, help="One in so many trials goes on where most are stopped.")] = 3,
    device: options.Device = "auto",
    gpus: Annotated[str | None, typer.Option(help="Which GPUs, as 0,1; all by default.")] = None,
    user: options.User = None,
    item: options.Item = None,
    time: options.Time = None,
    time_unit: options.TimeUnit = None,
    as_json: options.Json = False,
) -> None:
    """Search settings on validation. Stop it when you like: the same command goes on."""
    from seqrec.cli.show import console, print_json
    from seqrec.experiments.tune.run import tune
    from seqrec.experiments.tune.space import parse_search

    screen = console(stderr=as_json)
    found = tune(
        data,
        model,
        out=out,
        trials=trials,
        budget=budget,
        search=parse_search(search or []),
        settings=options.changes(settings) | ({} if loss is None else {"loss.name": loss}),
        preset=preset,
        workers=workers,
        device=device,
        gpus=options.numbers("--gpus", gpus),
        reduction=reduction,
        report=lambda line: screen.print(line, soft_wrap=True),
        **options.columns(user, item, time, time_unit),
    )
    _show(screen, found)
    if as_json:
        print_json(found.log() | {"best": found.best, "command": found.command})


def _show(screen: Console, found: Tuned) -> None:
    import yaml

    from seqrec.cli.show import new_table
    from seqrec.experiments.tune.report import changed, words

    table = new_table("trial", found.metric, "epochs", "seconds", "state", "what differs from trial 0")
    table.title = f"The best on validation, {found.data}, {found.model}"
    for row in found.ranked()[:SHOWN]:
        differs = " ".join(words(changed(row.settings, found.first)))
        numbers = [str(row.number), f"{row.validation:.4f}", str(row.epochs), f"{row.seconds:.0f}"]
        table.add_row(*numbers, row.state, differs)
    screen.print(table)
    screen.print(f"Best settings, kept in {found.out / 'best.yaml'}:", soft_wrap=True)
    screen.print(yaml.safe_dump(found.best, sort_keys=False).rstrip())
    screen.print(f"Train them with other seeds: {found.command}", soft_wrap=True)
    what = f"GPU-seconds on {found.gpus} GPUs" if found.gpus else "seconds"
    screen.print(f"{len(found.trials)} trials in {found.gpu_seconds:,.0f} {what}, all in {found.out}.", soft_wrap=True)
