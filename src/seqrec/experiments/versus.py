"""What one evaluation says against another: a run, a baseline or lists of another toolkit, judged on the same cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seqrec.data.config import DataConfig
from seqrec.data.load import load_data
from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError, DataError
from seqrec.evaluation.evaluation import BREAKDOWN_AT, Evaluation
from seqrec.evaluation.evaluator import EvaluationConfig
from seqrec.evaluation.predictions import Predictions
from seqrec.evaluation.significance import PairedTest, paired_test, per_person, verdict
from seqrec.experiments import door
from seqrec.experiments.run import Run
from seqrec.models.base import Scorer
from seqrec.models.build import parse_model

#: Settings that are the same for all that is judged, by section.
FIELDS = {"data": DataConfig.model_fields, "evaluation": EvaluationConfig.model_fields}


@dataclass(frozen=True)
class Versus:
    """A paired test of one measure on the same people.

    Attributes:
        against: what it is compared with, as it was named.
        metric: what is compared: NDCG at 10, or at the largest cut-off below it that both have.
        value, other: means over cases.
        test: `value` - `other`, by person.
        verdict: in words, from the permutation p value.
    """

    against: str
    metric: str
    value: float
    other: float
    test: PairedTest
    verdict: str

    def summary(self) -> dict[str, Any]:
        """All of the above, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Subject:
    """What is judged, on which data, and how.

    Attributes:
        name: as it was named.
        scorer: a run, lists of a file, or a model that needs no training, fitted.
        missing: what happens where lists say nothing, see `Predictions`.
        protocol: fields of `EvaluationConfig` that were asked for.
    """

    name: str
    scorer: Run | Scorer
    data: PreparedData
    missing: str
    protocol: Mapping[str, Any]

    @classmethod
    def named(
        cls, what: str | None, data: str | None, predictions: Path | None, missing: str, changes: Mapping[str, Any]
    ) -> Subject:
        """What a command line names; nothing is read or downloaded before its words make sense.

        Args:
            what, data: the words in order; with `predictions` the first of them is the data.
            changes: settings by dotted key, as for `train`: `evaluation.` always, `data.` unless a run is judged,
                `model.` for a model.

        Raises:
            ConfigError: nothing is named, too much, or something that does not exist or has to be trained; or a
                setting is wrong, or of something that is not there.
        """
        if predictions is not None:
            return cls._lists(what, data, predictions, missing, changes)
        if what is None:
            raise ConfigError("Name a run, a model that needs no training, or --predictions FILE DATA.")
        if Path(what).is_file():
            raise ConfigError(f"{what} is a file and no run. To judge lists in it: --predictions {what} DATA")
        found = door.named(what, data is not None)
        if isinstance(found, Run):
            if data is not None:
                raise ConfigError(f"{what} is a run, and judged on the data it was made on: leave {data} out.")
            asked = _sections(changes, "a run, which brings its data and its model,", ("evaluation",))
            return cls(what, found, door.run_data(found), missing, asked["evaluation"])
        asked = _sections(changes, "a model", ("data", "model", "evaluation"))
        parse_model({**asked["model"], "name": found})  # a misspelt setting is not worth a download either
        prepared = load_data(data or "ml-100k", **asked["data"])
        return cls(found, door.fitted(found, prepared, asked["model"]), prepared, missing, asked["evaluation"])

    @classmethod
    def _lists(
        cls, data: str | None, more: str | None, path: Path, missing: str, changes: Mapping[str, Any]
    ) -> Subject:
        if more is not None:
            raise ConfigError(f"--predictions is what is judged, and {data} or {more} its data: leave one out.")
        if not path.exists():
            raise ConfigError(f"--predictions {path}: there is no such file.")
        if data is None:
            raise ConfigError(f"Name the data of the lists: seqrec evaluate --predictions {path} DATA")
        asked = _sections(changes, "a file of lists", ("data", "evaluation"))
        prepared = load_data(data, **asked["data"])
        return cls(str(path), Predictions.read(path, prepared, missing), prepared, missing, asked["evaluation"])

    def judged(self, part: str, device: str = "auto") -> Evaluation:
        """See `seqrec.evaluate`."""
        data = None if isinstance(self.scorer, Run) else self.data
        return door.evaluate(self.scorer, data, part, device, self.protocol)

    @property
    def whole_protocol(self) -> dict[str, Any]:
        """Settings that what is set against it is judged by: those of a run, and what was asked for."""
        own = self.scorer.config.evaluation.model_dump() if isinstance(self.scorer, Run) else {}
        return {**own, **self.protocol}


def _sections(changes: Mapping[str, Any], what: str, taken: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings by dotted key as settings by section, of which `what` takes only some.

    Raises:
        ConfigError: a key of another section, one that is an argument, or a wrong setting of the evaluation.
    """
    found: dict[str, dict[str, Any]] = {section: {} for section in taken}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if key in ("data.source", "model.name"):
            raise ConfigError(f"{key}: name the {section} as an argument instead.")
        if section not in taken or not name:
            hints = [f" Did you mean {at}.{key}?" for at in taken if key in FIELDS.get(at, ())]
            keys = ", ".join(f"{section}.KEY=VALUE" for section in taken)
            raise ConfigError(f"{key}: {what} takes {keys}, such as evaluation.filter_seen=false.{''.join(hints)}")
        found[section][name] = value
    EvaluationConfig.parse(found["evaluation"], "evaluation.")
    return found


def opponent(name: str) -> Run | Path | str:
    """What `--against` names: a run, a file of predictions, or a model that needs no training.

    Raises:
        ConfigError: it is none of these.
        RunFolderError: it is a folder and no run.
    """
    return Path(name) if Path(name).is_file() else door.named(name)


def versus(subject: Subject, found: Evaluation, other: str, part: str, device: str = "auto") -> Versus:
    """Compare what was found for `subject` with something else by a paired test over people.

    Args:
        other: a run's folder (its kept per-user results are used), a file of predictions, or a baseline's name. A file
            and a baseline are judged by the settings of `subject`.

    Raises:
        DataError: the two were not asked the same, or not judged alike.
        ConfigError: `other` is nothing of that kind.
    """
    rival = opponent(other)
    if isinstance(rival, Run):
        judged = kept_by(rival, subject.data, part, found)
    else:
        scorer = Predictions.read(rival, subject.data, subject.missing) if isinstance(rival, Path) else rival
        judged = door.evaluate(scorer, subject.data, part, device, subject.whole_protocol)
    common = set(found.ks) & set(judged.ks)  # the smallest cut-off is in every evaluation by these settings
    metric = f"ndcg@{max([k for k in common if k <= BREAKDOWN_AT], default=min(common))}"
    # People by the text of their ids, as comparisons of runs have them: the same signs are flipped, so p is the same.
    people = np.array(subject.data.user_ids(), dtype=object)
    values, others = (per_person(x.per_case(metric), people[x.users]) for x in (found, judged))
    test = paired_test(values, others)
    words = verdict(test, test.p_permutation)
    return Versus(other, metric, float(values.mean()), float(others.mean()), test, words)


def kept_by(run: Run, data: PreparedData, part: str, alike: Evaluation) -> Evaluation:
    """The ranks that a run kept for the cases of `alike`.

    Raises:
        DataError: it kept none, was asked something else, or judged otherwise.
    """
    import pyarrow.parquet as pq

    path = run.folder.per_user(part)
    protocol = str(run.results[part]["protocol"])
    if not path.is_file():
        raise DataError(f"{run.path} kept no per-user results of {part}. Name it first: seqrec evaluate {run.path}")
    table = pq.read_table(path, columns=["user", "target", "rank"])
    asked = {
        "user": np.array(data.user_ids(), dtype=object)[alike.users],
        "target": np.array(data.catalogue.ids, dtype=object)[alike.targets - 1],
    }
    if not all(np.array_equal(table[name].to_numpy(), ids) for name, ids in asked.items()):
        raise DataError(
            f"{run.path} was judged on other {part} targets (hash {_hash(run.facts['data'])}) than {data.name} asks "
            f"for (hash {_hash(data.facts)}): the two cannot be compared. Give the data and the split of the run."
        )
    if not alike.protocol.startswith(protocol):
        raise DataError(
            f"{run.path} was judged otherwise: {protocol}; and not: {alike.protocol}. Set what differs by --set, such "
            f"as evaluation.filter_seen, or name the run first: seqrec evaluate {run.path} --against ..."
        )
    return replace(alike, ranks=table["rank"].to_numpy(), protocol=protocol)


def _hash(facts: Mapping[str, Any]) -> str:
    return str(facts["test_targets"])[:16]
