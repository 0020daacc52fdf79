"""seqrec ablate: what each feature of a run is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqrec.cli import options


def ablate(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    features: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Features to switch off; all of them by itself. See --list.")
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="N,N,...", help="Every setting is trained with each.")] = "42,123,2023",
    out: Annotated[Path | None, typer.Option(help="Where runs and report go; ablations/<run> by itself.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; chosen by itself.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most this many, instead of the run's own.")] = None,
    device: options.Device = "auto",
    only_list: Annotated[bool, typer.Option("--list", help="Show the features of the run; train nothing.")] = False,
    as_json: options.Json = False,
) -> None:
    """Switch off one feature at a time, train again over seeds, and test each drop; exit code 1 when a run failed."""
    from seqrec.cli.ablate_show import show_ablation, show_features
    from seqrec.cli.show import console, print_json
    from seqrec.experiments.ablate.run import ablate as switch_off
    from seqrec.experiments.ablate.run import default_folder
    from seqrec.experiments.ablate.write import FACTS, PAGES
    from seqrec.experiments.run import Run

    screen, found = console(), Run(run)
    if only_list:
        show_features(screen, found, as_json)
        return
    names = None if features is None else [name.strip() for name in features.split(",")]
    folder = out or default_folder(found)
    ablation = switch_off(
        found,
        names,
        seeds=options.numbers("--seeds", seeds),
        out=folder,
        jobs=jobs,
        device=device,
        epochs=epochs,
        report=console(stderr=True).print,
    )
    if as_json:
        print_json(ablation.to_dict())
    else:
        show_ablation(screen, ablation)
        for name in (FACTS, *PAGES):
            screen.print(str(folder / name), soft_wrap=True)
    if ablation.failures:
        raise typer.Exit(1)
