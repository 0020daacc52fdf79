"""From the runs of an ablation to its drops, on validation and on test: paired by person, averaged over seeds.

The tests of one part are one family, corrected by Holm together. They ask about people; what another seed would give
is not in their p values, so a verdict needs every seed to agree as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from seqrec.errors import DataError
from seqrec.experiments.ablate.features import Feature
from seqrec.experiments.ablate.table import NOTHING, PARTS, Ablation, AblationRow, Drop
from seqrec.experiments.compare.config import CompareConfig
from seqrec.experiments.compare.judge import Judged, family, people
from seqrec.experiments.compare.plan import Part
from seqrec.experiments.compare.table import Comparison, Row
from seqrec.experiments.run import Run


def drops(
    run: Run, config: CompareConfig, planned: Part, found: Comparison, features: Sequence[Feature], runs: Path
) -> Ablation:
    """What a comparison of the run with itself says about its features.

    Args:
        config, planned, found: the comparison as it was asked for, planned and found.
        runs: the folder in which its runs are.

    Raises:
        DataError: the run itself failed, so that there is nothing to compare with.
    """
    rows = {row.label: row for row in found.rows}
    if config.reference not in rows:
        raise DataError(f"The run itself could not be trained: {'; '.join(found.failures)}")
    made = {row.label: [Run(runs / job.folder) for job in row.jobs] for row in planned.rows if row.label in rows}
    validation = _drops(rows, made, config, "validation")
    test = _drops(rows, made, config, "test")
    whole, lines = rows[config.reference], []
    for feature in features:
        label = f"without {feature.name}"
        if label in rows and not feature.skipped:
            same = all(_alike(made[config.reference], made[label], config.metric, part) for part in PARTS)
            verdict = NOTHING if same else test[label].verdict
            lines.append(
                AblationRow(feature.name, feature.changes, feature.words, validation[label], test[label], verdict)
            )
    return Ablation(
        run=str(run.path),
        label=config.name,
        metric=config.metric,
        alpha=config.alpha,
        seeds=whole.seeds,
        validation=whole.validation[config.metric],
        test=whole.test[config.metric],
        rows=tuple(sorted(lines, key=lambda row: -row.test.test.difference)),
        skipped={feature.name: feature.skipped for feature in features if feature.skipped},
        failures=found.failures,
        protocol=next(iter(found.protocols.values())),
    )


def _drops(
    rows: Mapping[str, Row], made: Mapping[str, Sequence[Run]], config: CompareConfig, part: str
) -> dict[str, Drop]:
    """By label, of all rows but the run itself."""
    judged = {label: Judged(row, *people(made[label], config.metric, part)) for label, row in rows.items()}
    assert config.reference is not None
    whole = judged.pop(config.reference)
    for other in judged.values():
        if not np.array_equal(whole.users, other.users) or not np.array_equal(whole.targets, other.targets):
            raise DataError(f"{whole.row.name} and {other.row.name} were judged on different {part} targets.")
    tests = family([(part, whole, other) for other in judged.values()], config.alpha)
    found = {}
    for label, test in zip(judged, tests, strict=True):
        pairs = zip(made[config.reference], made[label], strict=True)
        by_seed = tuple(_value(one, config.metric, part) - _value(two, config.metric, part) for one, two in pairs)
        measures = rows[label].test if part == "test" else rows[label].validation
        found[label] = Drop(measures[config.metric], test, by_seed)
    return found


def _value(run: Run, metric: str, part: str) -> float:
    return float(run.results[part]["metrics"][metric])


def _alike(whole: Sequence[Run], other: Sequence[Run], metric: str, part: str) -> bool:
    """Whether every person has the same value, whichever the seed."""
    pairs = zip(whole, other, strict=True)
    return all(np.array_equal(people([one], metric, part)[2], people([two], metric, part)[2]) for one, two in pairs)
