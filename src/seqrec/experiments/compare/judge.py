"""From finished runs to the facts of a comparison: means over seeds, intervals over users, paired tests.

A person's value is what they add to the mean over cases, averaged over seeds, so a test asks about people, not about
seeds: the standard deviation over seeds stands beside it.

Shapes: M cases, U users, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import numpy.typing as npt

from seqrec.errors import DataError
from seqrec.evaluation.evaluation import Evaluation, case_values
from seqrec.evaluation.significance import holm, interval, paired_test, per_person, verdict
from seqrec.experiments.compare.config import CompareConfig
from seqrec.experiments.compare.plan import Part, PlannedRow
from seqrec.experiments.compare.table import Row, Test, in_order
from seqrec.experiments.run import Run
from seqrec.experiments.seeds import Spread, spread

Floats = npt.NDArray[np.float64]
#: Measure of the breakdowns by popularity and by length.
BREAKDOWN = "ndcg@10"
#: Resamples and permutations of a test, at least.
SAMPLES = 10_000


@dataclass(frozen=True)
class Judged:
    """A row and what its tests are made from.

    Attributes:
        users, targets: (M,) ids of each case, in order.
        values: (U,) the metric per user, averaged over seeds.
    """

    row: Row
    users: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    values: Floats


def judge_row(planned: PlannedRow, runs: Sequence[Run], metric: str, beside: int) -> Judged:
    """The row of finished runs of one planned row."""
    users, targets, values = people(runs, metric, "test")
    estimate, summaries = interval(values), [run.results["test"] for run in runs]
    row = Row(
        data=planned.data,
        split=planned.split,
        label=planned.label,
        varied=dict(planned.varied),
        seeds=planned.seeds,
        test=_spreads([run.metrics for run in runs]),
        validation=_spreads([run.validation for run in runs]),
        low=estimate.low,
        high=estimate.high,
        by_popularity=_breakdown(summaries, "by_popularity"),
        by_length=_breakdown(summaries, "by_length"),
        targets=_one([run.facts["data"]["test_targets"] for run in runs]),
        beside=beside,
        device=" and ".join(sorted({run.facts["environment"]["device"] for run in runs})),
        **_cost(runs),
    )
    return Judged(row, users, targets, values)


def people(runs: Sequence[Run], metric: str, part: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Floats]:
    """Users and targets (M,) of `validation` or `test`, and the metric per user (U,), averaged over runs."""
    cases = [_cases(run, metric, part) for run in runs]
    users, targets, _ = cases[0]
    return users, targets, np.mean([per_person(values, users) for _, _, values in cases], axis=0)


def judge_lists(part: Part, label: str, found: Evaluation, metric: str) -> Judged:
    """The row of lists that another toolkit made for the test part."""
    data = part.data
    users = np.array(data.user_ids(), dtype=object)[found.users]
    values = per_person(found.per_case(metric), users)
    estimate, summary = interval(values), found.summary()
    row = Row(
        data=part.label,
        split=part.split,
        label=label,
        varied={},
        seeds=(),
        test=_spreads([found.metrics]),
        validation={},
        low=estimate.low,
        high=estimate.high,
        by_popularity=_breakdown([summary], "by_popularity"),
        by_length=_breakdown([summary], "by_length"),
        seconds=None,
        seconds_per_epoch=None,
        epochs=None,
        parameters=None,
        peak_memory_mib=None,
        targets=str(data.facts["test_targets"]),
    )
    return Judged(row, users, np.array(["", *data.catalogue.ids], dtype=object)[found.targets], values)


def require_same_targets(judged: Sequence[Judged]) -> None:
    """Refuse to compare rows that were not asked the same questions.

    Raises:
        DataError: naming two rows that were judged on different targets.
    """
    for other in judged[1:]:
        first = judged[0]
        same = first.row.targets == other.row.targets and np.array_equal(first.users, other.users)
        if not (same and np.array_equal(first.targets, other.targets)):
            raise DataError(
                f"{first.row.name} and {other.row.name} were judged on different targets of {first.row.data} "
                f"(hash {first.row.targets[:16]} and {other.row.targets[:16]}): they cannot be compared."
            )


def tests_of(judged: Sequence[Judged], config: CompareConfig) -> list[Test]:
    """Every paired test of one data set and split, corrected by Holm within its family."""
    if len(judged) < 2:
        return []
    pairs = [("pair", *pair) for pair in combinations(judged, 2)] if config.tests == "all" else _against(judged, config)
    families = (pairs, _ends(judged), _members(judged, config))
    return [test for found in families for test in family(found, config.alpha)]


def _against(judged: Sequence[Judged], config: CompareConfig) -> list[tuple[str, Judged, Judged]]:
    """Everything against the reference: by itself the single model that is best on validation, since the weights of an
    ensemble were chosen there."""
    fused = {entry.name for entry in config.ensembles}
    wanted = [x for x in judged if x.row.label == config.reference]
    single = [x for x in judged if x.row.validation and x.row.label not in fused]
    best = max(wanted or single or judged, key=lambda x: x.row.validated(config.metric))
    return [("reference", best, other) for other in judged if other is not best]


def _ends(judged: Sequence[Judged]) -> list[tuple[str, Judged, Judged]]:
    """For each label and varied setting: the last value in order against the first, all else equal."""
    pairs = []
    for row in judged:
        for key in row.row.varied:
            line = [x for x in judged if x.row.label == row.row.label and _but(x.row, key) == _but(row.row, key)]
            if line[0] is row and len(line) > 1:
                order = in_order(x.row.varied[key] for x in line)
                first, last = (next(x for x in line if x.row.varied[key] == order[end]) for end in (0, -1))
                pairs.append((key, last, first))
    return pairs


def _members(judged: Sequence[Judged], config: CompareConfig) -> list[tuple[str, Judged, Judged]]:
    """Each ensemble against the one of its members that is best on validation."""
    pairs = []
    for entry in config.ensembles:
        for whole in (x for x in judged if x.row.label == entry.name):
            parts = [x for x in judged if x.row.label in entry.members and x.row.varied == whole.row.varied]
            if parts:
                pairs.append(("member", whole, max(parts, key=lambda x: x.row.validated(config.metric))))
    return pairs


def _but(row: Row, key: str) -> dict[str, Any]:
    return {name: value for name, value in row.varied.items() if name != key}


def family(pairs: Sequence[tuple[str, Judged, Judged]], alpha: float) -> list[Test]:
    """Tests of (why, first, second), corrected by Holm together."""
    # The smallest p value that sampling can give, times the family, must be able to lie below alpha.
    samples = max(SAMPLES, round(20 * len(pairs) / alpha))
    found = [paired_test(first.values, second.values, samples=samples) for _, first, second in pairs]
    adjusted = holm([test.p_permutation for test in found]) if found else ()
    return [
        Test(
            data=first.row.data,
            split=first.row.split,
            why=why,
            first=first.row.name,
            second=second.row.name,
            difference=test.difference,
            low=test.low,
            high=test.high,
            p_bootstrap=test.p_bootstrap,
            p_permutation=test.p_permutation,
            p_holm=float(p),
            effect=test.effect,
            users=test.users,
            family=len(found),
            verdict=verdict(test, float(p), alpha),
        )
        for (why, first, second), test, p in zip(pairs, found, adjusted, strict=True)
    ]


def _cases(run: Run, metric: str, part: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Floats]:
    """Users, targets and values of the metric (M,) each, as the run kept them."""
    import pyarrow.parquet as pq

    path = run.folder.per_user(part)
    if not path.exists():
        raise DataError(f"{run.path} kept no per-user results, which tests are made from. Install pyarrow and repeat.")
    try:
        table = pq.read_table(path, columns=["user", "target", "rank"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} is damaged ({error}). Delete {run.path}; the comparison makes the run again."
        ) from error
    users, targets, ranks = (table.column(name).to_numpy() for name in ("user", "target", "rank"))
    return users, targets, case_values(ranks, metric, run.facts["data"]["items"])


def _spreads(found: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    return {name: spread([metrics[name] for metrics in found]) for name in found[0]}


def _breakdown(summaries: Sequence[Mapping[str, Any]], which: str) -> dict[str, float]:
    """NDCG@10 by bucket, averaged over seeds, for buckets that have cases."""
    tables = [summary[which] for summary in summaries]
    return {name: mean(t[name][BREAKDOWN] for t in tables) for name, found in tables[0].items() if BREAKDOWN in found}


def _cost(runs: Sequence[Run]) -> dict[str, Any]:
    training = [run.results["training"] for run in runs]
    epochs = [[epoch["speed"]["seconds"] for epoch in run.folder.epochs()] for run in runs]
    return {
        "seconds": mean(facts["seconds"] + _of_members(run, facts) for run, facts in zip(runs, training, strict=True)),
        "seconds_per_epoch": mean(median(found) for found in epochs) if all(epochs) else None,
        "epochs": mean(facts["epochs"] for facts in training) if all(epochs) else None,
        "parameters": training[0]["parameters"] or None,
        "peak_memory_mib": max(facts.get("peak_memory_mib", 0.0) for facts in training) or None,
    }


def _of_members(run: Run, training: Mapping[str, Any]) -> float:
    """Seconds that the members of an ensemble took, as far as they lie beside it."""
    folders = [run.path.parent / Path(member["run"]).name for member in training.get("members", ())]
    return sum(Run(folder).results["training"]["seconds"] for folder in folders if folder.exists())


def _one(values: Sequence[Any]) -> Any:
    if len(set(values)) > 1:
        raise DataError(f"Seeds of one row were judged on different targets: {', '.join(sorted(set(values)))}.")
    return values[0]
