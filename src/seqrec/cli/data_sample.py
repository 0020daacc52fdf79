"""seqrec data sample: a smaller log out of a large one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqrec.cli import options
from seqrec.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from rich.table import Table

    from seqrec.data.profile import Profile

Source = Annotated[str, typer.Argument(help="A table, a folder of Parquet parts or RecBole files, or a data set.")]
Out = Annotated[Path, typer.Option(help="A folder that does not exist yet.")]
Steps = Annotated[
    list[str] | None,
    typer.Option(
        "--step",
        metavar="NAME=VALUE",
        help="One of users=0.05, min_events=5, min_item_events=5, cap=1000 (first events), last=200, since=2019-01-01, "
        "until=2020-01-01, rows=0.01, stratified=0.1,by=item, every=10,offset=3. Repeat it; the order counts.",
    ),
]
Recipe = Annotated[str | None, typer.Option(help="music4all: min_events=5, cap=1000, users=0.05.")]
Seed = Annotated[int, typer.Option(help="For steps that are random.")]
Memory = Annotated[str, typer.Option(help="What DuckDB may use; beyond it, it works on the disk of the cache.")]


def sample(
    source: Source,
    out: Out,
    step: Steps = None,
    recipe: Recipe = None,
    seed: Seed = 42,
    memory: Memory = "4GB",
    user: options.User = None,
    item: options.Item = None,
    time: options.Time = None,
    time_unit: options.TimeUnit = None,
    as_json: options.Json = False,
) -> None:
    """Sample a log of any size into a folder of Parquet parts, and show it before and after."""
    from seqrec.cli.show import console, print_json
    from seqrec.data.sampling import sample as take_sample
    from seqrec.files import read_json

    found = take_sample(
        source,
        out,
        _steps(step, recipe),
        seed=seed,
        memory=memory,
        report=console(stderr=True).print,
        **options.columns(user, item, time, time_unit),
    )
    if as_json:
        print_json({"folder": str(found.folder), **read_json(found.folder / "_sample.json")})
        return
    show = console()
    show.print(_table(found.before, found.after, f"Sample: {source}"))
    for taken in found.steps:
        show.print(f"{taken}: {taken.effect}", soft_wrap=True)
    for note in _notes(found.before, found.after):
        show.print(note, soft_wrap=True)
    show.print(str(found.folder), soft_wrap=True)


def _steps(steps: list[str] | None, recipe: str | None) -> list[str]:
    from seqrec.data.sampling import RECIPES

    if recipe is None:
        return steps or []
    if steps:
        raise ConfigError("--recipe stands for steps of its own; give it or --step, not both.")
    if recipe not in RECIPES:
        raise unknown_name("recipe", recipe, RECIPES)
    return list(RECIPES[recipe])


def _table(before: Profile, after: Profile, title: str) -> Table:
    from seqrec.cli.show import new_table

    table = new_table(title=title)
    for name in ("", "before", "after"):
        table.add_column(name, justify="right" if name else "left")
    for (name, was), now in zip(_cells(before).items(), _cells(after).values(), strict=True):
        table.add_row(name, was, now)
    return table


def _cells(found: Profile) -> dict[str, str]:
    per_user = found.events_per_user
    return {
        "rows": f"{found.rows:,}",
        "users": f"{found.users:,}",
        "items": f"{found.items:,}",
        "first event": _time(found.first, found),
        "last event": _time(found.last, found),
        "events per user": f"{per_user['min']:,} to {per_user['max']:,}, mean {per_user['mean']:,.1f}",
        "density (events / users x items)": f"{found.density:.3%}",
        "popularity Gini over items": f"{found.gini:.3f}",
        "repeated (user, item) pairs": f"{'' if found.repeated_exact else '≈'}{found.repeated:.1%} of events",
    }


def _time(moment: Any, found: Profile) -> str:
    from seqrec.data.profile import date

    return date(moment) if found.clock else f"{moment}"


def _notes(before: Profile, after: Profile) -> list[str]:
    from seqrec.data.profile import EXACT_PAIRS

    notes = []
    if not (before.repeated_exact and after.repeated_exact):
        notes.append(f"≈ above {EXACT_PAIRS:,} rows: pairs are counted in a sixteenth of them, chosen by hash.")
    if not before.clock:
        notes.append("Times are order numbers here: read the sample with --time-unit order, too, and the same --time.")
    return notes
