"""seqrec recommend: what somebody with this history would like next."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from seqrec.cli import options


def recommend(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    history: Annotated[list[str], typer.Argument(help="Ids or titles, oldest first.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """Recommend for any history, also of somebody who was never in the data."""
    from seqrec.cli.show import console, new_table, print_json
    from seqrec.recommendation.recommender import Recommender

    recommender = Recommender.load(run, device)
    if recommender.scorer.uses_times:
        typer.echo("note: this model looks at times, and here none is known; see recommend(times=...)", err=True)
    found = recommender.recommend(history, k)
    if as_json:
        print_json([asdict(item) for item in found])
        return
    table = new_table("", "title", "year", "categories", "score", "probability")
    for place, item in enumerate(found, 1):
        probability = "" if item.probability is None else f"{item.probability:.2%}"
        year = "" if item.year is None else str(item.year)
        table.add_row(str(place), item.title, year, ", ".join(item.categories), f"{item.score:.2f}", probability)
    console().print(table)
