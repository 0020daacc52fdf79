"""Every user's items in order, as one flat array and two arrays of positions: views cost nothing.

Shapes: N events, U users, M cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from seqrec.data.spool import BLOCK

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
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
        values: (N,) float32 ratings, NaN where an event has none; None where the source has none at all.
    """

    items: npt.NDArray[np.int32]
    starts: Ints
    ends: Ints
    num_items: int
    times: Ints | None = None
    values: npt.NDArray[np.float32] | None = None

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

    def since(self, moment: int) -> Sequences:
        """The same users with their events from `moment` (milliseconds) on; shares all arrays."""
        return replace(self, starts=self.before(moment))

    def before(self, moment: int) -> Ints:
        """(U,) position of each user's first event from `moment` (milliseconds) on, or where the history ends.

        Raises:
            ValueError: there are no times.
        """
        if self.times is None:
            raise ValueError("these histories have no clock times")
        found = self.starts.copy()
        for users, events in self.blocks():
            passed = np.r_[0, np.cumsum(self.times[events] < moment)]
            low, high = self.starts[users] - events.start, self.ends[users] - events.start
            found[users] += passed[high] - passed[low]
        return found

    def with_items(self, items: npt.NDArray[np.int32], num_items: int) -> Sequences:
        """The same histories with other items in them."""
        return replace(self, items=items, num_items=num_items)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays of N events that there are, by name."""
        columns = {"items": self.items, "times": self.times, "values": self.values}
        return {name: column for name, column in columns.items() if column is not None}

    def counts(self) -> Ints:
        """(num_items,) how often each item occurs in these histories; entry j is item j + 1."""
        counts = np.zeros(self.num_items + 1, dtype=np.int64)
        for users, events in self.blocks():
            inside = np.zeros(events.stop - events.start + 1, dtype=np.int64)
            np.add.at(inside, self.starts[users] - events.start, 1)
            np.add.at(inside, self.ends[users] - events.start, -1)
            counts += np.bincount(self.items[events][np.cumsum(inside[:-1]) > 0], minlength=self.num_items + 1)
        return counts[1:]

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Ranges of users with about `BLOCK` events, and the range of events that theirs lie in."""
        cuts = np.searchsorted(self.starts, np.arange(BLOCK, len(self.items), BLOCK))
        bounds = np.unique(np.concatenate([[0], cuts, [len(self)]])).tolist()
        for first, last in pairwise(bounds):
            events = slice(int(self.starts[first]), int(self.ends[first:last].max()))
            if events.stop > events.start:
                yield slice(first, last), events

    def owners(self, users: slice) -> Ints:
        """(n,) user of each event in a block of `blocks`, where histories leave no gaps between them."""
        return np.repeat(np.arange(users.start, users.stop), self.lengths[users])

    @classmethod
    def of(cls, histories: list[list[int]], num_items: int) -> Sequences:
        """Sequences of the given histories (lists of items 1..num_items)."""
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        ends = np.cumsum(lengths)
        items = np.array([item for history in histories for item in history], dtype=np.int32)
        return cls(items=items, starts=ends - lengths, ends=ends, num_items=num_items)


@dataclass(frozen=True)
class Cases:
    """What an evaluation asks: given the start of `users[m]`'s history, is the item of event `positions[m]` next?

    Attributes:
        users: (M,) int64 user of each case.
        positions: (M,) int64 index of the target in `Sequences.items`.
        history_ends: (M,) int64 where the history that is shown ends; None: just before each target.
    """

    users: Ints
    positions: Ints
    history_ends: Ints | None = None

    def __len__(self) -> int:
        return len(self.users)

    @property
    def ends(self) -> Ints:
        """(M,) where the history that is shown ends."""
        return self.positions if self.history_ends is None else self.history_ends

    def take(self, index: Ints) -> Cases:
        """The cases at `index`, in that order."""
        ends = None if self.history_ends is None else self.history_ends[index]
        return Cases(self.users[index], self.positions[index], ends)
