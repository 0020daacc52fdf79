"""seqrec data: get a log, prepare it, look at it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqrec.cli import options

app = typer.Typer(help="List, add, prepare and describe data sets.", no_args_is_help=True)
Source = Annotated[str, typer.Argument(help="A data set, a table, or a folder of RecBole files.")]


@app.command("list")
def list_sources(as_json: options.Json = False) -> None:
    """The data sets that have a name, and whether they are here."""
    from seqrec.cli.show import console, new_table, print_json
    from seqrec.data.download import cache_folder
    from seqrec.data.load import raw_files
    from seqrec.data.sources import SOURCES

    rows = [{"name": name, "here": bool(raw_files(name))} for name in SOURCES]
    if as_json:
        print_json(rows)
        return
    table = new_table("data set", "here", title=f"Cache: {cache_folder()}")
    for row in rows:
        table.add_row(str(row["name"]), "yes" if row["here"] else "fetched when needed, or: seqrec data add")
    console().print(table)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Which data set the file is.")],
    path: Annotated[Path, typer.Argument(help="The zip you have.")],
    as_json: options.Json = False,
) -> None:
    """Take over a file you have, after reading it as the data set it is meant to be."""
    from dataclasses import asdict

    from seqrec.cli.show import console, print_json
    from seqrec.data.download import cache_folder
    from seqrec.data.sources import SOURCES
    from seqrec.registry import resolve

    adds = {known: f"{target.partition(':')[0]}:add" for known, target in SOURCES.items()}
    added = resolve("data set", name, adds)(name, path, cache_folder())
    if as_json:
        print_json({**asdict(added), "path": str(added.path)})
        return
    verdict = {
        True: "It is the official file, by its MD5.",
        False: "It is not the official file: its MD5 differs. It was read without error and is used as it is.",
        None: "There is no official checksum to compare it with.",
    }[added.official]
    console().print(f"{name}: {added.rows:,} ratings, SHA-256 {added.sha256}\n{verdict}\n{added.path}", soft_wrap=True)


@app.command("prepare")
def prepare(
    source: Source,
    settings: options.Set = None,
    user: options.User = None,
    item: options.Item = None,
    time: options.Time = None,
    time_unit: options.TimeUnit = None,
    as_json: options.Json = False,
) -> None:
    """Filter, order and split a log; print the folder. Repeating it costs nothing."""
    _show(source, settings, options.columns(user, item, time, time_unit), as_json, folder_last=True)


@app.command("describe")
def describe(
    source: Source,
    settings: options.Set = None,
    user: options.User = None,
    item: options.Item = None,
    time: options.Time = None,
    time_unit: options.TimeUnit = None,
    as_json: options.Json = False,
) -> None:
    """What is in a prepared data set."""
    _show(source, settings, options.columns(user, item, time, time_unit), as_json, folder_last=False)


def _show(source: str, settings: list[str] | None, columns: dict[str, str], as_json: bool, folder_last: bool) -> None:
    from seqrec.cli.show import console, print_json, summary
    from seqrec.data.load import load_data

    given = {key.removeprefix("data."): value for key, value in options.changes(settings).items()}
    data = load_data(source, report=console(stderr=True).print, **given, **columns)
    if as_json:
        print_json({**data.facts, "folder": str(data.folder)})
        return
    console().print(summary(data.facts))
    if folder_last:
        console().print(str(data.folder))
