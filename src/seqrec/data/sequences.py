"""Every user's items in order, as one flat array and two arrays of positions: views cost nothing.

Shapes: N events, U users, M cases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
#: What stands at a position that holds no item. No item has this number, and it is never recommended.
PAD = 0


@dataclass(frozen=True)
class Sequences:
    """Histories of U users over one shared array of events (memory-mapped when loaded from disk).

    Attributes:
        items: (N,) int32, items 1..num_items, user by user, oldest first.
        starts, ends: (U,) int64, user u owns events starts[u]..ends[u] - 1.
        num_items: size of the catalogue, items that never occur here included.
        times: (N,) int64 milliseconds, or None without clock times.
    """

    items: npt.NDArray[np.int32]
    starts: Ints
    ends: Ints
    num_items: int
    times: Ints | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> Ints:
        """(U,) number of events of each user."""
        return self.ends - self.starts

    @property
    def num_events(self) -> int:
        """Number of events over all users."""
        return int(self.lengths.sum())

    def history(self, user: int) -> npt.NDArray[np.int32]:
        """The user's items, oldest first; a view."""
        return self.items[self.starts[user] : self.ends[user]]

    def until(self, ends: Ints) -> Sequences:
        """The same users with their histories cut at `ends` (U,); shares all arrays."""
        return replace(self, ends=ends)

    def counts(self) -> Ints:
        """(num_items,) how often each item occurs in these histories; entry j is item j + 1."""
        inside = np.zeros(len(self.items) + 1, dtype=np.int64)
        np.add.at(inside, self.starts, 1)
        np.add.at(inside, self.ends, -1)
        events = self.items[np.cumsum(inside[:-1]) > 0]
        return np.bincount(events, minlength=self.num_items + 1)[1:].astype(np.int64)

    @classmethod
    def of(cls, histories: list[list[int]], num_items: int) -> Sequences:
        """Sequences of the given histories (lists of items 1..num_items)."""
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        ends = np.cumsum(lengths)
        items = np.array([item for history in histories for item in history], dtype=np.int32)
        return cls(items=items, starts=ends - lengths, ends=ends, num_items=num_items)


@dataclass(frozen=True)
class Cases:
    """What an evaluation asks: given all of `users[m]`'s events before event `positions[m]`, which item is there?

    Attributes:
        users: (M,) int64 user of each case.
        positions: (M,) int64 index of the target in `Sequences.items`.
    """

    users: Ints
    positions: Ints

    def __len__(self) -> int:
        return len(self.users)

    def take(self, index: Ints) -> Cases:
        """The cases at `index`, in that order."""
        return Cases(self.users[index], self.positions[index])
