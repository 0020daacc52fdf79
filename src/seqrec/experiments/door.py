"""Training and evaluating in one call: what the command line and `seqrec.train` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from torch import nn

from seqrec.data.config import DataConfig
from seqrec.data.load import Report, load_data, prepare_source
from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError, DataError, UnknownNameError
from seqrec.evaluation.evaluation import Evaluation
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.experiments.config import RunConfig, settings_for
from seqrec.experiments.environment import choose_device
from seqrec.experiments.fit import fit, require_same_data
from seqrec.experiments.run import Run
from seqrec.models import MODELS
from seqrec.models.base import Scorer, SequenceModel
from seqrec.models.build import build_model, parse_model
from seqrec.training.tracking import Tracker


def train(
    data: Any,
    model: str | type[Scorer] = "xlstm",
    *,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    trackers: Sequence[Tracker] = (),
    **columns: Any,
) -> Run:
    """Train a model and score the test part once, with the weights that validated best.

    Args:
        data: what `load_data` takes, or what it returned.
        model: a registered name, `my_package.my_module:MyModel`, or a model class.
        preset: a variant of the shipped settings, such as `quick`; `default`: tuned to no data set; `none`: no preset.
        settings: single settings by dotted key, such as `{"model.embedding_dim": 64}`.
        seed: of weights, order and dropout; 42 where `settings` do not say.
        out: the run's folder; `runs/<data>-<model>-<seed>-<time>` when None.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        columns: as in `load_data`: columns of tables, filters, and the split.

    Returns:
        The finished run.
    """
    changes = {**(settings or {}), **{f"data.{key}": value for key, value in columns.items()}}
    name = model if isinstance(model, str) else f"{model.__module__}:{model.__qualname__}"
    config, prepared = prepare_run(data, name, preset, changes | ({} if seed is None else {"seed": seed}))
    return fit(config, prepared, Path(out) if out else default_folder(config), trackers, device)


def prepare_run(
    data: Any, model: str, preset: str | None, changes: Mapping[str, Any], report: Report = lambda line: None
) -> tuple[RunConfig, PreparedData]:
    """The validated settings of a run, and its data. Settings are checked before any data is read.

    Raises:
        ConfigError: a setting is wrong, or is one of data that are prepared already.
    """
    if "data.source" in changes:
        raise ConfigError("data.source: name the data as the first argument instead.")
    config = RunConfig.from_dict(settings_for(source_name(data), model, preset, changes))
    asked = config.data.model_dump(include=config.data.model_fields_set - {"source"})
    if not isinstance(data, PreparedData):
        data = load_data(data, report=report, **asked)
    elif other := [name for name in asked if getattr(config.data, name) != getattr(_kept(data), name)]:
        raise ConfigError(f"These data are prepared already; give {', '.join(other)} to load_data instead.")
    asked = config.evaluation.model_dump(include=config.evaluation.model_fields_set)
    evaluation = EvaluationConfig.parse(_protocol(data) | asked, "evaluation.")
    return replace(config, data=_kept(data), evaluation=evaluation), data


def _kept(data: PreparedData) -> DataConfig:
    """How the data were prepared."""
    return DataConfig.parse(data.facts["config"], "data.")


def _protocol(data: PreparedData) -> dict[str, Any]:
    """What the log asks of the protocol: where people come back to the same item, seen ones are recommended too."""
    revisited = data.facts.get("revisits") and data.facts.get("repeats") == "keep"
    return {"filter_seen": False} if revisited else {}


def evaluate(
    scorer: Scorer | Run | str | Path,
    data: Any = None,
    part: str = "test",
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Judge a scorer, a registered baseline or a run under the one protocol.

    Args:
        scorer: an object that scores, the name of a model that needs no training (`popularity`, `markov`), or a run
            or its folder.
        data: what `load_data` takes or returned. A run brings its own.
        part: `validation` or `test`.
        settings: fields of `EvaluationConfig`, such as `{"filter_seen": False}`; otherwise the defaults or the run's.

    Raises:
        ConfigError: no such part or setting, data for a run and none for anything else, or the name of a model that
            has to be trained.
    """
    where = choose_device(device)
    if isinstance(scorer, (str, Path)):
        scorer = named(scorer, data is not None)
    if isinstance(scorer, Run):
        if data is not None:
            raise ConfigError("A run is judged on the data it was made on; leave `data` out.")
        prepared, base = run_data(scorer), scorer.config.evaluation.model_dump()
        model: Scorer = scorer.recommender(str(where)).scorer
    else:
        if data is None:
            raise ConfigError("`data` is missing: only a run brings its own. Give it a name, a path or a frame.")
        prepared = data if isinstance(data, PreparedData) else load_data(data)
        base = _protocol(prepared)
        model = scorer if isinstance(scorer, Scorer) else fitted(scorer, prepared)
        if isinstance(model, nn.Module):
            model.to(where)
    protocol = EvaluationConfig.parse({**base, **(settings or {})}, "evaluation.")
    return Evaluator(prepared, protocol, where).evaluate(model, part)


def named(what: str | Path, on_data: bool = False) -> Run | str:
    """The run in the folder `what`, or the name of a model that needs no training.

    Args:
        on_data: data are named too, so that a model's name means the model even beside a folder that is called so.

    Raises:
        ConfigError: it is a file, nothing of that name, or a model that has to be trained.
        RunFolderError: it is a folder and no run.
    """
    path, name = Path(what), str(what)
    if path.is_dir() and not (name in MODELS and (on_data or not (path / "run.json").is_file())):
        return Run(path)
    if path.is_file():
        raise ConfigError(f"{name} is a file and no run.")
    if ":" not in name and (path.suffix or path.name != name):
        raise ConfigError(f"{name}: there is no such file or folder.")
    return untrained(name)


def fitted(name: str, data: PreparedData, settings: Mapping[str, Any] | None = None) -> Scorer:
    """A registered model with the settings that are shipped for the data, or others, fitted on the training part.

    Raises:
        ConfigError: no such setting, or the model is trained by gradient: fitting alone would leave it random.
    """
    shipped = settings_for(data.name, untrained(name))["model"]
    return build_model({**shipped, **(settings or {})}, data.sequences.num_items).fit_data(data)


def untrained(name: str) -> str:
    """The name, if it is that of a model that needs no training; see `fitted`."""
    if issubclass(parse_model({"name": name})[0], SequenceModel):
        raise ConfigError(f"{name} has to be trained before it is judged: seqrec train DATA {name}")
    return name


def run_data(run: Run) -> PreparedData:
    """The prepared data a run was made on, prepared again if its folder is gone.

    Raises:
        DataError: what is there now is not what the run was judged on.
    """
    kept = run.facts["data"]
    folder = Path(kept["folder"])
    try:
        data = PreparedData.load(folder) if folder.exists() else prepare_source(run.config.data)
    except UnknownNameError as error:
        source = run.config.data.source
        raise DataError(
            f"The data of {run.path} is gone: {folder}; and its source, {source}, is not there either."
        ) from error
    require_same_data(kept, data)
    return data


def source_name(data: Any) -> str:
    """How presets name the data: the data set, a file without its ending, or `frame`."""
    if isinstance(data, (str, Path)) and (Path(data) / "facts.json").is_file():
        data = PreparedData.load(Path(data))
    if isinstance(data, PreparedData):
        return data.name
    if not isinstance(data, (str, Path)):
        return "frame"
    return Path(data).stem if Path(data).is_file() else str(data)


def default_folder(config: RunConfig) -> Path:
    """`runs/<data>-<model>-<seed>-<time>` under the current folder; numbered where there is one of the same second."""
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    model = config.model_name.rpartition(":")[2].lower()
    name = f"{Path(config.data.source).stem}-{model}-{config.seed}-{time}"
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(Path("runs") / name for name in names if not (Path("runs") / name).exists())
