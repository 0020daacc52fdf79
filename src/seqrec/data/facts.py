"""What is worth knowing about a prepared log, counted once and stored beside it.

Shapes: N events, U users, M cases.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrec.data.sequences import Cases, Mask, Sequences
from seqrec.data.splits import Split


def log_facts(sequences: Sequences, again: Mask, clock: bool) -> dict[str, Any]:
    """Counts of a whole log, for JSON; `again` (N,) marks events whose item stands earlier in the history."""
    lengths = sequences.lengths
    facts: dict[str, Any] = {
        "users": len(sequences),
        "items": sequences.num_items,
        "events": sequences.num_events,
        "density": sequences.num_events / (len(sequences) * sequences.num_items),
        "length": {
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "mean": float(lengths.mean()),
            "max": int(lengths.max()),
        },
        "repeated_events": float(np.mean(again)),
        "duplicate_rows": _duplicates(sequences),
    }
    if clock and sequences.times is not None:
        span = sequences.times.min(), sequences.times.max()
        facts["first"], facts["last"] = (str(np.datetime64(int(time), "ms"))[:10] for time in span)
    return facts


def split_facts(sequences: Sequences, split: Split, again: Mask) -> dict[str, Any]:
    """Of each part: how many cases, and which shares of their targets are cold (never trained on), repeated (stand
    earlier in the history) and tied (at the very time of the event before: their order is the file's)."""
    trained = sequences.until(split.train_ends).counts() > 0
    parts = {"validation": split.validation, "test": split.test}
    return {
        "split": split.words,
        "training_events": int((split.train_ends - sequences.starts).sum()),
        **{
            part: {
                "cases": len(cases),
                "users": int(np.count_nonzero(np.bincount(cases.users))),
                "cold": _share(~trained[sequences.items[cases.positions] - 1]),
                "repeated": _share(_repeated(sequences, cases, again)),
                "tied": _share(_tied(sequences, cases)),
            }
            for part, cases in parts.items()
        },
    }


def _share(mask: Mask) -> float:
    return float(np.mean(mask)) if len(mask) else 0.0


def _repeated(sequences: Sequences, cases: Cases, again: Mask) -> Mask:
    """(M,) whether the target's item stands in the history that is shown."""
    if (cases.ends == cases.positions).all():
        repeated: Mask = again[cases.positions]
        return repeated
    found, width = np.zeros(len(cases), dtype=bool), sequences.num_items + 1
    cut = sequences.starts.copy()
    cut[cases.users] = cases.ends  # the same for all cases of a user
    for users, events in sequences.blocks():
        owners, items = sequences.owners(users), sequences.items[events]
        shown = np.arange(events.start, events.stop) < cut[owners]
        asked = np.flatnonzero((cases.users >= users.start) & (cases.users < users.stop))
        targets = cases.users[asked] * width + sequences.items[cases.positions[asked]]
        found[asked] = np.isin(targets, (owners * width + items)[shown])
    return found


def _tied(sequences: Sequences, cases: Cases) -> Mask:
    assert sequences.times is not None
    tied: Mask = sequences.times[cases.positions] == sequences.times[cases.positions - 1]
    return tied


def _duplicates(sequences: Sequences) -> int:
    """How many events repeat another one: same user, item and time. They are kept; music is full of them."""
    assert sequences.times is not None
    found = 0
    for users, events in sequences.blocks():
        owners, times = sequences.owners(users), sequences.times[events]
        with_next = (owners[1:] == owners[:-1]) & (times[1:] == times[:-1])
        tied = np.r_[with_next, False] | np.r_[False, with_next]
        owners, times, items = owners[tied], times[tied], sequences.items[events][tied]
        order = np.lexsort((items, times, owners))
        same = (np.diff(owners[order]) == 0) & (np.diff(times[order]) == 0) & (np.diff(items[order]) == 0)
        found += int(same.sum())
    return found
