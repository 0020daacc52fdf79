"""What there is to know about a prepared log before a model is trained on it, as plain numbers.

Described is the whole prepared log, after all filters; models never see these numbers.

Shapes: N events, U users, I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from seqrec.analysis.bars import Bars
from seqrec.analysis.sequentiality import OrderEffect, order_effect
from seqrec.analysis.timing import Coverage, Gaps, coverage, gaps
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Ints

#: Lower ends of the bins of history lengths: 1, 2, 3, 5, 10, 20, 50, ...
LENGTHS = (1, 2, 3, 5, *(digit * 10**power for power in range(1, 9) for digit in (1, 2, 5)))
#: Shares of the catalogue, most popular items first, whose share of the events is told.
TOP_SHARES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.5)
CURVE_POINTS = 101
FEWER_THAN = (2, 3, 5, 10, 20)
#: What is told of the facts of a prepared folder.
FACTS = ("users", "items", "events", "source_events", "density", "length", "k_core", "split", "clock", "first", "last",
         "duplicate_rows", "test_targets", "fingerprint")  # fmt: skip


@dataclass(frozen=True)
class Popularity:
    """How events are spread over items.

    Attributes:
        top: (share of items, most popular first; share of all events), for `TOP_SHARES` that hold an item.
        curve: the same at even steps from 0 to 1.
        gini: 0 if all items occur alike, near 1 if few have everything.
    """

    top: tuple[tuple[float, float], ...]
    curve: tuple[tuple[float, float], ...]
    gini: float


@dataclass(frozen=True)
class Targets:
    """What is odd about the targets of one part; shares of its `cases`.

    Attributes:
        cold: the item does not occur in the training part: no model of ids can know it.
        repeated: the item occurs earlier in the same history: missed where seen items are left out.
        tied: same time (or place in an order) as the event before it, so that the order of the file decides.
    """

    part: str
    cases: int
    cold: float
    repeated: float
    tied: float


@dataclass(frozen=True)
class DataReport:
    """Numbers of one data set, ready for JSON through `dataclasses.asdict`.

    Attributes:
        facts: `users`, `items`, `events`, `density`, `k_core`, `first`, `last` and so on, as prepared.
        lengths: users by number of events.
        fewer: (k, users with fewer than k events, items with fewer than k events).
        repeats: share of events whose item occurred earlier in the same history.
        ties: share of events at the very time of the same user's event before; None without a clock.
        coverage, gaps: None without a clock.
        order: how much it matters in which order things happened; None where that was not measured.
    """

    name: str
    facts: dict[str, Any]
    lengths: Bars
    popularity: Popularity
    fewer: tuple[tuple[int, int, int], ...]
    repeats: float
    ties: float | None
    coverage: Coverage | None
    gaps: Gaps | None
    targets: tuple[Targets, ...]
    order: OrderEffect | None


def data_report(data: PreparedData, *, order: bool = True) -> DataReport:
    """Look at a data set. Seconds for ten million events; memory of a block of them and 4 bytes for each.

    Args:
        data: prepared data; nothing in it is changed.
        order: whether to measure how sequential the log is, which takes most of the time.

    Raises:
        ScoreError: a score of the two models that are compared is not finite.
    """
    sequences, facts = data.sequences, data.facts
    counts_I, between = sequences.counts(), gaps(sequences)
    return DataReport(
        name=data.name,
        facts={key: facts[key] for key in FACTS if key in facts},
        lengths=_lengths(sequences.lengths),
        popularity=_popularity(counts_I),
        fewer=tuple((k, int((sequences.lengths < k).sum()), int((counts_I < k).sum())) for k in FEWER_THAN),
        repeats=facts["repeated_events"],
        ties=None if between is None else between.bars.counts[0] / facts["events"],
        coverage=None if sequences.times is None else coverage(sequences.times),
        gaps=between,
        targets=tuple(_targets(part, facts[part]) for part in ("validation", "test")),
        order=order_effect(data) if order else None,
    )


def _lengths(lengths_U: Ints) -> Bars:
    lengths_U = lengths_U[lengths_U > 0]
    bins = np.bincount(np.digitize(lengths_U, LENGTHS) - 1, minlength=len(LENGTHS))
    first, last = int(np.flatnonzero(bins)[0]), int(np.flatnonzero(bins)[-1])
    names = [f"{low:,}" if low + 1 == high else f"{low:,}-{high - 1:,}" for low, high in pairwise((*LENGTHS, 10**9))]
    return Bars(tuple(names[first : last + 1]), tuple(bins[first : last + 1].tolist()))


def _popularity(counts_I: Ints) -> Popularity:
    ordered = np.sort(counts_I)[::-1]
    size = len(ordered)
    held = np.concatenate([[0], np.cumsum(ordered)]) / max(ordered.sum(), 1)
    curve = [(float(x), float(np.interp(x * size, np.arange(size + 1), held))) for x in np.linspace(0, 1, CURVE_POINTS)]
    top = [(share, float(held[round(share * size)])) for share in TOP_SHARES if round(share * size) >= 1]
    # Twice the area between the curve and the diagonal.
    gini = float(2 * ((held[1:] + held[:-1]) / 2).mean() - 1)
    return Popularity(tuple(top), tuple(curve), gini)


def _targets(part: str, facts: dict[str, Any]) -> Targets:
    return Targets(part, facts["cases"], facts["cold"], facts["repeated"], facts["tied"])
