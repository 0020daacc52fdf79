"""What is printed: tables on a terminal, the same in plain characters elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seqrec.recommendation.showcase import Example

#: Accuracy and catalogue measures that a table of models shows.
COLUMNS = ("recall@10", "ndcg@10", "mrr@10", "precision@10", "coverage@10", "gini@10", "mean_popularity@10")
TITLES = {
    "recall": "Recall",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "precision": "Prec.",
    "coverage": "Coverage",
    "gini": "Gini",
    "mean_popularity": "Pop.",
}
#: A strong classical baseline by data set and k-core: its name and its published test NDCG@10 (not measured here).
YARDSTICKS = {("ml-100k", 5): ("EASE with recency decay", 0.1017)}
#: With one target per case these equal recall and MRR, and are printed once.
EQUAL_TO_OTHERS = ("hit_rate", "map")
#: What the short titles leave out.
LEGEND = (
    "With one target Recall is also the hit rate, and MRR the MAP. Coverage: share of the catalogue shown. "
    "Gini: 0 if all items are shown alike. Pop.: mean training count of what is shown."
)


def console(stderr: bool = False) -> Console:
    """Where text goes. A file or pipe gets 120 columns and no colours; `[rec]` is a title and no markup."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 120
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def new_table(*headers: str, **options: Any) -> Table:
    """An empty table; in plain characters where nobody looks at a terminal."""
    style = box.HEAVY_HEAD if sys.stdout.isatty() else box.ASCII2
    return Table(*headers, box=style, title_justify="left", **options)


def summary(facts: Mapping[str, Any]) -> Table:
    """The data set in one table."""
    length = facts["length"]
    rows = {
        "users": f"{facts['users']:,}",
        "items": f"{facts['items']:,}",
        "events": f"{facts['events']:,} of {facts['source_events']:,} in the source ({facts['kept']})",
        "density": f"{facts['density']:.2%}",
        "history length": f"{length['min']} to {length['max']}, mean {length['mean']:.1f}, median {length['median']:g}",
        "time": f"{facts['first']} to {facts['last']}" if "first" in facts else "order only, no clock times",
        "repeats": _repeats(facts),
        "split": facts["split"],
        **{f"{part} targets": _targets(facts[part]) for part in ("validation", "test")},
        "target hash": facts["test_targets"][:16],
    }
    table = new_table(title=f"Data: {facts['name']}", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _repeats(facts: Mapping[str, Any]) -> str:
    if facts["repeats"] == "first":
        return "the first event of each user and item is kept"
    share = f"kept: {facts['repeated_events']:.1%} of events repeat an item of the history"
    return f"{share}, {facts['duplicate_rows']:,} its time too"


def _targets(part: Mapping[str, Any]) -> str:
    shares = f"{part['tied']:.1%} tied in time with the event before (file order decides)"
    return f"{part['cases']:,}; {part['cold']:.1%} cold, {part['repeated']:.1%} repeated, {shares}"


def metrics_table(
    rows: Sequence[tuple[str, Mapping[str, float], float | None]], protocol: str, title: str, remark: str = ""
) -> Table:
    """One line per model: (name, test measures, validation NDCG@10 or None)."""
    table = new_table(title=title, caption=f"Protocol: {protocol}. {LEGEND}{remark}", caption_justify="left")
    table.add_column("model")
    for column in COLUMNS:
        name, _, k = column.partition("@")
        table.add_column(f"{TITLES[name]}@{k}", justify="right")
    table.add_column("valid. NDCG@10", justify="right")
    for name, metrics, validation in rows:
        cells = [_number(metrics[column]) for column in COLUMNS]
        table.add_row(name, *cells, "" if validation is None else _number(validation))
    return table


def against_yardstick(facts: Mapping[str, Any], model: str, ndcg: float) -> str:
    """How far a model is above or below the known baseline of its data set; empty where there is none."""
    if (facts["name"], facts["k_core"]) not in YARDSTICKS:
        return ""
    name, value = YARDSTICKS[facts["name"], facts["k_core"]]
    side = "above" if ndcg >= value else "below"
    return f" Published for {name}: NDCG@10 {value:.4f}; {model} is {abs(ndcg - value):.4f} {side} it."


def all_metrics_table(metrics: Mapping[str, float], title: str) -> Table:
    """Every measure at every cut-off."""
    names = list(dict.fromkeys(name.partition("@")[0] for name in metrics))
    ks = list(dict.fromkeys(name.partition("@")[2] for name in metrics))
    table = new_table(title=title)
    table.add_column("measure")
    for k in ks:
        table.add_column(f"@{k}", justify="right")
    for name in names:
        if name not in EQUAL_TO_OTHERS:
            table.add_row(TITLES.get(name, name), *(_number(metrics[f"{name}@{k}"]) for k in ks))
    return table


def breakdown_table(groups: Mapping[str, Mapping[str, float]], title: str) -> Table:
    """Accuracy and shares by popularity of the target or length of the history."""
    columns = list(dict.fromkeys(column for group in groups.values() for column in group))
    table = new_table(title=title)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, group in groups.items():
        table.add_row(name, *(_number(group[column]) if column in group else "" for column in columns))
    return table


def example(found: Example) -> list[Table | Text]:
    """One sample user: history, recommendations, and whether the next item was hit."""
    seen = Text(f"User {found.user} last saw: " + " · ".join(found.seen))
    table = new_table()
    for name, justify in (
        ("", "right"),
        ("recommended", "left"),
        ("genres", "left"),
        ("logit", "right"),
        ("prob.", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for place, item in enumerate(found.recommended, 1):
        title = item.title if item.year is None else f"{item.title} ({item.year})"
        probability = "" if item.probability is None else f"{item.probability:.2%}"
        mark = "→ " if place == found.place else ""
        table.add_row(str(place), mark + title, ", ".join(item.categories), f"{item.score:.2f}", probability)
    verdict = f"hit at place {found.place}" if found.place else "not among these"
    return [seen, table, Text(f"Saw next: {found.target} ({verdict})\n")]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.4f}"
