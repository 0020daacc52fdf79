"""seqrec train: data set and model in, a run folder and recommendations out."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqrec.cli import options
from seqrec.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from seqrec.data.prepared import PreparedData
    from seqrec.distributed import Ranks
    from seqrec.experiments.config import RunConfig
    from seqrec.experiments.run import Run


def train(
    data: Annotated[
        str, typer.Argument(help="A data set (see `seqrec data list`) or the path of a table.")
    ] = "ml-100k",
    model: Annotated[str, typer.Argument(help="A model's name, or my_package.my_module:MyModel.")] = "xlstm",
    preset: options.Preset = None,
    settings: options.Set = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed; give it several times to repeat the run.")] = None,
    seeds: Annotated[bool, typer.Option("--seeds", help="Repeat with seeds 42, 123 and 2023.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/... when not given.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with an interrupted run; nothing else is needed.")] = None,
    baselines: Annotated[str, typer.Option(help="Models to set beside it, or none.")] = "popularity,markov",
    examples: Annotated[int, typer.Option(min=0, help="How many sample users to show.")] = 3,
    device: options.Device = "auto",
    compile_: Annotated[
        str | None,
        typer.Option("--compile", help="auto: record steps as CUDA graphs on a GPU; off: run them one by one."),
    ] = None,
    user: options.User = None,
    item: options.Item = None,
    time: options.Time = None,
    time_unit: options.TimeUnit = None,
    as_json: options.Json = False,
) -> None:
    """Train a model, choose the epoch on validation, score the test once, and show recommendations."""
    from seqrec.cli.show import console, print_json, summary
    from seqrec.distributed import join
    from seqrec.experiments.door import untrained
    from seqrec.experiments.run import Run
    from seqrec.experiments.seeds import SEEDS, over_seeds

    screen = console(stderr=as_json)
    names = [untrained(name.strip()) for name in baselines.split(",") if name.strip() not in ("", "none")]
    if out is not None and (seeds or len(seed or []) > 1):
        raise ConfigError("--out names one folder; leave it out when there are several seeds.")
    columns = options.columns(user, item, time, time_unit)
    changes = options.changes(settings) | {f"data.{name}": value for name, value in columns.items()}
    if compile_ is not None:
        changes["training.compile"] = compile_
    if resume is not None and changes:
        raise ConfigError(f"--resume goes on with the settings of the run: leave out {', '.join(changes)}.")
    with join(device) as ranks:
        screen.quiet = not ranks.is_main
        config, prepared = ranks.first_here(lambda: _prepared(data, model, preset, changes, resume, screen))
        screen.print(summary(prepared.facts))
        numbers = [config.seed] if resume else SEEDS if seeds else seed or [config.seed]
        configs = [replace(config, seed=number) for number in numbers]
        folders = [_fit(screen, config, prepared, resume or out, device, ranks) for config in configs]
    if not ranks.is_main:
        return
    runs = [Run(folder) for folder in folders]
    beside = [_beside(name, prepared, runs[0]) for name in names if name != runs[0].config.model_name]
    _report(screen, runs, beside, prepared, examples)
    if as_json:
        over = {metric: asdict(over_seeds(runs, metric)) for metric in runs[0].metrics}
        each = [{"run": str(run.path), "seed": run.config.seed, **run.results} for run in runs]
        print_json({"runs": each, "over_seeds": over})


def _prepared(
    data: str, model: str, preset: str | None, changes: dict[str, Any], resume: Path | None, screen: Console
) -> tuple[RunConfig, PreparedData]:
    """What is trained on what: of the run to go on with, or as the options say."""
    from seqrec.experiments.door import prepare_run, run_data
    from seqrec.experiments.run import Run

    if resume is not None:
        return Run(resume).config, run_data(Run(resume))
    return prepare_run(data, model, preset, changes, screen.print)


def _fit(screen: Console, config: RunConfig, data: PreparedData, out: Path | None, device: str, ranks: Ranks) -> Path:
    """The folder of the finished run."""
    from seqrec.cli.progress import LiveProgress
    from seqrec.experiments.door import default_folder
    from seqrec.experiments.fit import fit_together

    out = ranks.of_main(out or default_folder(config))
    shared = f" with {ranks.size} processes" if ranks.size > 1 else ""
    screen.print(f"Training {config.model_name} on {data.name}, seed {config.seed}{shared}, into {out}", soft_wrap=True)
    progress = LiveProgress(screen, config.training.metric)
    try:
        fit_together(config, data, out, [progress], device, ranks)
    finally:
        progress.close()
    return out


def _beside(name: str, data: PreparedData, run: Run) -> tuple[str, Any, float]:
    from seqrec.evaluation.evaluator import Evaluator
    from seqrec.experiments.door import fitted

    scorer, evaluator = fitted(name, data), Evaluator(data, run.config.evaluation)
    validation = evaluator.evaluate(scorer, "validation").metrics["ndcg@10"]
    return name, evaluator.evaluate(scorer, "test").metrics, validation


def _report(screen: Console, runs: list[Run], beside: list[Any], data: PreparedData, users: int) -> None:
    from seqrec.cli.show import against_yardstick, example, metrics_table
    from seqrec.experiments.seeds import over_seeds
    from seqrec.recommendation.showcase import examples

    rows = [(_name(run, runs), run.metrics, run.validation["ndcg@10"]) for run in runs] + beside
    protocol = runs[0].results["test"]["protocol"]
    yardstick = against_yardstick(data.facts, rows[0][0], rows[0][1]["ndcg@10"])
    title = f"Test, {data.name}, {len(data.cases('test')):,} cases, scored once"
    screen.print(metrics_table(rows, protocol, title, yardstick))
    if len(runs) > 1:
        for metric in ("ndcg@10", "recall@10", "mrr@10"):
            screen.print(f"{metric} over {len(runs)} seeds: {over_seeds(runs, metric)}")
    for found in examples(runs[0].recommender(), data, users):
        screen.print(*example(found), sep="\n")
    screen.print(f"Kept in {runs[0].path}. Recommend with: seqrec recommend {runs[0].path} TITLE ...", soft_wrap=True)


def _name(run: Run, runs: list[Run]) -> str:
    return run.config.model_name if len(runs) == 1 else f"{run.config.model_name}, seed {run.config.seed}"
