"""What the clock says about each event, derived when asked for and never stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from seqrec.data.sequences import Ints, Sequences

HOUR, DAY = 3_600_000, 86_400_000
#: 1970-01-01 was a Thursday; Monday is 0.
FIRST_WEEKDAY = 3


def event_features(sequences: Sequences, index: Ints) -> dict[str, npt.NDArray[Any] | None]:
    """Time and value of events.

    Args:
        sequences: the histories.
        index: positions of events in `sequences.items`, of any shape; a negative position is padding.
            A window of `length` events from `start` is `start + np.arange(length)`.

    Returns:
        Four features, each an array of the shape of `index`, or None where the log has no such thing (no clock
        times, no ratings): who asks decides what to do without it, nothing is made up.

        - `gap`: float32 seconds since the same user's event before it; NaN for the first event and for padding.
        - `hour`: int8, 0 to 23, UTC; -1 for padding.
        - `weekday`: int8, 0 (Monday) to 6, UTC; -1 for padding.
        - `value`: float32, the rating; NaN where absent and for padding.

    Raises:
        IndexError: a position beyond the last event.
    """
    index = np.asarray(index, dtype=np.int64)
    padding = index < 0
    inside = np.where(padding, 0, index)
    found: dict[str, npt.NDArray[Any] | None] = {"gap": None, "hour": None, "weekday": None, "value": None}
    if sequences.times is not None:
        times = np.asarray(sequences.times[inside])
        found["gap"] = np.where(padding, np.float32(np.nan), _gaps(sequences, inside, times))
        found["hour"] = np.where(padding, -1, times // HOUR % 24).astype(np.int8)
        found["weekday"] = np.where(padding, -1, (times // DAY + FIRST_WEEKDAY) % 7).astype(np.int8)
    if sequences.values is not None:
        found["value"] = np.where(padding, np.float32(np.nan), sequences.values[inside])
    return found


def _gaps(sequences: Sequences, index: Ints, times: Ints) -> npt.NDArray[np.float32]:
    assert sequences.times is not None
    # Histories lie one after the other, so the start at or before a position is its user's.
    owner = np.searchsorted(sequences.starts, index, side="right") - 1
    first = sequences.starts[owner] == index
    before = sequences.times[np.where(first, index, index - 1)]
    return np.where(first, np.nan, (times - before) / 1000).astype(np.float32)
