"""What every export needs: events with the ids of the source, a block at a time, and times without ties.

Shapes: N events, U users, B events of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Ints

#: Events that are in memory as strings at a time.
BLOCK = 500_000


@dataclass(frozen=True)
class Events:
    """The N events of a prepared data set in its order: user by user, oldest first."""

    data: PreparedData

    def __len__(self) -> int:
        return int(self.data.sequences.ends[-1])

    @cached_property
    def user_ids(self) -> pa.Array:
        """(U,) strings."""
        return pa.array(self.data.user_ids(), pa.string())

    @cached_property
    def item_ids(self) -> pa.Array:
        """(n,) strings; item j is entry j - 1."""
        return pa.array(self.data.catalogue.ids, pa.string())

    def blocks(self) -> Iterator[slice]:
        """Slices of at most `BLOCK` events that cover all."""
        return (slice(start, min(start + BLOCK, len(self))) for start in range(0, len(self), BLOCK))

    def owners(self, events: slice) -> Ints:
        """(B,) user of each event."""
        return np.searchsorted(self.data.sequences.ends, np.arange(events.start, events.stop), side="right")

    def users(self, events: slice) -> pa.Array:
        """(B,) user ids."""
        return self.user_ids.take(pa.array(self.owners(events)))

    def items(self, events: slice) -> pa.Array:
        """(B,) item ids."""
        return self.item_ids.take(pa.array(self.data.sequences.items[events] - 1))

    def order(self, events: slice) -> Ints:
        """(B,) place of each event in its user's history, from 0."""
        return np.arange(events.start, events.stop) - self.data.sequences.starts[self.owners(events)]

    def ratings(self, events: slice) -> npt.NDArray[np.float64]:
        """(B,) rating of each event, 1 where the source has none."""
        values = self.data.sequences.values
        if values is None:
            return np.ones(events.stop - events.start)
        return np.nan_to_num(values[events].astype(np.float64), nan=1.0)

    @cached_property
    def microseconds(self) -> Ints:
        """(N,) int64 microseconds since 1970, strictly increasing within each user.

        The k-th event of a tie is k microseconds late, so that a sort that is not stable keeps our order.
        Without clock times an event's place in its history counts as seconds.
        """
        starts, ends, times = self.data.sequences.starts, self.data.sequences.ends, self.data.sequences.times
        if times is None:
            return (np.arange(len(self)) - np.repeat(starts, ends - starts)) * 1_000_000
        later = np.ones(len(self), dtype=bool)
        later[1:] = times[1:] != times[:-1]
        later[starts] = True
        run_starts = np.flatnonzero(later)
        late = np.arange(len(self)) - np.repeat(run_starts, np.diff(run_starts, append=len(self)))
        strict: Ints = times * 1_000 + late
        for user in self._crowded(strict):  # over a thousand events in one millisecond: push the next ones back
            own = slice(starts[user], ends[user])
            steps = np.arange(ends[user] - starts[user])
            strict[own] = steps + np.maximum.accumulate(strict[own] - steps)
        return strict

    def _crowded(self, strict: Ints) -> Ints:
        back = np.flatnonzero(strict[1:] <= strict[:-1]) + 1
        users = np.searchsorted(self.data.sequences.ends, back, side="right")
        return np.unique(users[back != self.data.sequences.starts[users]])

    @cached_property
    def parts(self) -> npt.NDArray[np.uint8]:
        """(N,) index into `PARTS`: what the split does with each event."""
        sequences, split = self.data.sequences, self.data.split
        parts = np.full(len(self), PARTS.index("unused"), dtype=np.uint8)
        lengths = sequences.ends - sequences.starts
        parts[np.arange(len(self)) < np.repeat(split.train_ends, lengths)] = PARTS.index("train")
        for part in ("validation", "test"):
            parts[self.data.cases(part).positions] = PARTS.index(part)
        return parts


#: An `unused` event is in the input of later cases, but neither trained on nor asked for.
PARTS = ("train", "validation", "test", "unused")


def features(data: PreparedData) -> pa.Table | None:
    """Item features in long format: `id`, `value`, `feature` (`category` or `year`); None where nothing is known."""
    names = data.catalogue
    rows = [
        (name, value, "category") for name, found in zip(names.ids, names.categories, strict=True) for value in found
    ]
    rows += [(name, str(year), "year") for name, year in zip(names.ids, names.years, strict=True) if year is not None]
    if not rows:
        return None
    return pa.table(
        [pa.array(column, pa.string()) for column in zip(*rows, strict=True)], names=["id", "value", "feature"]
    )
