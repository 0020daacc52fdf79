"""seqrec data export: a data set and its split as files of another toolkit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqrec.cli import options


def export(
    source: Annotated[str, typer.Argument(help="A data set, a table, or a folder of Parquet or RecBole files.")],
    toolkit: Annotated[str, typer.Option("--for", metavar="TOOLKIT", help="recbole, rectools or replay.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    max_length: Annotated[int, typer.Option(help="RecBole: latest events of a history in one row.")] = 200,
    settings: options.Set = None,
    user: options.User = None,
    item: options.Item = None,
    time: options.Time = None,
    time_unit: options.TimeUnit = None,
    as_json: options.Json = False,
) -> None:
    """Write a data set and its split for another toolkit, so that it answers the same questions."""
    from seqrec.cli.show import console, print_json
    from seqrec.data.export import export as write
    from seqrec.data.load import load_data

    given = {key.removeprefix("data."): value for key, value in options.changes(settings).items()}
    columns = options.columns(user, item, time, time_unit)
    data = load_data(source, report=console(stderr=True).print, **given, **columns)
    files = write(data, toolkit, out, max_length=max_length)
    if as_json:
        print_json({"files": [str(file) for file in files], "test_targets": data.facts["test_targets"]})
        return
    console().print("\n".join(str(file) for file in files), soft_wrap=True)
    console().print(f"target hash {data.facts['test_targets']}", soft_wrap=True)
