"""From a comparison to its runs: every setting is checked before the first one starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from seqrec.data.load import load_data
from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError, DataError
from seqrec.evaluation.evaluation import Evaluation
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.evaluation.predictions import Predictions
from seqrec.experiments.compare.config import CompareConfig, DataEntry, EnsembleEntry, ModelEntry, PredictionsEntry
from seqrec.experiments.compare.table import row_name
from seqrec.experiments.config import RunConfig, presets
from seqrec.experiments.door import prepare_run, source_name
from seqrec.models.base import SequenceModel
from seqrec.models.build import is_stochastic, parse_model

Report = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One run: a model trained or fitted, or finished runs fused.

    Attributes:
        folder: name of the run's folder.
        config: settings; None for an ensemble, which takes its members'.
        data: the prepared folder.
        members: names of the runs an ensemble is made of.
    """

    folder: str
    config: RunConfig | None
    data: Path
    members: tuple[str, ...] = ()
    fusion: str = ""


@dataclass(frozen=True)
class PlannedRow:
    """A row of the table to come: the same settings with several seeds."""

    data: str
    split: str
    label: str
    varied: Mapping[str, Any]
    seeds: tuple[int, ...]
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Part:
    """One data set under one split, its rows, and the lists that others made, by label."""

    label: str
    split: str
    data: PreparedData
    rows: tuple[PlannedRow, ...]
    protocol: EvaluationConfig
    lists: tuple[tuple[str, Evaluation], ...]

    @property
    def words(self) -> str:
        """How its numbers are measured."""
        return Evaluator(self.data, self.protocol).protocol


def plan(config: CompareConfig, report: Report = lambda line: None) -> list[Part]:
    """Prepare the data and lay out every run.

    Raises:
        ConfigError: a setting that a model does not take, or an ensemble of models that vary differently.
        DataError: the data cannot be prepared.
    """
    parts = []
    for entry in config.data:
        for split in config.splits or (None,):
            asked = entry.settings | ({"split": split} if split else {})
            data = load_data(entry.source, report=report, **asked)
            parts.append(_part(config, entry, data))
    _require_different(parts)
    return parts


def _require_different(parts: list[Part]) -> None:
    """No two rows share a name or a folder, on no file system."""
    names: dict[str, str] = {}
    for row in (row for part in parts for row in part.rows):
        name = f"{row.data}, {row.split}: {row_name(row.label, row.varied)}"
        for key in (name, *(job.folder.casefold() for job in row.jobs)):
            if key in names:
                raise ConfigError(
                    f"{names[key]} and {name} would share a name or a folder. Give one of them a `label`."
                )
        names |= dict.fromkeys((name, *(job.folder.casefold() for job in row.jobs)), name)


def _part(config: CompareConfig, entry: DataEntry, data: PreparedData) -> Part:
    label, split = entry.label or source_name(data), str(data.facts["config"]["split"])
    rows = [row for model in config.models for row in _model_rows(config, model, label, split, data)]
    rows += [row for ensemble in config.ensembles for row in _ensemble_rows(ensemble, rows, data)]
    protocols = {job.config.evaluation for row in rows for job in row.jobs if job.config}
    if len(protocols) > 1:
        raise ConfigError("models: `evaluation.` settings differ between models; one table has one protocol.")
    protocol = protocols.pop()
    if int(config.metric.partition("@")[2]) not in protocol.ks:
        raise ConfigError(
            f"metric: {config.metric} needs that cut-off in evaluation.ks, which are {list(protocol.ks)}."
        )
    lists = [(entry.label, _lists(entry, data, protocol, config.metric)) for entry in config.predictions]
    return Part(label, split, data, tuple(rows), protocol, tuple(lists))


def _lists(entry: PredictionsEntry, data: PreparedData, protocol: EvaluationConfig, metric: str) -> Evaluation:
    """What the lists of a file are worth, found out before anything is trained."""
    found = Evaluator(data, protocol).evaluate(Predictions.read(Path(entry.file), data), "test")
    if metric not in found.metrics:
        raise DataError(
            f"{entry.file}: its lists are too short for {metric}. Write longer ones, or compare by another."
        )
    return found


def _model_rows(
    config: CompareConfig, entry: ModelEntry, data_label: str, split: str, data: PreparedData
) -> Iterator[PlannedRow]:
    trained = issubclass(parse_model({"name": entry.model})[0], SequenceModel)
    settings = (config.settings if trained else {}) | entry.settings
    preset = entry.preset or _preset_of_split(data, entry.model, split)
    vary = _taken(config.vary, entry.model) if entry.vary is None else entry.vary
    for varied in _choices(vary):
        try:
            run, _ = prepare_run(data, entry.model, preset, settings | varied)
        except ConfigError as error:
            raise ConfigError(f"models, {entry.name}: {error}") from None
        seeds = config.seeds if is_stochastic(run.to_dict()["model"]) else config.seeds[:1]
        jobs = [
            Job(_folder(data_label, split, entry.name, varied, seed), replace(run, seed=seed), data.folder)
            for seed in seeds
        ]
        yield PlannedRow(data_label, split, entry.name, varied, seeds, tuple(jobs))


def _taken(vary: Mapping[str, tuple[Any, ...]], model: str) -> dict[str, tuple[Any, ...]]:
    """What varies for this model: a setting that it does not have, such as a baseline's `max_length`, does not."""
    fields = {f"model.{name}" for name in parse_model({"name": model})[0].Config.model_fields}
    return {key: values for key, values in vary.items() if not key.startswith("model.") or key in fields}


def _preset_of_split(data: PreparedData, model: str, split: str) -> str | None:
    """The variant chosen for a split, where one is shipped: `ml-100k/xlstm.temporal`."""
    return split if f"{source_name(data)}/{model}.{split}" in presets() else None


def _choices(vary: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Every combination of the varied settings; one empty choice where nothing varies."""
    return [dict(zip(vary, values, strict=True)) for values in product(*vary.values())]


def _ensemble_rows(entry: EnsembleEntry, rows: list[PlannedRow], data: PreparedData) -> Iterator[PlannedRow]:
    """One row for each choice of what varies; a member without chance joins every seed with its one run."""
    members = [[row for row in rows if row.label == label] for label in entry.members]
    if len({str([row.varied for row in found]) for found in members}) > 1:
        raise ConfigError(f"ensembles, {entry.name}: its members do not vary in the same settings.")
    for together in zip(*members, strict=True):
        seeds = max((row.seeds for row in together), key=len)
        first = together[0]
        jobs = []
        for number, seed in enumerate(seeds):
            runs = tuple(row.jobs[min(number, len(row.jobs) - 1)].folder for row in together)
            name = _folder(first.data, first.split, entry.name, first.varied, seed)
            jobs.append(Job(name, None, data.folder, runs, entry.fusion))
        yield PlannedRow(first.data, first.split, entry.name, first.varied, seeds, tuple(jobs))


def _folder(data: str, split: str, label: str, varied: Mapping[str, Any], seed: int) -> str:
    """`ml-100k-leave_one_out-xlstm-max_length=32-42`, in characters that every file system takes."""
    words = [data, split, label, *(f"{key.rpartition('.')[2]}={value}" for key, value in varied.items()), str(seed)]
    return "-".join("".join(c if c.isalnum() or c in "._=+-" else "_" for c in word) for word in words)
