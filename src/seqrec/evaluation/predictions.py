"""Lists that another toolkit made, as a scorer: the one protocol judges them as it judges any model.

What is listed is ranked by the file. What is not listed ties below all of it, so that it counts against the file: a
target that is not listed is a miss at every cut-off.

Shapes: B rows, M cases, N items, U users, P entries of all lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Cases, Ints, Sequences
from seqrec.errors import DataError, ScoreError
from seqrec.evaluation.evaluation import BREAKDOWN_AT, Evaluation
from seqrec.evaluation.prediction_files import SHOWN, Entries, read_entries
from seqrec.models.base import Scorer

#: Cells of (users, N) that are alive at once while seen items are looked for.
CELLS = 1 << 25


class PredictionsConfig(Config):
    """What happens where the file says nothing."""

    missing: Literal["refuse", "miss"] = "refuse"


class Predictions(Scorer):
    """Lists of one file, by user of one data set.

    People without a list are refused, and so are cut-offs that not every list reaches, unless `missing` is `miss`:
    then the places that are not filled count as misses.
    """

    Config = PredictionsConfig

    def __init__(self, entries: Entries, data: PreparedData, config: PredictionsConfig) -> None:
        self.config: PredictionsConfig = config
        self.num_items = data.sequences.num_items
        self.where = entries.where
        self.user_ids = data.user_ids()
        self.offsets = torch.from_numpy(np.searchsorted(entries.users, np.arange(len(self.user_ids) + 1)))
        self.items_P = torch.from_numpy(entries.items)
        self.scores_P = torch.from_numpy(-entries.levels).float()  # small whole numbers: exact in float32
        self.below = -float(entries.levels.max() + 1)

    @classmethod
    def read(cls, source: Any, data: PreparedData, missing: str = "refuse") -> Self:
        """Read lists or scored entries; ids are those of the source that `data` were made from.

        Args:
            source: path of a Parquet or CSV file, or a pandas, polars or Arrow frame. Long form: columns user, item,
                and score or rank. Wide form: user, and a list column `items` (or `recommended`), best first, perhaps
                with a list column `scores`.
            missing: `refuse`, or `miss`: see the class.

        Raises:
            DataError: the file does not fit the data; the message says what was found, where, and the remedy.
            ConfigError: `missing` is neither.
        """
        config = PredictionsConfig.parse({"missing": missing}, "")
        return cls(read_entries(source, data), data, config)

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        """0 for what the file lists first, -1 for what comes next, and so on; what is not listed lies below.

        Raises:
            ScoreError: the rows are not of people of the data.
        """
        if batch.users is None:
            raise ScoreError(f"{self.where} has lists of people of its data only; it cannot score other histories.")
        users, device = batch.users.cpu(), batch.items.device
        starts, counts = self.offsets[users], self.offsets[users + 1] - self.offsets[users]
        rows = torch.repeat_interleave(counts)
        index = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows] + starts[rows]
        scores_BN = torch.full((len(batch), self.num_items), self.below)
        scores_BN[rows, self.items_P[index] - 1] = self.scores_P[index]
        return (scores_BN if items is None else scores_BN[:, items.cpu() - 1]).to(device)

    def judged(self, found: Evaluation, cases: Cases, sequences: Sequences, filter_seen: bool) -> Evaluation:
        """What may be said of the lists: `found` without cut-offs that they do not reach, unlisted targets missed.

        Args:
            found: the ranks that an evaluator gave for `cases`.
            filter_seen: whether items of the history were left out there.

        Raises:
            DataError: people have no list, several cases with different histories, or too short a list.
        """
        users, ends = self._one_history_each(cases)
        counts = (self.offsets[1:] - self.offsets[:-1]).numpy()[users]
        without = users[counts == 0]
        if len(without) and (self.config.missing == "refuse" or len(without) == len(users)):
            some = ", ".join(repr(self.user_ids[user]) for user in without[:SHOWN])
            raise DataError(
                f"{self.where}: {len(without):,} of {len(users):,} people who are asked for have no list, such as "
                f"{some}. Write theirs too; --missing miss (in Python missing='miss') counts them as misses."
            )
        left, room = counts, np.full(len(users), self.num_items)
        if filter_seen:
            left, room = self._unseen(users, ends, sequences)
        ks = self._reached(np.where(left < room, left, max(found.ks)), found.ks, users)
        length_M = left[np.searchsorted(users, cases.users)]
        listed = np.arange(found.lists.shape[1]) < length_M[:, None]
        return replace(
            found,
            ks=ks,
            ranks=np.where(found.ranks > length_M, self.num_items + 1, found.ranks),
            lists=np.where(listed, found.lists, 0),
            protocol=found.protocol + self._words(counts, left, found.ks[len(ks) :], len(without)),
        )

    def _one_history_each(self, cases: Cases) -> tuple[Ints, Ints]:
        """(U,) users who are asked for and where the history of each ends."""
        order = np.lexsort((cases.ends, cases.users))
        users, ends = cases.users[order], cases.ends[order]
        several = np.unique(users[1:][(np.diff(users) == 0) & (np.diff(ends) > 0)])
        if len(several):
            raise DataError(
                f"{self.where}: {len(several):,} people are asked several times, each time after a longer history "
                f"(such as {self.user_ids[several[0]]!r}), and one list per person cannot answer that. Prepare the "
                "data with data.targets last or all (everything asked for from one history)."
            )
        users, first = np.unique(users, return_index=True)
        return users, ends[first]

    def _unseen(self, users: Ints, ends: Ints, sequences: Sequences) -> tuple[Ints, Ints]:
        """(U,) listed items that are not in the user's history, and (U,) all that are not."""
        left, room = np.zeros(len(users), dtype=np.int64), np.zeros(len(users), dtype=np.int64)
        offsets, size = self.offsets.numpy(), max(1, CELLS // self.num_items)
        for start in range(0, len(users), size):
            block = slice(start, start + size)
            unseen = np.ones((len(users[block]), self.num_items + 1), dtype=bool)
            unseen[_spread(sequences.starts[users[block]], ends[block], sequences.items)] = False
            rows, items = _spread(offsets[users[block]], offsets[users[block] + 1], self.items_P.numpy())
            left[block] = np.bincount(rows, weights=unseen[rows, items], minlength=len(unseen))
            room[block] = unseen[:, 1:].sum(1)
        return left, room

    def _reached(self, lengths: Ints, ks: tuple[int, ...], users: Ints) -> tuple[int, ...]:
        """Cut-offs that every list reaches, or with `miss` the longest; lists of all there is reach everything."""
        deciding = int(lengths.argmin() if self.config.missing == "refuse" else lengths.argmax())
        reached = tuple(k for k in ks if k <= lengths[deciding])
        if not reached:
            raise DataError(
                f"{self.where}: the list of user {self.user_ids[users[deciding]]!r} has {lengths[deciding]} items that "
                f"may be shown, and the smallest cut-off is {ks[0]}. Write longer lists, or leave seen items out of "
                "them; --missing miss (in Python missing='miss') counts empty places as misses."
            )
        return reached

    def _words(self, counts: Ints, left: Ints, dropped: tuple[int, ...], without: int) -> str:
        """What the protocol line adds."""
        lengths = f"{left.min()}" if left.min() == left.max() else f"{left.min()} to {left.max()}"
        words = f"; lists of {Path(self.where).name}: {lengths} items that may be shown"
        if seen := counts.sum() - left.sum():
            words += f", {seen / counts.sum():.1%} of entries were seen items and are left out"
        if dropped:
            which = "longest" if self.config.missing == "miss" else "shortest"
            words += f", no cut-off {' or '.join(map(str, dropped))}: the {which} list does not reach it"
        if dropped and dropped[0] <= BREAKDOWN_AT:
            words += f" (breakdowns at {BREAKDOWN_AT} count places that are not filled as misses)"
        if self.config.missing == "miss":
            words += f", places that are not filled count as misses ({without:,} without a list)"
        return words

    def state_dict(self) -> dict[str, Tensor]:
        return {"offsets": self.offsets, "items": self.items_P, "scores": self.scores_P}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.offsets, self.items_P, self.scores_P = state["offsets"], state["items"], state["scores"]
        self.below = float(self.scores_P.min()) - 1


def _spread(starts: Ints, ends: Ints, items: Any) -> tuple[Ints, Ints]:
    """Row and item of everything in starts[r]..ends[r] - 1 of every row r."""
    lengths = ends - starts
    rows = np.repeat(np.arange(len(starts)), lengths)
    index = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + starts[rows]
    return rows, items[index]
