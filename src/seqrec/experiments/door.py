"""Training and evaluating in one call: what the command line and `seqrec.train` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from seqrec.data.load import load_data, prepare_source
from seqrec.data.prepared import PreparedData
from seqrec.errors import DataError, UnknownNameError
from seqrec.evaluation.evaluation import Evaluation
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.experiments.config import RunConfig, settings_for
from seqrec.experiments.environment import choose_device
from seqrec.experiments.fit import fit
from seqrec.experiments.run import Run
from seqrec.models.base import Scorer
from seqrec.models.build import build_model
from seqrec.training.tracking import Tracker

#: Seeds of a repeated run, unless others are asked for.
SEEDS = (42, 123, 2023)


def train(
    data: Any,
    model: str | type[Scorer] = "xlstm",
    *,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 42,
    out: Path | str | None = None,
    device: str = "auto",
    trackers: Sequence[Tracker] = (),
    **columns: Any,
) -> Run:
    """Train a model and score the test part once, with the weights that validated best.

    Args:
        data: what `load_data` takes, or what it returned.
        model: a registered name, `my_package.my_module:MyModel`, or a model class.
        preset: a variant of the shipped settings, such as `quick`.
        settings: single settings by dotted key, such as `{"model.embedding_dim": 64}`.
        seed: of weights, order and dropout.
        out: the run's folder; `runs/<data>-<model>-<seed>-<time>` when None.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        columns: as in `load_data`, for tables: `user`, `item`, `time`, `value`, `time_unit`.

    Returns:
        The finished run.
    """
    changes = dict(settings or {})
    for key, value in columns.items():
        changes[f"data.{key}"] = value
    name = model if isinstance(model, str) else f"{model.__module__}:{model.__qualname__}"
    source = source_name(data)
    config = RunConfig.from_dict({**settings_for(source, name, preset, changes), "seed": seed})
    if not isinstance(data, PreparedData):
        data = load_data(data, **config.data.model_dump(exclude={"source"}))
    return fit(config, data, Path(out) if out else default_folder(config), trackers, device)


def evaluate(scorer: Scorer | Run | str, data: Any = None, part: str = "test", device: str = "auto") -> Evaluation:
    """Judge a scorer, a registered baseline or a run under the one protocol.

    Args:
        scorer: an object that scores, the name of a model that is fitted here without training
            (`popularity`, `markov`), or a run.
        data: what `load_data` takes or returned; not needed for a run.
        part: `validation` or `test`.
    """
    where = choose_device(device)
    if isinstance(scorer, Run):
        prepared, protocol = run_data(scorer), scorer.config.evaluation
        model: Scorer = scorer.recommender(str(where)).scorer
    else:
        prepared, protocol = data if isinstance(data, PreparedData) else load_data(data), EvaluationConfig()
        model = scorer if isinstance(scorer, Scorer) else fitted(scorer, prepared)
    return Evaluator(prepared, protocol, where).evaluate(model, part)


def fitted(name: str, data: PreparedData) -> Scorer:
    """A registered model with default settings, fitted on the training part; a sequence model stays untrained."""
    return build_model({"name": name}, data.sequences.num_items).fit(data.train)


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
    if data.facts["test_targets"] != kept["test_targets"]:
        raise DataError(f"{run.path} was judged on other targets than {data.folder} asks. Was the source changed?")
    return data


def source_name(data: Any) -> str:
    """How a configuration names the data: the data set, the path, or `frame`."""
    if isinstance(data, PreparedData):
        return data.name
    return str(data) if isinstance(data, (str, Path)) else "frame"


def default_folder(config: RunConfig) -> Path:
    """`runs/<data>-<model>-<seed>-<time>` under the current folder; numbered where there is one of the same second."""
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    model = config.model_name.rpartition(":")[2].lower()
    name = f"{Path(config.data.source).stem}-{model}-{config.seed}-{time}"
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(Path("runs") / name for name in names if not (Path("runs") / name).exists())
