"""Full-catalogue evaluation: every case is ranked against every item, and no score that is not finite is ranked.

Shapes: M cases, B cases at a time, N items, P pairs of (case, seen item).
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from seqrec.config import Config
from seqrec.data.batches import Batch, BatchMaker
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Cases, Ints, Sequences
from seqrec.errors import ConfigError
from seqrec.evaluation.evaluation import Evaluation
from seqrec.evaluation.predictions import Predictions
from seqrec.kernels.ranking import exclude, require_finite, target_ranks, top_items
from seqrec.models.base import Scorer, SequenceModel

#: Arrays of (B, N) that are alive at once while ranking: scores, comparisons, what top-k needs.
ARRAYS_ALIVE = 4
#: Cases at a time at most, so that a small catalogue does not make the encoder's memory large.
MOST_CASES = 256
#: Events of a history that a scorer without a length of its own is shown.
UNBOUNDED = 1 << 30


class EvaluationConfig(Config):
    """What is measured, and with how much memory."""

    ks: tuple[int, ...] = Field((1, 5, 10, 20, 50), description="cut-offs")
    filter_seen: bool = Field(True, description="leave out items of the whole earlier history; off where people repeat")
    memory_mb: int = Field(512, ge=1, description="scores held at once")

    @field_validator("ks")
    @classmethod
    def _sorted(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if not ks or min(ks) < 1:
            raise ValueError("cut-offs are whole numbers from 1")
        return tuple(sorted(set(ks)))


class Evaluator:
    """Evaluates any scorer on the validation or test part of one data set."""

    def __init__(self, data: PreparedData, config: EvaluationConfig, device: torch.device | str = "cpu") -> None:
        self.data = data
        self.most_cases = MOST_CASES
        self.config = config
        self.device = torch.device(device)
        self._maker = BatchMaker(data.sequences, self.device)
        self._counts = data.train.counts()

    @property
    def protocol(self) -> str:
        """One line that says how the numbers are measured."""
        seen = "items of the whole earlier history left out" if self.config.filter_seen else "seen items not left out"
        facts = self.data.facts
        log = f"{facts['name']}, {facts['kept']}, " if "kept" in facts else ""
        return f"{log}{self.data.split.words}, every item of the catalogue ranked, {seen}, ties count against the model"

    @torch.inference_mode()
    def evaluate(self, scorer: Scorer, part: str) -> Evaluation:
        """Rank the target of every case of `part` (`validation` or `test`).

        The history shown is everything before the target, or before the cut where the split freezes it there: in
        the test, validation events too.
        A target that is itself filtered as seen counts as missed: it could not have been shown.

        Raises:
            ScoreError: a score is NaN or infinite.
            ConfigError: there is no such part.
            DataError: lists of another toolkit do not answer every case, see `Predictions`.
        """
        if part not in ("validation", "test"):
            raise ConfigError(f"part {part!r}: choose validation or test.")
        cases = self.data.cases(part)
        lengths = cases.ends - self.data.sequences.starts[cases.users]
        order = np.argsort(lengths, kind="stable")
        ranks, lists = self._in_eval_mode(scorer, cases.take(order))
        back = np.argsort(order, kind="stable")
        found = Evaluation(
            users=cases.users,
            targets=self.data.sequences.items[cases.positions].astype(np.int64),
            ranks=ranks[back],
            history_lengths=lengths,
            lists=lists[back],
            counts=self._counts,
            ks=self.config.ks,
            protocol=self.protocol,
        )
        if isinstance(scorer, Predictions):
            return scorer.judged(found, cases, self.data.sequences, self.config.filter_seen)
        return found

    def _in_eval_mode(self, scorer: Scorer, cases: Cases) -> tuple[np.ndarray, np.ndarray]:
        training = isinstance(scorer, nn.Module) and scorer.training
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")  # no TF32: near-ties would be decided by rounding
        try:
            if isinstance(scorer, nn.Module):
                scorer.eval()
            parts = [self._rank(scorer, cases.take(index)) for index in self._blocks(len(cases))]
        finally:
            torch.set_float32_matmul_precision(precision)
            if isinstance(scorer, nn.Module):
                scorer.train(training)
        ranks, lists = zip(*parts, strict=True)
        return torch.cat(ranks).cpu().numpy(), torch.cat(lists).cpu().numpy()

    def _rank(self, scorer: Scorer, cases: Cases) -> tuple[Tensor, Tensor]:
        """Ranks (B,) and lists (B, k)."""
        scores_BN = scorer.scores(self.histories(scorer, cases))
        require_finite(scores_BN, type(scorer).__name__)
        if self.config.filter_seen:
            scores_BN = exclude(scores_BN, *self.seen(cases))
        targets = torch.from_numpy(self.data.sequences.items[cases.positions].astype(np.int64))
        return target_ranks(scores_BN, targets.to(self.device)), top_items(scores_BN, max(self.config.ks))[0]

    def histories(self, scorer: Scorer, cases: Cases) -> Batch:
        """What the scorer is shown for each case."""
        events = scorer.config.max_length if isinstance(scorer, SequenceModel) else UNBOUNDED
        return self._maker.histories(cases, events, scorer.uses_times)

    def windows(self, users: Ints, sequences: Sequences, events: int, times: bool = False) -> Batch:
        """The last `events` events of each user in `sequences`, a view on this data set; with `times` if asked."""
        starts = np.maximum(sequences.starts[users], sequences.ends[users] - events)
        lengths = sequences.ends[users] - starts
        return self._maker.windows(users, starts, lengths, int(lengths.max()), times)

    def seen(self, cases: Cases) -> tuple[Tensor, Tensor]:
        """Pairs (case, item) of everything in the whole history of each case: two (P,) tensors."""
        starts = self.data.sequences.starts[cases.users]
        lengths = cases.ends - starts
        rows = np.repeat(np.arange(len(cases)), lengths)
        index = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + starts[rows]
        items = self.data.sequences.items[index].astype(np.int64)
        return torch.from_numpy(rows).to(self.device), torch.from_numpy(items).to(self.device)

    def _blocks(self, cases: int) -> list[np.ndarray]:
        per_case = self.data.sequences.num_items * 4 * ARRAYS_ALIVE
        size = int(np.clip(self.config.memory_mb * 2**20 // per_case, 1, self.most_cases))
        return [np.arange(start, min(start + size, cases)) for start in range(0, cases, size)]
