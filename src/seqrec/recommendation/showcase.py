"""A few test users with what they saw, what they are recommended, and what they really saw next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqrec.data.prepared import PreparedData
from seqrec.recommendation.recommender import Recommendation, Recommender


@dataclass(frozen=True)
class Example:
    """One test user.

    Attributes:
        user: id in the source.
        seen: the last items of the history, oldest first, as `title (year)`.
        recommended: best first.
        target, target_id: what came next.
        place: place of the target among the recommended, from 1; None if it is not there.
    """

    user: str
    seen: list[str]
    recommended: list[Recommendation]
    target: str
    target_id: str
    place: int | None


def examples(recommender: Recommender, data: PreparedData, users: int, k: int = 10, last: int = 10) -> list[Example]:
    """`users` test users, always the same ones, with `k` recommendations each and the `last` items they saw."""
    cases = data.cases("test")
    chosen = np.random.default_rng(0).choice(len(cases), size=min(users, len(cases)), replace=False)
    cases = cases.take(np.sort(chosen))
    sequences, catalogue, names = data.sequences, data.catalogue, data.user_ids()
    found = []
    for user, position, end in zip(cases.users, cases.positions, cases.ends, strict=True):
        history = sequences.items[sequences.starts[user] : end].tolist()
        times = None if sequences.times is None else sequences.times[sequences.starts[user] : end].tolist()
        values = None if sequences.values is None else sequences.values[sequences.starts[user] : end].tolist()
        recommended = recommender.recommend([catalogue.ids[item - 1] for item in history], k, times, values)
        target = int(sequences.items[position])
        target_id = catalogue.ids[target - 1]
        places = [place for place, item in enumerate(recommended, 1) if item.item == target_id]
        found.append(
            Example(
                user=names[user],
                seen=[catalogue.label(item) for item in history[-last:]],
                recommended=recommended,
                target=catalogue.label(target),
                target_id=target_id,
                place=places[0] if places else None,
            )
        )
    return found
