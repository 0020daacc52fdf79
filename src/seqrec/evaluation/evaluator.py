"""Full-catalogue evaluation: every case is ranked against every item, and no score that is not finite is ranked.

What is asked comes to the device once and what was found leaves it once; between the two the host only gives orders.

Shapes: M cases, B cases at a time, N items, D width, P pairs of (case, seen item).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeGuard

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from seqrec.config import Config
from seqrec.data.batches import Batch, BatchMaker
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Cases, Ints, Sequences
from seqrec.distributed import ALONE, Ranks
from seqrec.errors import ConfigError, ScoreError
from seqrec.evaluation.evaluation import Evaluation
from seqrec.evaluation.predictions import Predictions
from seqrec.evaluation.questions import Questions
from seqrec.evaluation.sharded import rank_over_shards
from seqrec.kernels.ranking import Pairs, Ranked, rank, rank_in_blocks, require_finite
from seqrec.models.base import Scorer, SequenceModel
from seqrec.models.sharded import ShardedItemVectors, sharded_table

#: Arrays of (B, N) that are alive at once while ranking: scores, comparisons, what top-k needs.
ARRAYS_ALIVE = 4
#: Cases at a time at most, where their scores take little memory: a scorer may hold (cases, users) beside them.
MOST_CASES = 256
#: Events at a time that a sequence model reads: a GPU wants to be kept busy, a processor to stay in its cache.
TOKENS = {"cuda": 1 << 16, "cpu": 1 << 13}
#: States at a time that are compared with all item vectors; fewer would wait for the vectors to come from memory.
LEAST_STATES = 32
#: Events of a history that a scorer without a length of its own is shown.
UNBOUNDED = 1 << 30


class EvaluationConfig(Config):
    """What is measured, and with how much memory."""

    ks: tuple[int, ...] = Field((1, 5, 10, 20, 50), description="cut-offs")
    filter_seen: bool = Field(True, description="leave out items of the whole earlier history; off where people repeat")
    memory_mb: int = Field(
        512, ge=1, description="scores held at once; what a model needs to read histories comes on top"
    )

    @field_validator("ks")
    @classmethod
    def _sorted(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if not ks or min(ks) < 1:
            raise ValueError("cut-offs are whole numbers from 1")
        return tuple(sorted(set(ks)))


class Evaluator:
    """Evaluates any scorer on the validation or test part of one data set.

    Attributes:
        most_cases: ranked at a time at most; None: as many as memory and the scorer's kind allow.
    """

    def __init__(
        self, data: PreparedData, config: EvaluationConfig, device: torch.device | str = "cpu", ranks: Ranks = ALONE
    ) -> None:
        self.data = data
        self.most_cases: int | None = None
        self.config = config
        self.device = torch.device(device)
        self.ranks = ranks
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
        asked = Questions.of(cases, self._maker)
        with _evaluating(scorer):
            ranks, lists, finite = self._rank_all(scorer, asked)
            if not finite.all():
                self._refuse(scorer, cases, int(np.argmin(finite)))
        found = Evaluation(
            users=cases.users,
            targets=self.data.sequences.items[cases.positions].astype(np.int64),
            ranks=ranks,
            history_lengths=asked.lengths,
            lists=lists,
            counts=self._counts,
            ks=self.config.ks,
            protocol=self.protocol,
        )
        if isinstance(scorer, Predictions):
            return scorer.judged(found, cases, self.data.sequences, self.config.filter_seen)
        return found

    def _rank_all(self, scorer: Scorer, asked: Questions) -> tuple[np.ndarray, ...]:
        """Ranks (M,), lists (M, k), and whether scores were finite (M,)."""
        order = np.argsort(-asked.lengths, kind="stable")
        ordered, rank_block = asked.at(order), self._ranker(scorer)
        blocks = self._blocks(scorer, ordered.lengths)
        if self.ranks.size > 1 and not (isinstance(scorer, nn.Module) and sharded_table(scorer)):
            return self._rank_shares(ordered, rank_block, blocks, order)
        parts = [rank_block(ordered.block(rows)) for rows in blocks]
        back = np.argsort(order, kind="stable")
        return tuple(torch.cat(column).cpu().numpy()[back] for column in zip(*parts, strict=True))

    def _rank_shares(
        self, ordered: Questions, rank_block: Callable[[Questions], Ranked], blocks: list[slice], order: Ints
    ) -> tuple[np.ndarray, ...]:
        """As `_rank_all`: the blocks of one process are dealt out to the ranks, and all get what all have found."""
        shares = [blocks[rank :: self.ranks.size] for rank in range(self.ranks.size)]
        k, none = max(self.config.ks), torch.zeros(0, dtype=torch.int64, device=self.device)
        found = [rank_block(ordered.block(rows)) for rows in shares[self.ranks.rank]]
        found = found or [Ranked(none, none.view(0, k), none.bool())]
        sizes = [sum(rows.stop - rows.start for rows in share) for share in shares]
        places = np.concatenate([np.arange(rows.start, rows.stop) for share in shares for rows in share])
        back = np.argsort(order[places], kind="stable")
        columns = (torch.cat(column) for column in zip(*found, strict=True))
        return tuple(self.ranks.gather_uneven(column, sizes).cpu().numpy()[back] for column in columns)

    def _ranker(self, scorer: Scorer) -> Callable[[Questions], Ranked]:
        """What ranks a block of cases: from states and item vectors, or, where a model has none, from its scores."""
        k, items = max(self.config.ks), self.data.sequences.num_items
        if not _has_query(scorer):
            return lambda asked: rank(scorer.scores(self._shown(scorer, asked)), asked.targets, self._seen(asked), k)
        vectors = scorer.item_vectors().plain()

        def rank_states(asked: Questions) -> Ranked:
            h_BD = scorer.query(self._shown(scorer, asked))
            if isinstance(vectors, ShardedItemVectors):
                return rank_over_shards(vectors.local_scores(h_BD), asked.targets, self._seen(asked), k, vectors.shard)
            size = max(1, self._affordable // len(asked))
            return rank_in_blocks(
                lambda first, last: vectors.between(first, last).score(h_BD),
                items,
                size,
                asked.targets,
                self._seen(asked),
                k,
            )

        return rank_states

    def _blocks(self, scorer: Scorer, lengths: Ints) -> list[slice]:
        """Which cases are ranked together, given the lengths of their histories, longest first."""
        most = max(1, self._affordable // self.data.sequences.num_items)
        if _has_query(scorer):
            most = max(most, LEAST_STATES)
        blocks, start = [], 0
        while start < len(lengths):
            size = min(most, MOST_CASES)
            if isinstance(scorer, SequenceModel):
                width = min(int(lengths[start]), scorer.config.max_length)
                size = min(most, max(1, TOKENS.get(self.device.type, TOKENS["cpu"]) // width))
            stop = min(start + min(size, self.most_cases or size), len(lengths))
            blocks.append(slice(start, stop))
            start = stop
        return blocks

    @property
    def _affordable(self) -> int:
        """Scores at a time that memory is for."""
        return self.config.memory_mb * 2**20 // (4 * ARRAYS_ALIVE)

    def _refuse(self, scorer: Scorer, cases: Cases, case: int) -> None:
        scores_BN = scorer.scores(self.histories(scorer, cases.take(np.array([case]))))
        require_finite(scores_BN, type(scorer).__name__, case)
        raise ScoreError(f"{type(scorer).__name__} gave scores that are not finite in case {case}, but not when alone.")

    def histories(self, scorer: Scorer, cases: Cases) -> Batch:
        """What the scorer is shown for each case."""
        return self._shown(scorer, Questions.of(cases, self._maker))

    def windows(
        self, users: Ints, sequences: Sequences, events: int, times: bool = False, values: bool = False
    ) -> Batch:
        """The last `events` events of each user in `sequences`, a view on this data set; with `times` or `values` if
        asked."""
        starts = np.maximum(sequences.starts[users], sequences.ends[users] - events)
        lengths = sequences.ends[users] - starts
        return self._maker.windows(users, starts, lengths, int(lengths.max()), times, values)

    def seen(self, cases: Cases) -> tuple[Tensor, Tensor]:
        """Pairs (case, item) of everything in the whole history of each case: two (P,) tensors."""
        return Questions.of(cases, self._maker).seen()

    def _shown(self, scorer: Scorer, asked: Questions) -> Batch:
        events = scorer.config.max_length if isinstance(scorer, SequenceModel) else UNBOUNDED
        return asked.histories(events, scorer.uses_times, scorer.uses_values)

    def _seen(self, asked: Questions) -> Pairs | None:
        return asked.seen() if self.config.filter_seen else None


@contextmanager
def _evaluating(scorer: Scorer) -> Iterator[None]:
    """A model without dropout, and products in all of float32: near-ties would be decided by the rounding of TF32."""
    training = isinstance(scorer, nn.Module) and scorer.training
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        if isinstance(scorer, nn.Module):
            scorer.eval()
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        if isinstance(scorer, nn.Module):
            scorer.train(training)


def _has_query(scorer: Scorer) -> TypeGuard[SequenceModel]:
    """Whether the scores of a model are those of its item vectors: one with scores of its own is asked for these."""
    return getattr(scorer.scores, "__func__", None) is SequenceModel.scores
