"""Some of the users and some of the cases of a data set, to try things on."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Cases, Sequences
from seqrec.evaluation.evaluation import Evaluation
from seqrec.evaluation.evaluator import MOST_CASES, Evaluator
from seqrec.models.base import Scorer

#: Blocks of cases that are evaluated where there are more, and the seconds that one may take for that.
BLOCKS, BLOCK_SECONDS = 4, 1.0


class TimedEvaluator(Evaluator):
    """Remembers its last evaluation and how long that took."""

    seconds = 0.0
    found: Evaluation

    def evaluate(self, scorer: Scorer, part: str) -> Evaluation:
        began = time.perf_counter()
        self.found = super().evaluate(scorer, part)
        self.seconds = time.perf_counter() - began
        return self.found


def some_users(data: PreparedData, share: float) -> PreparedData:
    """The histories of that share of the users, drawn at random, and no cases."""
    if share == 1:
        return data
    sequences = data.sequences
    users = np.random.default_rng(0).permutation(len(sequences))[: max(1, round(share * len(sequences)))]
    users.sort()
    lengths = sequences.lengths[users]
    ends = np.cumsum(lengths)
    moved = sequences.starts[users] - (ends - lengths)
    index = np.arange(int(ends[-1])) + np.repeat(moved, lengths)
    columns = {name: column[index] for name, column in sequences.columns().items()}
    some = Sequences(starts=ends - lengths, ends=ends, num_items=sequences.num_items, **columns)
    nobody = Cases(users[:0], users[:0])
    split = replace(data.split, train_ends=data.split.train_ends[users] - moved, validation=nobody, test=nobody)
    return replace(data, sequences=some, split=split)


def some_cases(evaluator: Evaluator, scorer: Scorer) -> TimedEvaluator:
    """An evaluator of a few blocks of validation cases, of all history lengths; of one block where that takes long."""
    data = evaluator.data
    cases = data.cases("validation")
    cases = cases.take(np.argsort(cases.ends - data.sequences.starts[cases.users], kind="stable"))

    def of(blocks: int) -> TimedEvaluator:
        rooms = np.linspace(0, max(len(cases) - MOST_CASES, 0), blocks + 2).astype(np.int64)
        starts = rooms[1:-1] if blocks == 1 else np.linspace(0, rooms[-1], blocks).astype(np.int64)
        index = np.unique(np.concatenate([np.arange(start, min(start + MOST_CASES, len(cases))) for start in starts]))
        split = replace(data.split, validation=cases.take(index))
        return TimedEvaluator(replace(data, split=split), evaluator.config, evaluator.device)

    one = of(1)
    if len(cases) <= MOST_CASES:
        return one
    one.evaluate(scorer, "validation")
    return of(BLOCKS) if one.seconds < BLOCK_SECONDS else one
