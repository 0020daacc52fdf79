"""Which events train, which are asked for in validation, which in the test.

Every split says where each training history ends, and which later events are asked for. What trains is always the
start of a history; the weights see nothing behind it.

Shapes: N events, U users, M cases.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from seqrec.data.catalogue import Catalogue
from seqrec.data.config import DataConfig, milliseconds
from seqrec.data.filters import session_starts
from seqrec.data.sequences import Cases, Ints, Sequences
from seqrec.errors import ConfigError, DataError


@dataclass(frozen=True)
class Split:
    """Training histories end at `train_ends` (U,); later events are asked for, never trained on.

    Attributes:
        words: how it was made, as protocols say it.
        moments: of a split in time, where validation and test begin (milliseconds).
    """

    train_ends: Ints
    validation: Cases
    test: Cases
    words: str = "leave-one-out"
    moments: dict[str, int] = field(default_factory=dict)


def leave_one_out(sequences: Sequences) -> Split:
    """Each user's last event is the test target, the one before it the validation target.

    A user with fewer than three events only trains: there would be no history to predict from.
    """
    users = np.flatnonzero(sequences.lengths >= 3)
    last = sequences.ends[users] - 1
    train_ends = sequences.ends.copy()
    train_ends[users] -= 2
    return Split(train_ends, validation=Cases(users, last - 1), test=Cases(users, last))


def temporal(sequences: Sequences, validation_from: float | str, test_from: float | str, targets: str) -> Split:
    """One moment for everybody: before `validation_from` trains, from `test_from` on is the test.

    Args:
        validation_from, test_from: a share of all events (a quantile of their times), or an ISO date (UTC).
        targets: `last`, `successive` or `all`, see `cases_between`.
    """
    if sequences.times is None:
        raise ConfigError("split: a split in time needs clock times; this log has none. Use leave_one_out or ratio.")
    moments = [_moment(sequences.times, at) for at in (validation_from, test_from)]
    if not moments[0] < moments[1]:
        raise ConfigError(
            f"validation_from {validation_from} is not before test_from {test_from}: "
            f"they are {_iso(moments[0])} and {_iso(moments[1])} here. Give dates, or shares that lie farther apart."
        )
    first, second = (sequences.before(moment) for moment in moments)
    words = f"global split in time (validation from {_iso(moments[0])}, test from {_iso(moments[1])})"
    named = dict(zip(("validation_from", "test_from"), moments, strict=True))
    return _between(sequences, first, second, targets, words, named)


def ratio(sequences: Sequences, holdout: tuple[float, float], targets: str) -> Split:
    """The last share of every history is the test, the share before it validation, both rounded."""
    validation, test = (np.floor(sequences.lengths * share + 0.5).astype(np.int64) for share in holdout)
    first = np.maximum(sequences.ends - test - validation, sequences.starts)
    words = f"the last {100 * holdout[1]:g}% of every history, validation the {100 * holdout[0]:g}% before"
    return _between(sequences, first, sequences.ends - test, targets, words)


def last_session(sequences: Sequences, gap_minutes: float, targets: str) -> Split:
    """Each user's last session is the test, the one before it validation; sessions end where nothing happens for
    `gap_minutes`. A user with fewer than three sessions only trains."""
    if sequences.times is None:
        raise ConfigError("split: sessions need clock times; this log has none. Use leave_one_out or ratio.")
    opens = np.flatnonzero(session_starts(sequences, gap_minutes * 60_000))
    last = np.searchsorted(opens, sequences.ends)  # opens[last - 1] is where the last session starts
    enough = last - np.searchsorted(opens, sequences.starts) >= 3
    first, second = sequences.ends.copy(), sequences.ends.copy()
    second[enough], first[enough] = opens[last[enough] - 1], opens[last[enough] - 2]
    words = f"everybody's last session (pauses of {gap_minutes:g} minutes), validation the one before"
    return _between(sequences, first, second, targets, words)


def new_users(sequences: Sequences, people: Sequence[str], holdout: tuple[float, float], targets: str) -> Split:
    """Some people are asked for and never trained on, the same ones on every machine: a hash of the id decides.

    Args:
        people: whose each history is; all sessions of somebody go together.
    """
    if targets == "all":
        raise ConfigError("targets: all needs a moment from which on everything is asked for. Use last or successive.")
    digests = [hashlib.sha256(user.encode()).digest()[:8] for user in people]
    place = np.array([int.from_bytes(digest) for digest in digests], dtype=np.float64) / 2**64
    test, validation = place < holdout[1], (place >= holdout[1]) & (place < sum(holdout))
    train_ends = np.where(test | validation, sequences.starts, sequences.ends)
    starts, ends = sequences.starts, sequences.ends
    validation_cases = cases_between(sequences, starts, np.where(validation, ends, starts), targets)
    test_cases = cases_between(sequences, starts, np.where(test, ends, starts), targets)
    words = f"people who were never trained on ({100 * holdout[1]:g}% of all, validation {100 * holdout[0]:g}%)"
    return Split(train_ends, validation_cases, test_cases, f"{words}, {TARGETS[targets]}")


#: What is asked between two points of a history, as protocols say it.
TARGETS = {
    "last": "each history's last event asked for",
    "successive": "every event asked for, with all before it as history",
    "all": "every event asked for from the history up to the cut",
}


def cases_between(sequences: Sequences, lows: Ints, highs: Ints, targets: str) -> Cases:
    """Cases for events lows[u]..highs[u] - 1 of every user; an event without any history before it is left out.

    Args:
        targets: `last`: the last of them; `successive`: each, its history everything before it; `all`: each,
            its history everything before lows[u].
    """
    first = np.maximum(lows, sequences.starts + 1)
    if targets == "last":
        first = np.maximum(first, highs - 1)
    elif targets == "all":
        first = np.where(lows > sequences.starts, lows, highs)
    counts = np.maximum(highs - first, 0)
    users = np.repeat(np.arange(len(sequences)), counts)
    positions = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts) + first[users]
    return Cases(users, positions, lows[users] if targets == "all" else None)


def split_by(sequences: Sequences, people: Sequence[str], config: DataConfig) -> Split:
    """Split as the configuration says, and check it; `people` says whose each history is.

    Raises:
        ConfigError: the split needs clock times, or its moments are not in order.
        DataError: nothing is left to ask for, or the split leaks.
    """
    targets = config.targets or "successive"
    makers: dict[str, Callable[[], Split]] = {
        "leave_one_out": lambda: leave_one_out(sequences),
        "temporal": lambda: temporal(sequences, config.validation_from, config.test_from, targets),
        "ratio": lambda: ratio(sequences, config.holdout, targets),
        "last_session": lambda: last_session(sequences, config.session_gap or 30.0, targets),
        "new_users": lambda: new_users(sequences, people, config.holdout, config.targets or "last"),
    }
    split = makers[config.split]()
    refuse_leaks(split, sequences)
    return split


def refuse_leaks(split: Split, sequences: Sequences) -> None:
    """Check that no target was trained on or is shown, that no part reaches into another, and that time goes forward.

    Raises:
        DataError: it leaks; the message says what, and of which user.
    """
    test_from = np.full(len(sequences), np.iinfo(np.int64).max)
    np.minimum.at(test_from, split.test.users, split.test.positions)
    if ((split.train_ends < sequences.starts) | (split.train_ends > sequences.ends)).any():
        raise DataError("The split leaks: training ends outside a history.")
    for name, cases in (("validation", split.validation), ("test", split.test)):
        users, positions = cases.users, cases.positions
        checks = {
            "lies outside its history": (positions <= sequences.starts[users]) | (positions >= sequences.ends[users]),
            "was trained on": positions < split.train_ends[users],
            "stands in the history that is shown": cases.ends > positions,
            "is shown an empty history, or another's": cases.ends <= sequences.starts[users],
            "comes after the test began": (positions >= test_from[users]) & (name == "validation"),
        }
        if split.moments and sequences.times is not None:
            begins, times = split.moments[f"{name}_from"], sequences.times
            checks["happened before its part began"] = times[positions] < begins
            if name == "validation":
                checks["happened after the test began"] = times[positions] >= split.moments["test_from"]
            frozen = cases.ends < positions
            checks["is shown what happened after the cut"] = frozen & (times[cases.ends - 1] >= begins)
        for problem, wrong in checks.items():
            if wrong.any():
                raise DataError(f"The split leaks: a {name} target of user number {users[wrong][0]} {problem}.")
    if split.moments and sequences.times is not None:
        last = split.train_ends[split.train_ends > sequences.starts] - 1
        if len(last) and sequences.times[last].max() >= split.moments["validation_from"]:
            raise DataError("The split leaks: something trains that happened after validation began.")


def target_hash(cases: Cases, sequences: Sequences, user_ids: list[str], catalogue: Catalogue) -> str:
    """SHA-256 of the sorted lines `user<TAB>item` in ids of the source: equal hashes, equal questions.

    A target that does not stand right behind the history shown with it has a third field: how many events are shown.
    """
    targets = sequences.items[cases.positions]
    counts = np.where(cases.ends < cases.positions, cases.ends - sequences.starts[cases.users], 0)
    lines = sorted(
        f"{user_ids[user]}\t{catalogue.ids[item - 1]}" + (f"\t{count}\n" if count else "\n")
        for user, item, count in zip(cases.users, targets, counts, strict=True)
    )
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
    return digest.hexdigest()


def _between(
    sequences: Sequences, first: Ints, second: Ints, targets: str, words: str, moments: dict[str, int] | None = None
) -> Split:
    """Training up to `first`, validation up to `second`, then the test."""
    validation = cases_between(sequences, first, second, targets)
    test = cases_between(sequences, second, sequences.ends, targets)
    return Split(first, validation, test, f"{words}, {TARGETS[targets]}", moments or {})


def _moment(times: Ints, at: float | str) -> int:
    if isinstance(at, str):
        return milliseconds(at)
    return int(np.quantile(times, at, method="higher"))


def _iso(moment: int) -> str:
    return str(np.datetime64(moment, "ms"))[:19]
