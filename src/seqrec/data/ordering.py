"""From rows in the order of the source to histories: sorted by user, time and row, a block of users at a time.

Shapes: N events, U users.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seqrec.data.sequences import Ints, Mask, Sequences
from seqrec.data.spool import BLOCK, Spool, blocks


def order_events(
    users: npt.NDArray[np.int32],
    items: npt.NDArray[np.int32],
    times: Ints,
    values: npt.NDArray[Any] | None,
    keep: Mask,
    folder: Path,
) -> Sequences:
    """Histories of the rows that are kept; rows with the same time stay in the order they came in.

    Memory is a few blocks of events, whatever their number: each block of users is picked out in one pass over
    `users`, and sorted by itself.

    Args:
        users, items: (N,) codes from 0.
        times: (N,) int64.
        values: (N,) ratings, NaN where there is none; None without ratings.
        keep: (N,) which rows stay.
        folder: on the disk that takes the result.

    Returns:
        Sequences of all users 0..max, of those who kept nothing too; items count from 1.
    """
    ends = np.cumsum(_counts(users, keep))
    columns = {"items": Spool(np.int32, folder), "times": Spool(np.int64, folder)}
    if values is not None:
        columns["values"] = Spool(np.float32, folder)
    for first, last in _user_blocks(ends):
        chosen = _rows_of(users, keep, first, last)
        chosen = chosen[np.lexsort((times[chosen], users[chosen]))]
        columns["items"].append(items[chosen] + 1)
        columns["times"].append(times[chosen])
        if values is not None:
            columns["values"].append(values[chosen])
    return Sequences(
        starts=np.concatenate([[0], ends[:-1]]),
        ends=ends,
        num_items=int(items.max(initial=-1)) + 1,
        **{name: column.array() for name, column in columns.items()},
    )


def select(sequences: Sequences, keep: Mask, folder: Path) -> Sequences:
    """The events (N,) that are kept, of the same users; the sequences themselves when that is all of them."""
    if keep.all():
        return sequences
    lengths = np.zeros(len(sequences), dtype=np.int64)
    for users, events in sequences.blocks():
        before = np.r_[0, np.cumsum(keep[events])]
        low, high = sequences.starts[users] - events.start, sequences.ends[users] - events.start
        lengths[users] = before[high] - before[low]
    ends = np.cumsum(lengths)
    columns = {name: Spool(column.dtype, folder) for name, column in sequences.columns().items()}
    for block in blocks(len(keep)):
        for name, column in sequences.columns().items():
            columns[name].append(column[block][keep[block]])
    return Sequences(
        starts=ends - lengths,
        ends=ends,
        num_items=sequences.num_items,
        **{name: column.array() for name, column in columns.items()},
    )


def renumber_items(sequences: Sequences, folder: Path) -> tuple[Sequences, Ints]:
    """The same histories with items 1..n without gaps, and which item (from 1) each of them was."""
    present = np.flatnonzero(sequences.counts()) + 1
    if len(present) == sequences.num_items:
        return sequences, present
    number = np.zeros(sequences.num_items + 1, dtype=np.int32)
    number[present] = np.arange(1, len(present) + 1)
    renumbered = Spool(np.int32, folder)
    for block in blocks(len(sequences.items)):
        renumbered.append(number[sequences.items[block]])
    return sequences.with_items(renumbered.array(), len(present)), present


def _counts(users: npt.NDArray[np.int32], keep: Mask) -> Ints:
    num_users = int(users.max(initial=-1)) + 1
    counts = np.zeros(num_users, dtype=np.int64)
    for block in blocks(len(users)):
        counts += np.bincount(users[block][keep[block]], minlength=num_users)
    return counts


def _user_blocks(ends: Ints) -> list[tuple[int, int]]:
    """Ranges first..last-1 of users with about a block of events, or one user with more."""
    cuts = np.searchsorted(ends, np.arange(BLOCK, ends[-1] if len(ends) else 0, BLOCK)) + 1
    bounds = np.unique(np.concatenate([[0], cuts, [len(ends)]]))
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))


def _rows_of(users: npt.NDArray[np.int32], keep: Mask, first: int, last: int) -> Ints:
    found = []
    for block in blocks(len(users)):
        inside = (users[block] >= first) & (users[block] < last) & keep[block]
        found.append(np.flatnonzero(inside) + block.start)
    return np.concatenate(found)
