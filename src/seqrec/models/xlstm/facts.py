"""Facts that forget gates may see beside what comes in: the time between two events, and how many came before.

The first is in the spirit of Time-LSTM (Zhu et al., "What to Do Next: Modeling User Behaviors by Time-LSTM", IJCAI
2017), with the logarithm of the time, and on the forget gate alone. The second says where in a history an event stands,
which a recurrence cannot tell by itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from seqrec.data.batches import NO_TIME

#: How many facts there are about the time, and about the place.
TIME_FACTS, PLACE_FACTS = 3, 2
YEAR_IN_DAYS = 365.25


class Facts(NamedTuple):
    """`elapsed` (..., 3) and `events_before` (..., 2), each None where no gate sees it."""

    time: Tensor | None = None
    place: Tensor | None = None


def elapsed(before: Tensor, now: Tensor) -> Tensor:
    """Three facts about the time from event to event: that it is known (1), and its logarithm in seconds and in days,
    which tell minutes and months apart; both are 0 for no time and 1 for a year. All are 0 where it is not known.

    Args:
        before, now: (...) int64 milliseconds, in either order; NO_TIME where unknown.

    Returns:
        (..., 3) float32.
    """
    known = (before != NO_TIME) & (now != NO_TIME)
    days = (now - before).abs().masked_fill(~known, 0).float() / 86_400_000
    return torch.stack([known.float(), _logarithm(days, 86_400), _logarithm(days, 1)], -1)


def events_before(count: Tensor) -> Tensor:
    """Two facts about `count` (...), the number of events before one: 1 / (1 + count), which tells the first ones
    apart, and its logarithm, 1 for a thousand. (..., 2) float32.
    """
    more = count.float() + 1
    return torch.stack([1 / more, more.log() / math.log(1001)], -1)


def _logarithm(days: Tensor, units_per_day: int) -> Tensor:
    return (days * units_per_day).log1p() / math.log1p(YEAR_IN_DAYS * units_per_day)
