"""When events happened, and how long after each other.

Shapes: N events, U users, B events of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from seqrec.analysis.bars import Bars
from seqrec.data.sequences import Ints, Sequences
from seqrec.data.spool import blocks

#: Units of time with their numpy letter, finest first, and how many bars of them are still readable.
UNITS = (("day", "D", 92), ("week", "W", 120), ("month", "M", 360), ("year", "Y", 1_000))
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
#: Lower ends of the bins of gaps, in milliseconds, and their names; what is 0 is a tie.
GAPS = (0, 1, MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY, 30 * DAY, 365 * DAY)
GAP_NAMES = ("same time", "under 1 min", "1-10 min", "10-60 min", "1-6 h", "6-24 h", "1-7 days", "7-30 days",
             "30-365 days", "over a year")  # fmt: skip


@dataclass(frozen=True)
class Coverage:
    """Events per `unit` (day, week, month or year) from the first to the last, those without events included."""

    unit: str
    bars: Bars


@dataclass(frozen=True)
class Gaps:
    """Time between a user's neighbouring events.

    Attributes:
        bars: gaps by length; the first bar counts ties.
        median: of the gaps that are no ties, in seconds; None where all are.
    """

    bars: Bars
    median: float | None


def coverage(times_N: Ints) -> Coverage:
    """Events over time, in the finest unit that can still be read."""
    first, last = int(times_N.min()), int(times_N.max())
    unit, letter = next(
        (unit, letter)
        for unit, letter, most in UNITS
        if _period(last, letter) - _period(first, letter) < most or letter == "Y"
    )
    low = int(_period(first, letter))
    counts = np.zeros(int(_period(last, letter)) - low + 1, dtype=np.int64)
    for block in blocks(len(times_N)):
        counts += np.bincount(_period(times_N[block], letter) - low, minlength=len(counts))
    names = tuple(_period_name(low + step, letter) for step in range(len(counts)))
    return Coverage(unit, Bars(names, tuple(counts.tolist())))


def gaps(sequences: Sequences) -> Gaps | None:
    """How long after each other events happened; None without clock times. Holds 4 bytes per event."""
    if sequences.times is None:
        return None
    counts = np.zeros(len(GAPS), dtype=np.int64)
    seconds = []
    for users, events in sequences.blocks():
        owners = sequences.owners(users)
        between = np.diff(sequences.times[events])[owners[1:] == owners[:-1]]
        counts += np.bincount(np.digitize(between, GAPS) - 1, minlength=len(GAPS))
        seconds.append((between[between > 0] / 1000).astype(np.float32))
    apart = np.concatenate(seconds)
    return Gaps(Bars(GAP_NAMES, tuple(counts.tolist())), float(np.median(apart)) if len(apart) else None)


def _period(times: Any, letter: str) -> Any:
    """Number of the day, week (from Monday), month or year of times in milliseconds."""
    if letter == "W":
        return (np.asarray(times) // DAY + 3) // 7  # 1970-01-01 was a Thursday
    return np.asarray(times).astype("datetime64[ms]").astype(f"datetime64[{letter}]").astype(np.int64)


def _period_name(period: int, letter: str) -> str:
    """`2024-05-27` for a day or the Monday of a week, `2024-05`, or `2024`."""
    if letter == "W":
        return _period_name(period * 7 - 3, "D")
    return str(np.array(period).astype(f"datetime64[{letter}]"))
