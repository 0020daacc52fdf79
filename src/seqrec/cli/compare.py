"""seqrec compare: one file to the table of a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqrec.cli import options
from seqrec.errors import ConfigError


def compare(
    file: Annotated[Path | None, typer.Argument(help="YAML: data, models, seeds, and what varies.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where runs and report go; comparisons/<file> by itself.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; chosen by itself.")] = None,
    device: options.Device = "auto",
    so_far: Annotated[bool, typer.Option("--so-far", help="Run nothing; judge the runs that are there.")] = False,
    show: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw a finished comparison again; nothing is run.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Train, judge and test every model of a file; exit code 1 when something in it failed."""
    from seqrec.cli.compare_show import show_comparison
    from seqrec.cli.show import console, print_json
    from seqrec.experiments.compare.write import FACTS, PAGES, read_comparison, write_pages

    if (file is None) == (show is None):
        raise ConfigError("seqrec compare takes a YAML file, or --show and the folder of a finished comparison.")
    if file is None:
        assert show is not None
        found, folder = read_comparison(show), out or show
        write_pages(found, folder)
    else:
        from seqrec.experiments.compare.run import compare as run

        folder = out or Path("comparisons") / file.stem
        found = run(file, folder, jobs, device, console(stderr=True).print, so_far)
    if as_json:
        print_json(found.to_dict())
    else:
        screen = console()
        show_comparison(screen, found)
        for name in PAGES if show else (FACTS, *PAGES):
            screen.print(str(folder / name), soft_wrap=True)
    if found.failures:
        raise typer.Exit(1)
