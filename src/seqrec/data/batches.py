"""Batches made on the device the model is on, by index arithmetic over one flat array of items.

Shapes: B rows, L positions, N events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from seqrec.data.sequences import PAD, Cases, Ints, Sequences
from seqrec.errors import DataError

#: Rows are padded to the next of these lengths, so that a compiled step meets few shapes.
BUCKETS = (8, 16, 32, 48, 64, 96, 128, 160, 200, 256, 384, 512, 768, 1024)
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
    """

    items: Tensor
    lengths: Tensor
    users: Tensor | None = None
    times: Tensor | None = None

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
        return replace(self, items=items_BL, lengths=lengths_B, times=times_BL)

    @classmethod
    def of(
        cls, histories: list[list[int]], device: torch.device | str = "cpu", times: list[list[int]] | None = None
    ) -> Batch:
        """A batch of the given histories, none of them empty, and when their events were, in milliseconds."""
        width = max(len(history) for history in histories)

        def padded(rows: list[list[int]], fill: int) -> Tensor:
            return torch.tensor([row + [fill] * (width - len(row)) for row in rows], dtype=torch.int64, device=device)

        lengths = torch.tensor([len(history) for history in histories], device=device)
        return cls(padded(histories, PAD), lengths, times=None if times is None else padded(times, NO_TIME))


class BatchMaker:
    """Cuts windows out of a flat array of items that lies on the device; one of times joins it when asked for."""

    def __init__(self, sequences: Sequences, device: torch.device) -> None:
        self.sequences = sequences
        self.device = device
        self._items_N = torch.from_numpy(np.array(sequences.items)).to(device)
        self._times_N: Tensor | None = None

    def windows(self, users: Ints, starts: Ints, lengths: Ints, width: int, times: bool = False) -> Batch:
        """Rows of `lengths` events from event `starts` on, padded to `width`; with their `times` if asked.

        Raises:
            DataError: times are asked for, and the data has none.
        """
        users_B, starts_B, lengths_B = (
            torch.from_numpy(np.ascontiguousarray(x)).to(self.device, non_blocking=True)
            for x in (users, starts, lengths)
        )
        offsets_L = torch.arange(width, device=self.device)
        index_BL = (starts_B[:, None] + offsets_L).clamp_(max=len(self._items_N) - 1)
        behind_BL = offsets_L >= lengths_B[:, None]
        items_BL = self._items_N[index_BL].long().masked_fill_(behind_BL, PAD)
        times_BL = self._clock()[index_BL].masked_fill_(behind_BL, NO_TIME) if times else None
        return Batch(items_BL, lengths_B, users_B, times_BL)

    def histories(self, cases: Cases, max_length: int, times: bool = False) -> Batch:
        """The history of each case, the last `max_length` events of it; with their `times` if asked."""
        starts = np.maximum(self.sequences.starts[cases.users], cases.ends - max_length)
        lengths = cases.ends - starts
        return self.windows(cases.users, starts, lengths, min(bucket(int(lengths.max())), max_length), times)

    def _clock(self) -> Tensor:
        """(N,) int64 milliseconds, brought to the device the first time that a model asks for them."""
        if self._times_N is None:
            if self.sequences.times is None:
                raise DataError(
                    "The model looks at the time between events (model.time_gate), and these data have no clock "
                    "times: leave model.time_gate out, or prepare the data with their time column."
                )
            self._times_N = torch.from_numpy(np.array(self.sequences.times)).to(self.device)
        return self._times_N


@dataclass(frozen=True)
class EpochPlan:
    """Which windows an epoch trains on, batch by batch: decided at its start, from its seed alone."""

    users: list[Ints]
    starts: list[Ints]
    lengths: list[Ints]
    max_length: int

    def __len__(self) -> int:
        return len(self.users)

    @property
    def num_targets(self) -> int:
        """How many positions have a next item to learn from."""
        return sum(int(lengths.sum()) - len(lengths) for lengths in self.lengths)

    def batches(self, maker: BatchMaker, skip: int = 0, times: bool = False) -> Iterator[Batch]:
        """The batches from number `skip` on; one event more than a model reads, for the last target."""
        for users, starts, lengths in list(zip(self.users, self.starts, self.lengths, strict=True))[skip:]:
            width = min(bucket(int(lengths.max()) - 1), self.max_length) + 1
            yield maker.windows(users, starts, lengths, width, times)


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
    users_by_batch, starts_by_batch, lengths_by_batch = (np.split(x[order], cuts) for x in (users, starts, lengths))
    shuffled = random.permutation(len(users_by_batch))
    return EpochPlan(
        users=[users_by_batch[number] for number in shuffled],
        starts=[starts_by_batch[number] for number in shuffled],
        lengths=[lengths_by_batch[number] for number in shuffled],
        max_length=max_length,
    )


def bucket(length: int) -> int:
    """The padded length for rows of up to `length` events."""
    for size in BUCKETS:
        if length <= size:
            return size
    return -(-length // 512) * 512
