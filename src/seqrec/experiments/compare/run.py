"""A whole comparison: plan, run, judge, write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from seqrec.errors import ConfigError
from seqrec.experiments.compare.config import CompareConfig
from seqrec.experiments.compare.judge import Judged, judge_lists, judge_row, require_same_targets, tests_of
from seqrec.experiments.compare.plan import Job, Part, Report, plan
from seqrec.experiments.compare.runner import Runner
from seqrec.experiments.compare.table import Comparison, Row, Test, row_name
from seqrec.experiments.compare.write import write_report
from seqrec.experiments.run import Run
from seqrec.files import atomic_file


def compare(
    comparison: CompareConfig | Mapping[str, Any] | Path | str,
    out: Path | str,
    jobs: int | None = None,
    device: str = "auto",
    report: Report = lambda line: None,
    so_far: bool = False,
) -> Comparison:
    """Make every run of a comparison that is not there yet, judge them, and write the report into `out`.

    Args:
        comparison: a YAML file, or what it would say.
        jobs: runs at a time; by itself one on a CPU, a few on each GPU.
        device: `auto` (all GPUs, where there are any), `cpu`, `cuda`, `cuda:1`.
        report: is told of progress, line by line.
        so_far: make no runs; judge those that are there, rows of which some seeds are missing too.

    Raises:
        ConfigError: a setting is wrong, or a run of other settings is in the way.
        DataError: data cannot be prepared, or rows were judged on different targets.
        ComparisonInterrupted: on Ctrl-C or SIGTERM; the same call goes on.
    """
    config, out = _config(comparison), Path(out)
    parts = plan(config, report)
    make_folder(out)
    with atomic_file(out / "comparison.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    runner = Runner(out, jobs, device, report)
    if not so_far:
        _run([job for part in parts for row in part.rows for job in row.jobs], runner)
    rows: list[Row] = []
    tests: list[Test] = []
    for part in parts:
        judged = _judged(part, config, runner, so_far)
        require_same_targets(judged)
        tests += tests_of(judged, config)
        rows += sorted((found.row for found in judged), key=lambda row: -row.validated(config.metric))
    found = Comparison(
        name=config.name,
        metric=config.metric,
        alpha=config.alpha,
        rows=tuple(rows),
        tests=tuple(tests),
        failures=tuple(f"{name}: {why}" for name, why in runner.failures.items()),
        protocols={f"{part.label}, {part.split}": part.words for part in parts},
        missing=_missing(parts, runner) if so_far else (),
    )
    write_report(found, out)
    return found


def make_folder(out: Path) -> None:
    """Make the folder of the report, if it is not there yet.

    Raises:
        ConfigError: no folder can be there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: no folder can be there ({error.strerror}). Name another.") from None


def _config(comparison: CompareConfig | Mapping[str, Any] | Path | str) -> CompareConfig:
    if isinstance(comparison, CompareConfig):
        return comparison
    return CompareConfig.parse(comparison) if isinstance(comparison, Mapping) else CompareConfig.read(Path(comparison))


def _run(jobs: list[Job], runner: Runner) -> None:
    """Long ones first, so that nothing is waited for in the end; ensembles when their members are there."""
    trained = [job for job in jobs if job.config is not None and job.config.trained]
    runner.run(trained + [job for job in jobs if job.config is not None and not job.config.trained])
    fused = [job for job in jobs if job.config is None]
    for job in fused:
        if failed := [name for name in job.members if name in runner.failures]:
            runner.failures[job.folder] = f"its member {failed[0]} failed"
    runner.run([job for job in fused if job.folder not in runner.failures])


def _judged(part: Part, config: CompareConfig, runner: Runner, so_far: bool) -> list[Judged]:
    """Rows as planned, then the lists that others made. A row that lacks a run is left out, or has fewer seeds."""
    found = []
    for row in part.rows:
        there = [(seed, job) for seed, job in zip(row.seeds, row.jobs, strict=True) if runner.finished(job)]
        if there and (so_far or len(there) == len(row.jobs)):
            runs = [Run(runner.folder(job.folder)) for _, job in there]
            beside = max(runner.beside(job.folder) for _, job in there)
            found.append(judge_row(replace(row, seeds=tuple(seed for seed, _ in there)), runs, config.metric, beside))
    return found + [judge_lists(part, label, lists, config.metric) for label, lists in part.lists]


def _missing(parts: list[Part], runner: Runner) -> tuple[str, ...]:
    """Rows that lack runs, and how many."""
    found = []
    for row in (row for part in parts for row in part.rows):
        lacks = sum(not runner.finished(job) for job in row.jobs)
        if lacks:
            found.append(
                f"{row.data}, {row.split}: {row_name(row.label, row.varied)} lacks {lacks} of {len(row.jobs)} runs"
            )
    return tuple(found)
