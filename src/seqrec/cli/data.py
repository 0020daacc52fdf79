"""seqrec data: get a log, sample it, prepare it, look at it, hand it on."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqrec.cli import options
from seqrec.cli.data_export import export
from seqrec.cli.data_sample import sample

if TYPE_CHECKING:
    from seqrec.data.prepared import PreparedData

app = typer.Typer(help="List, add, sample, prepare, describe and export data sets.", no_args_is_help=True)
Source = Annotated[str, typer.Argument(help="A data set, a table, or a folder of Parquet or RecBole files.")]
Html = Annotated[Path | None, typer.Option(help="Write the report as one page to this file.")]
Spark = Annotated[str | None, typer.Option(metavar="MASTER", help="Where Spark runs: local[4], spark://host:7077.")]
Order = Annotated[bool, typer.Option(help="Measure how sequential the log is, which takes most of the time.")]


@app.command("list")
def list_sources(
    text: Annotated[str, typer.Argument(help="Only names that contain this, each on its line.")] = "",
    as_json: options.Json = False,
) -> None:
    """The data sets that have a name, and whether they are here."""
    from seqrec.cli.show import console, new_table, print_json
    from seqrec.data.download import cache_folder
    from seqrec.data.load import raw_files
    from seqrec.data.sources import BY_HAND, SOURCES

    here = {name: bool(raw_files(name)) for name in SOURCES if text in name}
    if as_json:
        print_json([{"name": name, "here": found} for name, found in here.items()])
        return
    table, folded = new_table("data set", "here", title=f"Cache: {cache_folder()}"), Counter[str]()
    for name, found in here.items():
        if not found and not text and (family := re.match(r"amazon-\d{4}-", name)):
            folded[family[0]] += 1
            continue
        absent = f"get it by hand, then: seqrec data add {name} PATH" if name in BY_HAND else "fetched when needed"
        table.add_row(name, "yes" if found else absent)
    for start, count in folded.items():
        table.add_row(f"{start}... ({count})", f"fetched when needed; names: seqrec data list {start[:-1]}")
    console().print(table)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Which data set the file is.")],
    path: Annotated[Path, typer.Argument(help="The archive, file or folder you have.")],
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
    console().print(f"{name}: {added.rows:,} events, SHA-256 {added.sha256}\n{verdict}\n{added.path}", soft_wrap=True)


app.command("sample")(sample)


@app.command("prepare")
def prepare(
    source: Source,
    settings: options.Set = None,
    user: options.User = None,
    item: options.Item = None,
    time: options.Time = None,
    time_unit: options.TimeUnit = None,
    spark: Spark = None,
    as_json: options.Json = False,
) -> None:
    """Filter, order and split a log; print the folder. Repeating it costs nothing."""
    from seqrec.cli.show import console, print_json, summary

    data = _load(source, settings, options.columns(user, item, time, time_unit), spark)
    if as_json:
        print_json({**data.facts, "folder": str(data.folder)})
        return
    console().print(summary(data.facts))
    console().print(str(data.folder), soft_wrap=True)


@app.command("describe")
def describe(
    source: Source,
    html: Html = None,
    order: Order = True,
    settings: options.Set = None,
    user: options.User = None,
    item: options.Item = None,
    time: options.Time = None,
    time_unit: options.TimeUnit = None,
    as_json: options.Json = False,
) -> None:
    """What is in a log: lengths, popularity, time, ties, repeats, targets, and how sequential it is."""
    from dataclasses import asdict

    from seqrec.analysis.data_page import write_html
    from seqrec.analysis.data_report import data_report
    from seqrec.analysis.data_terminal import terminal
    from seqrec.cli.show import console, print_json, summary

    data = _load(source, settings, options.columns(user, item, time, time_unit))
    report = data_report(data, order=order)
    if html is not None:
        write_html(report, html)
    if as_json:
        print_json({**data.facts, "folder": str(data.folder), "report": asdict(report)})
        return
    screen = console()
    screen.print(summary(data.facts))
    screen.print(*terminal(report, plain=not screen.is_terminal), sep="\n")
    if html is not None:
        screen.print(f"Written to {html}", soft_wrap=True)


app.command("export")(export)


def _load(source: str, settings: list[str] | None, columns: dict[str, Any], spark: str | None = None) -> PreparedData:
    from seqrec.cli.show import console
    from seqrec.data.config import DataConfig
    from seqrec.data.load import load_data, prepare_source_on_spark

    given = {key.removeprefix("data."): value for key, value in options.changes(settings).items()} | columns
    if spark is not None:
        return prepare_source_on_spark(DataConfig.parse({**given, "source": source}, "data."), spark)
    return load_data(source, report=console(stderr=True).print, **given)
