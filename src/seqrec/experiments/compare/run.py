"""A whole comparison: plan, run, judge, write."""

from __future__ import annotations

from pathlib import Path

import yaml

from seqrec.experiments.compare.config import CompareConfig
from seqrec.experiments.compare.judge import Judged, judge_predictions, judge_row, require_same_targets, tests_of
from seqrec.experiments.compare.plan import Part, Report, plan
from seqrec.experiments.compare.runner import Runner
from seqrec.experiments.compare.table import Comparison, Row, Test
from seqrec.experiments.compare.write import write_report
from seqrec.experiments.environment import choose_device, environment
from seqrec.experiments.run import Run
from seqrec.files import atomic_file


def compare(
    config: CompareConfig,
    out: Path,
    jobs: int | None = None,
    device: str = "auto",
    report: Report = lambda line: None,
) -> Comparison:
    """Make every run of a comparison that is not there yet, judge them, and write the report into `out`.

    Args:
        jobs: runs at a time; by itself one on a CPU, a few on each GPU.
        device: `auto` (all GPUs, where there are any), `cpu`, `cuda`, `cuda:1`.
        report: is told of progress, line by line.

    Raises:
        ConfigError: a setting is wrong, or a run of other settings is in the way.
        DataError: data cannot be prepared, or rows were judged on different targets.
        ComparisonInterrupted: on Ctrl-C or SIGTERM; the same call goes on.
    """
    parts = plan(config, report)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(out / "comparison.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    runner = Runner(out, jobs, device, report)
    planned = [job for part in parts for row in part.rows for job in row.jobs]
    runner.run([job for job in planned if job.config is not None])
    runner.run([job for job in planned if job.config is None and not set(job.members) & set(runner.failures)])
    rows: list[Row] = []
    tests: list[Test] = []
    for part in parts:
        judged = _judged(part, config, runner)
        require_same_targets(judged)
        tests += tests_of(judged, config)
        rows += sorted((found.row for found in judged), key=lambda row: -_validation(row, config.metric))
    comparison = Comparison(
        name=config.name,
        metric=config.metric,
        alpha=config.alpha,
        rows=tuple(rows),
        tests=tuple(tests),
        failures=tuple(f"{name}: {why}" for name, why in runner.failures.items()),
        protocols={f"{part.label}, {part.split}": part.words for part in parts},
        device=str(environment(choose_device(device))["device"]),
    )
    write_report(comparison, out)
    return comparison


def _judged(part: Part, config: CompareConfig, runner: Runner) -> list[Judged]:
    """Rows whose runs are all there, as planned; then the lists that others made."""
    found = []
    for row in part.rows:
        folders = [runner.folder(job.folder) for job in row.jobs]
        if all((folder / "results.json").exists() for folder in folders):
            runs = [Run(folder) for folder in folders]
            found.append(judge_row(row, runs, config.metric, max(runner.beside(job.folder) for job in row.jobs)))
    return found + [judge_predictions(part, entry, config.metric) for entry in config.predictions]


def _validation(row: Row, metric: str) -> float:
    """Lists that others made have none: they stand last."""
    return row.validation[metric].mean if row.validation else -1.0
