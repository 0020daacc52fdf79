"""Several runs as one model of the same size: the mean of their weights (Wortsman et al., 2022, "Model soups").

Means work for runs that lie in one valley, which those do that started from the same weights (`training.start_from`)
and went on with different seeds or settings. Runs from different random weights have nothing in common to average.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqrec.distributed import ALONE
from seqrec.errors import ConfigError, RunFolderError
from seqrec.evaluation.evaluator import Evaluator
from seqrec.experiments.combine import common_data, different_runs, refuse_finished
from seqrec.experiments.environment import choose_device
from seqrec.experiments.fit import judge, open_folder
from seqrec.experiments.run import Run
from seqrec.files import explained
from seqrec.models.base import SequenceModel
from seqrec.run_folder import RunFolder
from seqrec.training.averaging import put_mean
from seqrec.training.checkpoint import save_checkpoint


def soup(runs: Sequence[Run | Path | str], out: Path | str, uniform: bool = False, device: str = "auto") -> Run:
    """The mean of the weights of finished runs, judged on test once.

    Greedy: runs are tried from the best to the worst on validation, and one stays in the mean if that gains nothing
    less than it had; so the soup validates no worse than its best member. The metric is the `training.metric` of the
    first run.

    Args:
        runs: two or more different ones, or their folders, of one model with the same settings on the same data. Seeds
            and training settings may differ.
        out: the folder of the new run.
        uniform: take all runs, whatever validation says.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.

    Returns:
        The new run, as complete as one that was trained. `results["training"]["members"]` says of each member what it
        weighs and what it reached alone.

    Raises:
        ConfigError: fewer than two runs, one run twice, models that differ or are not trained by gradient, or runs that
            are judged differently.
        DataError: runs were made on different data.
        RunFolderError: a run is not finished, or `out` holds another one, finished or not.
    """
    where = choose_device(device)
    opened = different_runs(runs, "A soup")
    metric = opened[0].config.training.metric
    require_same_model(opened)
    evaluator = Evaluator(common_data(opened), opened[0].config.evaluation, where)
    _require_measured(opened, metric)
    refuse_finished(Path(out))
    refuse_training(Path(out))
    began = time.monotonic()
    ordered = sorted(opened, key=lambda run: -run.validation[metric])
    model = ordered[0].recommender(str(where)).scorer
    assert isinstance(model, SequenceModel)
    chosen = ordered if uniform else _greedy(ordered, model, evaluator, metric)
    _mix(chosen, model)
    facts = _facts(ordered, chosen, metric, time.monotonic() - began)
    with explained(Path(out)):
        folder = open_folder(ordered[0].config, evaluator.data, Path(out), where)
        save_checkpoint(folder.best, model.state_dict(), {"soup": [str(run.path) for run in chosen]})
        judge(model, evaluator, folder, facts)
    return Run(out)


def require_same_model(runs: Sequence[Run]) -> None:
    """Refuse runs whose weights cannot be averaged.

    Raises:
        ConfigError: a model is not trained by gradient, or has other settings than the first one's.
    """
    first = runs[0].config.to_dict()["model"]
    for run in runs:
        if not run.config.trained:
            raise ConfigError(f"{run.path}: {run.config.model_name} is not trained by gradient. See `seqrec ensemble`.")
        own = run.config.to_dict()["model"]
        if other := [f"model.{key}" for key in {**first, **own} if own.get(key) != first.get(key)]:
            raise ConfigError(
                f"{run.path} is another model than {runs[0].path}: {', '.join(other)} differ. Weights of different "
                "models have no mean; see `seqrec ensemble`."
            )


def _require_measured(runs: Sequence[Run], metric: str) -> None:
    for run in runs:
        if metric not in run.validation:
            raise ConfigError(f"{run.path} was not measured by {metric}, by which {runs[0].path} was chosen.")


def refuse_training(out: Path) -> None:
    """Refuse the folder of a training that is not over: a soup has the settings of a member, and would pass for it.

    Raises:
        RunFolderError: there is one.
    """
    folder = RunFolder(out)
    if folder.last.exists() or folder.history.exists():
        raise RunFolderError(f"{out} holds a training that is not over. Choose another --out.")


def share_start(runs: Sequence[Run]) -> bool:
    """Whether all runs started from the weights of one run."""
    starts = {run.config.training.start_from for run in runs}
    return len(starts) == 1 and None not in starts


def _greedy(runs: Sequence[Run], model: SequenceModel, evaluator: Evaluator, metric: str) -> list[Run]:
    """Those that the mean is better with, or as good; from the best run to the worst."""
    chosen, best = [runs[0]], runs[0].validation[metric]
    for run in runs[1:]:
        _mix([*chosen, run], model)
        value = evaluator.evaluate(model, "validation").metrics[metric]
        if value >= best:
            chosen, best = [*chosen, run], value
    return chosen


def _mix(runs: Sequence[Run], model: SequenceModel) -> None:
    put_mean([run.folder.best for run in runs], model, ALONE)


def _facts(runs: Sequence[Run], chosen: Sequence[Run], metric: str, seconds: float) -> dict[str, Any]:
    """What takes the place of training: who is in it, and what each reached alone."""
    members = [
        {
            "run": str(run.path),
            "model": run.config.model_name,
            "seed": run.config.seed,
            "weight": 1 / len(chosen) if run in chosen else 0.0,
            **{part: run.results[part]["metrics"][metric] for part in ("validation", "test")},
        }
        for run in runs
    ]
    parameters = runs[0].results["training"]["parameters"]
    return {"seconds": seconds, "parameters": parameters, "epochs": 0, "members": members}
