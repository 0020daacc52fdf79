"""Which events are kept before anything is split: functions that give a mask (N,) over events.

Shapes: N events, U users.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from seqrec.data.sequences import Ints, Mask, Sequences
from seqrec.data.spool import blocks

DAY_MS = 86_400_000


def k_core(
    users: npt.NDArray[np.int32], items: npt.NDArray[np.int32], k: int, *, user_k: int | None = None, once: bool = False
) -> Mask:
    """Mask (N,) of the largest part in which every user and every item has at least `k` events.

    Dropping an item can push a user below `k`, and the other way round: passes repeat until nothing drops.

    Args:
        users, items: (N,) codes from 0.
        k: at least this many events; 0 and 1 keep everything.
        user_k: another minimum for users than for items.
        once: a single pass over the counts as they are; some are below `k` afterwards.
    """
    keep = np.ones(len(users), dtype=bool)
    while True:
        enough = keep.copy()
        for codes, least in ((users, k if user_k is None else user_k), (items, k)):
            counts = np.zeros(int(codes.max(initial=-1)) + 1, dtype=np.int64)
            for block in blocks(len(codes)):
                counts += np.bincount(codes[block][keep[block]], minlength=len(counts))
            for block in blocks(len(codes)):
                enough[block] &= (counts >= least)[codes[block]]
        if once or np.array_equal(enough, keep):
            return enough
        keep = enough


def repeated(sequences: Sequences) -> Mask:
    """(N,) whether an event's item stands earlier in the same history. Histories leave no gaps between them."""
    mask = np.zeros(len(sequences.items), dtype=bool)
    for users, events in sequences.blocks():
        keys = sequences.owners(users) * (sequences.num_items + 1) + sequences.items[events]
        order = np.argsort(keys, kind="stable")
        again = keys[order[1:]] == keys[order[:-1]]
        mask[events.start + order[1:][again]] = True
    return mask


def of_busy_users(sequences: Sequences, max_per_day: int) -> Mask:
    """(N,) events of users who did more than `max_per_day` things on some day (UTC): programs, not people."""
    assert sequences.times is not None
    mask = np.zeros(len(sequences.items), dtype=bool)
    for users, events in sequences.blocks():
        owners, days = sequences.owners(users), sequences.times[events] // DAY_MS
        opens = np.flatnonzero(np.r_[True, (owners[1:] != owners[:-1]) | (days[1:] != days[:-1])])
        per_day = np.diff(np.r_[opens, len(owners)])
        busy = np.zeros(users.stop - users.start, dtype=bool)
        busy[owners[opens[per_day > max_per_day]] - users.start] = True
        mask[events] = busy[owners - users.start]
    return mask


def session_starts(sequences: Sequences, gap_ms: float) -> Mask:
    """(N,) whether an event opens a session: a history's first, or one after a pause of more than `gap_ms`."""
    assert sequences.times is not None
    opens = np.zeros(len(sequences.items), dtype=bool)
    opens[sequences.starts[sequences.lengths > 0]] = True
    for block in blocks(len(opens)):
        times = sequences.times[max(block.start - 1, 0) : block.stop]
        opens[block.stop - len(times) + 1 : block.stop] |= np.diff(times) > gap_ms
    return opens


def in_short_sessions(opens: Mask, least: int) -> Mask:
    """(N,) events of sessions with fewer than `least` events, where `opens` (N,) marks the first of each."""
    starts = np.flatnonzero(opens)
    lengths = np.diff(np.r_[starts, len(opens)])
    return np.repeat(lengths < least, lengths)


def as_sessions(sequences: Sequences, opens: Mask) -> tuple[Sequences, Ints]:
    """The same events with a history for every session, and the user (S,) of each."""
    starts = np.flatnonzero(opens)
    ends = np.r_[starts[1:], len(opens)]
    owners = np.searchsorted(sequences.ends, starts, side="right")
    return replace(sequences, starts=starts, ends=ends), owners
