"""Recommendations for any history: also of people who were never in the data.

Shapes: B histories, N items.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from seqrec.data.batches import NO_TIME, Batch
from seqrec.data.catalogue import Catalogue
from seqrec.errors import CheckpointError, UnknownItemsError
from seqrec.kernels.ranking import exclude, require_finite, top_items
from seqrec.models.base import Scorer, SequenceModel
from seqrec.models.build import build_model
from seqrec.run_folder import RunFolder
from seqrec.training.checkpoint import load_weights

#: Histories scored at a time.
AT_A_TIME = 256


class UnknownItemWarning(UserWarning):
    """Some items of a history are not in the catalogue and were left out."""


@dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes:
        item: its id in the source.
        title, categories, year: as far as known; the title is the id where none is.
        score: the model's raw score (a logit for models trained by softmax).
        probability: softmax of the scores over the whole catalogue; None for models without logits.
    """

    item: str
    title: str
    categories: tuple[str, ...]
    year: int | None
    score: float
    probability: float | None


class Event(NamedTuple):
    """An event of a history: item 1..N, milliseconds or NO_TIME, rating or NaN."""

    item: int
    time: int
    value: float


class Recommender:
    """A scorer with its catalogue."""

    def __init__(self, scorer: Scorer, catalogue: Catalogue, filter_seen: bool = True, device: str = "cpu") -> None:
        self.catalogue = catalogue
        self.filter_seen = filter_seen
        self.device = torch.device(device)
        self.scorer = scorer
        if isinstance(scorer, SequenceModel):
            scorer.eval().to(self.device)

    @classmethod
    def load(cls, run: Path | str, device: str = "cpu") -> Recommender:
        """The best weights of a run; needs nothing but the run's folder.

        Raises:
            RunFolderError: there is no such run, or one of another format version.
            CheckpointError: its weights are damaged.
        """
        folder = RunFolder(run)
        facts = folder.facts()
        if not folder.items.exists():
            raise CheckpointError(f"{folder.items} is missing: restore it from a copy, or train again.")
        catalogue = Catalogue.load(folder.items)
        scorer = build_model(facts["config"]["model"], len(catalogue))
        load_weights(scorer, folder.best)
        return cls(scorer, catalogue, facts["config"]["evaluation"]["filter_seen"], device)

    def recommend(
        self,
        history: Sequence[object],
        k: int = 10,
        times: Sequence[int | None] | None = None,
        values: Sequence[float | None] | None = None,
    ) -> list[Recommendation]:
        """The `k` items most likely to come next, best first.

        Args:
            history: ids or titles, oldest first. Unknown ones are named in a warning and left out.
            k: how many; fewer come back when the catalogue has no more that were not seen.
            times: when each event happened, in milliseconds since 1970, None where unknown. Only models that use
                times (`model.time_gate`, or `model.time_bias` of hstu) look at them; without, such a model does as if
                every gap were unknown.
            values: the rating of each event, None where unknown. Only models that read them (`model.rating_input`)
                look at them; without, such a model takes every event for an average one.

        Raises:
            UnknownItemsError: the history is empty, or nothing in it is known.
        """
        clock, ratings = None if times is None else [times], None if values is None else [values]
        return self.recommend_batch([history], k, clock, ratings)[0]

    def recommend_batch(
        self,
        histories: Sequence[Sequence[object]],
        k: int = 10,
        times: Sequence[Sequence[int | None]] | None = None,
        values: Sequence[Sequence[float | None]] | None = None,
    ) -> list[list[Recommendation]]:
        """As `recommend`, for many histories at a time."""
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least one item")
        clocks = _each(len(histories), times, "histories, times of {}: give each its own")
        ratings = _each(len(histories), values, "histories, values of {}: give each its own")
        known = [self._events(*asked) for asked in zip(histories, clocks, ratings, strict=True)]
        found: list[list[Recommendation]] = []
        for start in range(0, len(known), AT_A_TIME):
            found += self._recommend(known[start : start + AT_A_TIME], k)
        return found

    @torch.inference_mode()
    def _recommend(self, events: list[list[Event]], k: int) -> list[list[Recommendation]]:
        histories = [[event.item for event in row] for row in events]
        times = [[event.time for event in row] for row in events] if self.scorer.uses_times else None
        values = [[event.value for event in row] for row in events] if self.scorer.uses_values else None
        batch = Batch.of(histories, self.device, times, values)
        if isinstance(self.scorer, SequenceModel):
            batch = batch.tail(self.scorer.config.max_length)
        scores_BN = self.scorer.scores(batch)
        require_finite(scores_BN, type(self.scorer).__name__)
        has_logits = isinstance(self.scorer, SequenceModel)
        normaliser_B = scores_BN.logsumexp(1) if has_logits else None
        if self.filter_seen:
            rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
            seen = torch.tensor([item for history in histories for item in history], device=self.device)
            scores_BN = exclude(scores_BN, torch.from_numpy(rows).to(self.device), seen)
        items, scores = top_items(scores_BN, k)
        chances = torch.exp(scores - normaliser_B[:, None]).tolist() if normaliser_B is not None else None
        return [
            [
                self._item(item, scores[row, place].item(), chances[row][place] if chances else None)
                for place, item in enumerate(row_items)
                if item
            ]
            for row, row_items in enumerate(items.tolist())
        ]

    def _item(self, number: int, score: float, probability: float | None) -> Recommendation:
        at, catalogue = number - 1, self.catalogue
        return Recommendation(
            item=catalogue.ids[at],
            title=catalogue.titles[at],
            categories=tuple(catalogue.categories[at]),
            year=catalogue.years[at],
            score=score,
            probability=probability,
        )

    def _events(
        self, history: Sequence[object], times: Sequence[int | None] | None, values: Sequence[float | None] | None
    ) -> list[Event]:
        """The events whose items are known."""
        if isinstance(history, (str, bytes)):
            raise TypeError(f"a history is a list of ids or titles, not one string: [{history!r}]")
        found = [(name, self.catalogue.find(name)) for name in history]
        times = _each(len(found), times, "events and {} times: give each event one")
        values = _each(len(found), values, "events and {} values: give each event one")
        unknown = [self._suggest(name) for name, number in found if number is None]
        if not all(time is None or isinstance(time, (int, np.integer)) for time in times):
            raise TypeError("times are whole milliseconds since 1970, or None")
        clock = [NO_TIME if time is None else int(time) for time in times]
        if not all(value is None or isinstance(value, (int, float, np.number)) for value in values):
            raise TypeError("values are ratings, which are numbers, or None")
        ratings = [math.nan if value is None else float(value) for value in values]
        told = zip((number for _, number in found), clock, ratings, strict=True)
        known = [Event(number, time, value) for number, time, value in told if number is not None]
        if not known:
            what = f"none of these is in the catalogue: {', '.join(unknown)}" if unknown else "the history is empty"
            raise UnknownItemsError(f"There is nothing to recommend from: {what}.")
        if unknown:
            warnings.warn(f"Not in the catalogue, left out: {', '.join(unknown)}", UnknownItemWarning, stacklevel=4)
        return known

    def _suggest(self, name: object) -> str:
        near = self.catalogue.nearest(name)
        return f"{name!r} (did you mean {near!r}?)" if near else repr(name)


def _each(count: int, told: Any, wrong: str) -> Any:
    """What was told about each of `count` histories or events; nothing about any where it is None."""
    if told is not None and len(told) != count:
        raise ValueError(f"{count} {wrong.format(len(told))}, or none at all")
    return [None] * count if told is None else told
