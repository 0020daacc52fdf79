"""The cases of an evaluation, on the device: what a scorer is shown for them, and what they have seen.

They come from the host once; batches of them are index arithmetic over the events that lie on the device anyway.

Shapes: B cases, P pairs of (case, seen item).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from seqrec.data.batches import Batch, BatchMaker
from seqrec.data.sequences import Cases, Ints
from seqrec.kernels.ranking import Pairs

#: Histories are padded to a multiple of this: few shapes to make kernels and memory for, and little padding.
WIDTHS = 8


@dataclass(frozen=True)
class Questions:
    """Cases in an order of their own.

    Attributes:
        table: (4, B) int64 on the device: users, where their histories start and end, and targets.
        lengths: (B,) events of each history, on the host, which so knows every shape beforehand.
    """

    maker: BatchMaker
    table: Tensor
    lengths: Ints

    @classmethod
    def of(cls, cases: Cases, maker: BatchMaker) -> Questions:
        """The same cases, brought to the device."""
        starts, targets = maker.sequences.starts[cases.users], maker.sequences.items[cases.positions]
        table = np.stack([cases.users, starts, cases.ends, targets]).astype(np.int64, copy=False)
        return cls(maker, torch.from_numpy(table).to(maker.device), cases.ends - starts)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def targets(self) -> Tensor:
        """(B,) int64 items."""
        return self.table[3]

    def at(self, index: Ints) -> Questions:
        """The cases at `index`, in that order."""
        on_device = torch.from_numpy(index).to(self.table.device)
        return replace(self, table=self.table[:, on_device], lengths=self.lengths[index])

    def block(self, rows: slice) -> Questions:
        """Neighbouring cases, of which nothing has to come from the host."""
        return replace(self, table=self.table[:, rows], lengths=self.lengths[rows])

    def histories(self, events: int, times: bool, values: bool = False) -> Batch:
        """The last `events` events of each history; with their `times` or `values` if asked."""
        users_B, starts_B, ends_B, _ = self.table
        starts_B = torch.maximum(starts_B, ends_B - events)
        width = min(-(-int(self.lengths.max()) // WIDTHS) * WIDTHS, events)
        return self.maker.cut(torch.stack([users_B, starts_B, ends_B - starts_B]), width, times, values)

    def seen(self) -> Pairs:
        """Every (case, item) of the whole histories: two (P,) int64."""
        _, starts_B, ends_B, _ = self.table
        lengths_B, pairs, device = ends_B - starts_B, int(self.lengths.sum()), self.table.device
        rows_P = torch.repeat_interleave(torch.arange(len(self), device=device), lengths_B, output_size=pairs)
        before_B = lengths_B.cumsum(0) - lengths_B
        events_P = torch.arange(pairs, device=device) + (starts_B - before_B)[rows_P]
        return rows_P, self.maker.items_N[events_P].long()
