"""The command line. One file per verb: it parses, calls and prints; the work is done elsewhere."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from typing import Annotated

import typer

from seqrec.cli import (
    ablate,
    bench,
    compare,
    data,
    doctor,
    ensemble,
    estimate,
    evaluate,
    recommend,
    runs,
    soup,
    train,
    tune,
)
from seqrec.errors import SeqrecError
from seqrec.version import VERSION

app = typer.Typer(
    name="seqrec",
    help="Sequential recommendation: prepare a log, train, compare, recommend.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data.app, name="data")
app.add_typer(runs.app, name="runs")
app.command("train")(train.train)
app.command("tune")(tune.tune)
app.command("estimate")(estimate.estimate)
app.command("bench")(bench.bench)
app.command("evaluate")(evaluate.evaluate)
app.command("ensemble")(ensemble.ensemble)
app.command("soup")(soup.soup)
app.command("compare")(compare.compare)
app.command("ablate")(ablate.ablate)
app.command("recommend")(recommend.recommend)
app.command("doctor")(doctor.doctor)


def _version(asked: bool) -> None:
    if asked:
        print(VERSION)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; errors of ours are one message and an exit code, not a stack trace."""
    sys.path.append(os.getcwd())  # so that my_module:MyModel is found beside the user
    warnings.showwarning = lambda message, *rest: print(f"warning: {message}", file=sys.stderr)
    try:
        app()
    except SeqrecError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print("error: the disk is full. Free some space and repeat; a run goes on with --resume.", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
