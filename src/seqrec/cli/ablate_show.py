"""An ablation on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from seqrec.cli.compare_show import bullets, drawn, fitted
from seqrec.cli.show import new_table, print_json
from seqrec.experiments.ablate.features import features_of
from seqrec.experiments.ablate.sheets import headline, main, sentences, skipped
from seqrec.experiments.ablate.table import Ablation
from seqrec.experiments.run import Run

#: Columns that go where there is no room, the first first.
SPARE = ("interval there", "p there", "seeds", "on valid.", "setting")


def show_ablation(screen: Console, ablation: Ablation) -> None:
    """Print all of it."""
    screen.print(Text(ablation.label, style="bold"))
    screen.print(headline(ablation))
    screen.print(Text(f"{ablation.protocol}.", style="dim"))
    screen.print(bullets(sentences(ablation)))
    screen.print()
    screen.print(drawn(fitted(main(ablation), screen.width, SPARE)))
    if ablation.skipped:
        screen.print()
        screen.print(drawn(skipped(ablation)))
    if ablation.failures:
        screen.print()
        screen.print(Text("Failed", style="bold red"))
        screen.print(bullets(ablation.failures))


def show_features(screen: Console, run: Run, as_json: bool) -> None:
    """Print what can be switched off in a run, and what cannot."""
    found = features_of(run.config)
    if as_json:
        print_json([{"feature": f.name, "changes": f.changes, "skipped": f.skipped} for f in found])
        return
    if not found:
        screen.print(f"{run.config.model_name} has nothing that can be switched off.")
        return
    table = new_table("feature", "setting", "not switched off, because", title=f"Features of {run.path}")
    for feature in found:
        table.add_row(feature.name, feature.words, Text(feature.skipped))
    screen.print(table)
