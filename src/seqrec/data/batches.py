"""Batches made on the device the model is on, by index arithmetic over one flat array of items.

Shapes: B rows, L positions, N events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from seqrec.data.sequences import PAD, Ints, Sequences
from seqrec.errors import DataError

#: Rows are padded to the next of these lengths: a step is recorded for each one, so there are few.
BUCKETS = (8, *range(16, 257, 16), 320, 384, 448, 512, 640, 768, 896, 1024)
#: What stands for the time of an event whose time nobody knows, and of no event.
NO_TIME = torch.iinfo(torch.int64).min


@dataclass(frozen=True)
class Batch:
    """Histories, oldest event first, padded on the right.

    Attributes:
        items: (B, L) int64, PAD behind the last event.
        lengths: (B,) int64, at least 1.
        users: (B,) int64 user of each row, or None for people who are not in the data.
        times: (B, L) int64 milliseconds, NO_TIME where unknown and behind the last event. None where no model asked
            for them (`Scorer.uses_times`) or nobody knows them.
        values: (B, L) float32 ratings, NaN where unknown and behind the last event. None where no model asked for
            them (`Scorer.uses_values`) or nobody knows them.
    """

    items: Tensor
    lengths: Tensor
    users: Tensor | None = None
    times: Tensor | None = None
    values: Tensor | None = None

    def __len__(self) -> int:
        return self.items.shape[0]

    @property
    def valid(self) -> Tensor:
        """(B, L) bool, true where there is an event."""
        return torch.arange(self.items.shape[1], device=self.items.device) < self.lengths[:, None]

    def last(self, h_BLD: Tensor) -> Tensor:
        """The state after each row's last event (B, D)."""
        return h_BLD[torch.arange(len(self), device=h_BLD.device), self.lengths - 1]

    def with_items(self, items_BL: Tensor) -> Batch:
        """The same rows with other items in them."""
        return replace(self, items=items_BL)

    def split(self, rows: int) -> list[Batch]:
        """Batches of `rows` rows, the last one perhaps of fewer; views."""
        nothing = [None] * -(-len(self) // rows)
        users = nothing if self.users is None else self.users.split(rows)
        times = nothing if self.times is None else self.times.split(rows)
        values = nothing if self.values is None else self.values.split(rows)
        parts = zip(self.items.split(rows), self.lengths.split(rows), users, times, values, strict=True)
        return [Batch(*part) for part in parts]

    def tail(self, events: int) -> Batch:
        """The last `events` events of each row: what a model that reads no more is shown."""
        if self.items.shape[1] <= events:
            return self
        lengths_B = self.lengths.clamp(max=events)
        places_L = torch.arange(events, device=self.items.device)
        index_BL = ((self.lengths - lengths_B)[:, None] + places_L).clamp_(max=self.items.shape[1] - 1)
        behind_BL = places_L >= lengths_B[:, None]
        items_BL = self.items.gather(1, index_BL).masked_fill_(behind_BL, PAD)
        times_BL = None if self.times is None else self.times.gather(1, index_BL).masked_fill_(behind_BL, NO_TIME)
        values_BL = None if self.values is None else self.values.gather(1, index_BL).masked_fill_(behind_BL, torch.nan)
        return replace(self, items=items_BL, lengths=lengths_B, times=times_BL, values=values_BL)

    @classmethod
    def of(
        cls,
        histories: list[list[int]],
        device: torch.device | str = "cpu",
        times: list[list[int]] | None = None,
        values: list[list[float]] | None = None,
    ) -> Batch:
        """A batch of the given histories, none of them empty, when their events were, in milliseconds, and their
        ratings."""
        width = max(len(history) for history in histories)

        def padded(rows: Sequence[Sequence[float]], fill: float, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=dtype, device=device)

        lengths = torch.tensor([len(history) for history in histories], device=device)
        times_BL = None if times is None else padded(times, NO_TIME)
        values_BL = None if values is None else padded(values, torch.nan, torch.float32)
        return cls(padded(histories, PAD), lengths, times=times_BL, values=values_BL)


class BatchMaker:
    """Cuts windows out of a flat array of items that lies on the device; those of times and ratings join it when they
    are asked for."""

    def __init__(self, sequences: Sequences, device: torch.device) -> None:
        self.sequences = sequences
        self.device = device
        self.items_N = torch.from_numpy(np.array(sequences.items)).to(device)
        self._times_N: Tensor | None = None
        self._values_N: Tensor | None = None

    def windows(
        self, users: Ints, starts: Ints, lengths: Ints, width: int, times: bool = False, values: bool = False
    ) -> Batch:
        """Rows of `lengths` events from event `starts` on, padded to `width`; with their `times` or `values` if asked.

        Raises:
            DataError: times or ratings are asked for, and the data has none.
        """
        rows_3B = torch.from_numpy(np.stack([users, starts, lengths])).to(self.device, non_blocking=True)
        return self.cut(rows_3B, width, times, values)

    def cut(self, rows_3B: Tensor, width: int, times: bool = False, values: bool = False) -> Batch:
        """As `windows`, of rows (users, starts, lengths) that lie on the device: nothing comes from the host."""
        users_B, starts_B, lengths_B = rows_3B
        offsets_L = torch.arange(width, device=self.device)
        index_BL = (starts_B[:, None] + offsets_L).clamp_(max=len(self.items_N) - 1)
        behind_BL = offsets_L >= lengths_B[:, None]
        items_BL = self.items_N[index_BL].long().masked_fill_(behind_BL, PAD)
        times_BL = self._clock()[index_BL].masked_fill_(behind_BL, NO_TIME) if times else None
        values_BL = self._ratings()[index_BL].masked_fill_(behind_BL, torch.nan) if values else None
        return Batch(items_BL, lengths_B, users_B, times_BL, values_BL)

    def _clock(self) -> Tensor:
        """(N,) int64 milliseconds, brought to the device the first time that a model asks for them."""
        if self._times_N is None:
            if self.sequences.times is None:
                raise DataError(
                    "The model looks at the time between events (model.time_gate, or model.time_bias of hstu), and "
                    "these data have no clock times: leave that key out, or prepare the data with their time column."
                )
            self._times_N = torch.from_numpy(np.array(self.sequences.times)).to(self.device)
        return self._times_N

    def _ratings(self) -> Tensor:
        """(N,) float32, brought to the device the first time that a model asks for them."""
        if self._values_N is None:
            if self.sequences.values is None:
                raise DataError(
                    "The model reads ratings (model.rating_input), and these data have none: leave model.rating_input "
                    "out, or prepare the data with their column of ratings."
                )
            self._values_N = torch.from_numpy(np.array(self.sequences.values, dtype=np.float32)).to(self.device)
        return self._values_N


@dataclass(frozen=True)
class EpochPlan:
    """Which windows an epoch trains on, batch by batch: decided at its start, from its seed alone.

    Attributes:
        rows: (3, E) int64 users, starts and lengths of the windows, one batch behind the other.
        cuts: (S + 1,) where each of S batches starts in `rows`, and where the last one ends.
        max_length: how many events of a window a model reads; one more is there as the last target.
    """

    rows: Ints
    cuts: Ints
    max_length: int

    def __len__(self) -> int:
        return len(self.cuts) - 1

    @property
    def num_targets(self) -> int:
        """How many positions have a next item to learn from."""
        return int(self.rows[2].sum()) - self.rows.shape[1]

    @property
    def widths(self) -> list[int]:
        """Events that the windows of each batch are padded to."""
        longest = np.maximum.reduceat(self.rows[2], self.cuts[:-1])
        return [min(bucket(int(length) - 1), self.max_length) + 1 for length in longest]

    def batches(self, device: torch.device, skip: int = 0) -> Iterator[tuple[Tensor, int]]:
        """Rows (3, B) on the device, brought there in one go, and the width of each batch from number `skip` on."""
        rows_3E = torch.from_numpy(self.rows).to(device, non_blocking=True)
        for number, width in list(enumerate(self.widths))[skip:]:
            yield rows_3E[:, self.cuts[number] : self.cuts[number + 1]], width


def plan_epoch(
    sequences: Sequences, max_length: int, batch_size: int, random_windows: bool, seed: list[int]
) -> EpochPlan:
    """One window per user with at least two events, in batches of about equal length.

    Args:
        max_length: a window has up to this many inputs, so up to `max_length + 1` events.
        random_windows: cut the window anywhere in a longer history; otherwise its last events.
        seed: entropy of the epoch; the same seed gives the same plan.

    Raises:
        DataError: no user has two events.
    """
    random = np.random.default_rng(seed)
    users = random.permutation(np.flatnonzero(sequences.lengths >= 2))
    if len(users) == 0:
        raise DataError("No user has two events in the training part: there is no next item to learn from.")
    lengths = np.minimum(sequences.lengths[users], max_length + 1)
    room = sequences.lengths[users] - lengths
    starts = sequences.starts[users] + (random.integers(0, room + 1) if random_windows else room)
    # Sorting within pools of batches keeps padding low, and who shares a batch with whom random.
    pool = np.arange(len(users)) // (batch_size * 16)
    order = np.lexsort((lengths, pool))
    cuts = np.arange(batch_size, len(users), batch_size)
    batches = np.split(np.stack([users, starts, lengths])[:, order], cuts, axis=1)
    shuffled = [batches[number] for number in random.permutation(len(batches))]
    ends = np.cumsum([0, *(batch.shape[1] for batch in shuffled)])
    return EpochPlan(np.concatenate(shuffled, axis=1), ends, max_length)


def bucket(length: int) -> int:
    """The padded length for rows of up to `length` events."""
    for size in BUCKETS:
        if length <= size:
            return size
    return -(-length // 512) * 512
