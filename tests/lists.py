"""What tests of lists share: scores drawn once, the lists that follow from them, and the forms that files come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch import Tensor

import seqrec
from conftest import COLUMNS, write_small_log
from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.prepared import PreparedData
from seqrec.evaluation.evaluation import Evaluation
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.evaluation.predictions import Predictions
from seqrec.models.base import Scorer

KS = (1, 3, 5, 10)
Entry = tuple[str, str, float]


class Table(Scorer):
    """Scores by person, drawn once."""

    def __init__(self, scores_UN: Tensor) -> None:
        self.config = Config()
        self.num_items = scores_UN.shape[1]
        self.scores_UN = scores_UN

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        assert batch.users is not None
        return self.scores_UN[batch.users].clone()

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        pass


def load(folder: Path, **settings: Any) -> PreparedData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQREC_CACHE", str(folder / "cache"))
        return seqrec.load_data(write_small_log(folder / "log.csv"), **COLUMNS, **settings)


def drawn(data: PreparedData, levels: int | None = None, seed: int = 0) -> Table:
    """Random scores, of few levels so that they tie where asked for."""
    rng = np.random.default_rng(seed)
    shape = len(data.sequences), data.sequences.num_items
    scores = rng.normal(size=shape) if levels is None else rng.integers(0, levels, shape)
    return Table(torch.from_numpy(scores.astype(np.float32)))


def top(scorer: Table, data: PreparedData, k: int) -> list[Entry]:
    """The best `k` of everybody, nothing left out, in ids of the source."""
    entries = []
    for user, name in enumerate(data.user_ids()):
        scores = scorer.scores_UN[user].tolist()
        best = sorted(range(len(scores)), key=lambda item: -scores[item])[:k]
        entries += [(name, data.catalogue.ids[item], scores[item]) for item in best]
    return entries


def judge(source: Any, data: PreparedData, missing: str = "refuse", part: str = "test", **config: Any) -> Evaluation:
    predictions = Predictions.read(source, data, missing)
    return Evaluator(data, EvaluationConfig(**{"ks": KS, **config})).evaluate(predictions, part)


def long_form(entries: list[Entry]) -> pd.DataFrame:
    return pd.DataFrame(entries, columns=["user", "item", "score"])


def ranked(entries: list[Entry]) -> pd.DataFrame:
    frame = long_form(entries)
    return frame.assign(rank=frame.groupby("user").cumcount() + 1)


def wide_form(entries: list[Entry]) -> pa.Table:
    grouped = long_form(entries).groupby("user", sort=False)
    lists = {name: [part[name].tolist() for _, part in grouped] for name in ("item", "score")}
    return pa.table({"user": list(grouped.groups), "items": lists["item"], "scores": lists["score"]})


FORMS: dict[str, Callable[[list[Entry]], Any]] = {
    "scores": long_form,
    "shuffled": lambda entries: long_form(entries).sample(frac=1, random_state=0),
    "scores and ranks": ranked,
    "ranks": lambda entries: ranked(entries).drop(columns="score"),
    "RecTools": lambda entries: ranked(entries).rename(columns={"user": "user_id", "item": "item_id"}),
    "RePlay": lambda entries: long_form(entries).set_axis(["query_id", "item_id", "rating"], axis=1),
    "lists": lambda entries: wide_form(entries).drop_columns("scores"),
    "lists and scores": wide_form,
    "lists of one length": lambda entries: pa.table(
        {
            "user": pa.array(dict.fromkeys(user for user, _, _ in entries)),
            "items": pa.FixedSizeListArray.from_arrays(pa.array([item for _, item, _ in entries]), 28),
        }
    ),
}


def changed(entries: list[Entry], place: int, entry: Entry) -> pd.DataFrame:
    return long_form([*entries[:place], entry, *entries[place + 1 :]])
