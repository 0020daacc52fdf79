"""What one evaluation says against another: a run, a baseline or lists of another toolkit, judged on the same cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seqrec.data.load import load_data
from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError, DataError
from seqrec.evaluation.evaluation import BREAKDOWN_AT, Evaluation
from seqrec.evaluation.predictions import Predictions
from seqrec.evaluation.significance import PairedTest, paired_test, per_person, verdict
from seqrec.experiments import door
from seqrec.experiments.run import Run


@dataclass(frozen=True)
class Versus:
    """A paired test of one measure on the same people.

    Attributes:
        against: what it is compared with, as it was named.
        metric: what is compared: NDCG at 10, or at the largest cut-off below it that both have.
        value, other: means over people.
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
    """What is judged, and on which data.

    Attributes:
        name: as it was named.
        scorer: a run, lists of a file, or the name of a model that needs no training.
        missing: what happens where lists say nothing, see `Predictions`.
    """

    name: str
    scorer: Run | Predictions | str
    data: PreparedData
    missing: str

    @classmethod
    def named(
        cls, what: str | None, data: str | None, predictions: Path | None, missing: str, columns: Mapping[str, Any]
    ) -> Subject:
        """What a command line names; nothing is read or downloaded before its words make sense.

        Args:
            what, data: the words in order; with `predictions` the first of them is the data.
            columns: how a table of the data is read.

        Raises:
            ConfigError: nothing is named, too much, or something that does not exist or has to be trained.
        """
        if predictions is not None:
            if data is not None:
                raise ConfigError(f"--predictions is what is judged, and {what} or {data} its data: leave one out.")
            if not predictions.exists():
                raise ConfigError(f"--predictions {predictions}: there is no such file.")
            prepared = load_data(what or "ml-100k", **columns)
            return cls(str(predictions), Predictions.read(predictions, prepared, missing), prepared, missing)
        if what is None:
            raise ConfigError("Name a run, a model that needs no training, or --predictions FILE.")
        if Path(what).is_file():
            raise ConfigError(f"{what} is a file and no run. To judge lists in it: --predictions {what} DATA")
        if Path(what).exists():
            run = Run(what)
            return cls(what, run, door.run_data(run), missing)
        name = door.untrained(what)  # a misspelt name is not worth a download
        return cls(name, name, load_data(data or "ml-100k", **columns), missing)

    @property
    def protocol(self) -> dict[str, Any]:
        """Settings of the evaluation that the subject brings."""
        return self.scorer.config.evaluation.model_dump() if isinstance(self.scorer, Run) else {}

    def judged(self, part: str, device: str = "auto", settings: Mapping[str, Any] | None = None) -> Evaluation:
        """See `seqrec.evaluate`."""
        data = None if isinstance(self.scorer, Run) else self.data
        return door.evaluate(self.scorer, data, part, device, settings)


def versus(
    subject: Subject,
    found: Evaluation,
    other: str,
    part: str,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
) -> Versus:
    """Compare what was found for `subject` with something else by a paired test over people.

    Args:
        other: a run's folder (its kept per-user results are used), a file of predictions, or a baseline's name.
        settings: those that gave `found`; a file and a baseline are judged by them too.

    Raises:
        DataError: the two were not asked the same, or not judged alike.
        ConfigError: `other` is nothing of that kind.
    """
    path = Path(other)
    if path.is_dir():
        judged = kept_by(Run(path), subject.data, part, found)
    else:
        scorer = Predictions.read(path, subject.data, subject.missing) if path.exists() else door.untrained(other)
        judged = door.evaluate(scorer, subject.data, part, device, subject.protocol | dict(settings or {}))
    common = set(found.ks) & set(judged.ks)  # the smallest cut-off is in every evaluation by these settings
    metric = f"ndcg@{max([k for k in common if k <= BREAKDOWN_AT], default=min(common))}"
    values, others = (per_person(x.per_case(metric), x.users) for x in (found, judged))
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
