"""Which events train, which are asked for in validation, which in the test."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from seqrec.data.catalogue import Catalogue
from seqrec.data.sequences import Cases, Ints, Sequences


@dataclass(frozen=True)
class Split:
    """Training histories end at `train_ends` (U,); later events are asked for, never trained on."""

    train_ends: Ints
    validation: Cases
    test: Cases


def leave_one_out(sequences: Sequences) -> Split:
    """Each user's last event is the test target, the one before it the validation target.

    A user with fewer than three events only trains: there would be no history to predict from.
    """
    users = np.flatnonzero(sequences.lengths >= 3)
    last = sequences.ends[users] - 1
    train_ends = sequences.ends.copy()
    train_ends[users] -= 2
    return Split(train_ends, validation=Cases(users, last - 1), test=Cases(users, last))


def target_hash(cases: Cases, sequences: Sequences, user_ids: list[str], catalogue: Catalogue) -> str:
    """SHA-256 of the sorted lines `user<TAB>item` in ids of the source: equal hashes, equal questions."""
    targets = sequences.items[cases.positions]
    lines = sorted(
        f"{user_ids[user]}\t{catalogue.ids[item - 1]}\n" for user, item in zip(cases.users, targets, strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()
