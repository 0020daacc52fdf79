"""Features of items in the item table: rows, vectors, the start, checkpoints without data, refusals; battery."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqrec
from conftest import COLUMNS, SMALL
from seqrec.data.batches import Batch
from seqrec.data.features import Categorical, Dense, Feature, Features, MultiHot, Numeric
from seqrec.distributed import Ranks
from seqrec.errors import ConfigError
from seqrec.models import item_features
from seqrec.models.build import build_model
from seqrec.models.item_features import rows_of
from seqrec.models.layers import ItemTable
from seqrec.models.sasrec import SASRec
from seqrec.models.sharded import shard_items
from seqrec.models.xlstm import XLSTM
from seqrec.recommendation.recommender import Recommender
from seqrec.testing import ITEMS, check_model, synthetic_data
from seqrec.training.checkpoint import load_weights, save_checkpoint

TINY: dict[str, Any] = {"embedding_dim": 16, "max_length": 32, "num_blocks": 1}
NAMES = ("categories", "title")


def slow_rows(columns: list[list[float] | None]) -> np.ndarray:
    """Known rows less their mean, each divided by its length; item by item."""
    known = [np.array(row, dtype=np.float64) for row in columns if row is not None]
    mean, width = sum(known) / len(known), len(known[0])
    rows = []
    for row in columns:
        away = np.zeros(width) if row is None else np.array(row) - mean
        length = np.sqrt((away**2).sum())
        rows.append(away / length if length > 1e-6 else np.zeros(width))
    return np.array(rows)


KINDS: list[tuple[Feature, list[list[float] | None]]] = [
    (
        MultiHot(np.array([0, 2, 2, 3, 5]), np.array([1, 3, 2, 1, 2], dtype=np.int32), ["a", "b", "c"]),
        [[0.5**0.5, 0, 0.5**0.5], None, [0, 1, 0], [0.5**0.5, 0.5**0.5, 0]],
    ),
    (
        Categorical(np.array([2, 0, 1, 1], dtype=np.int32), ["a", "b"]),
        [[0, 1], None, [1, 0], [1, 0]],
    ),
    (
        Dense(np.array([[3, 4], [0, 0], [1, 0]], dtype=np.float32), np.array([True, False, True])),
        [[3, 4], None, [1, 0]],
    ),
    (
        Numeric(np.array([*range(10), np.nan], dtype=np.float32)),
        [*np.eye(10).tolist(), None],
    ),
    (Dense(np.ones((2, 3), dtype=np.float32), np.ones(2, dtype=bool)), [[1, 1, 1], [1, 1, 1]]),
]


@pytest.mark.parametrize(("feature", "columns"), KINDS, ids=lambda kind: getattr(kind, "kind", ""))
def test_rows_are_what_tells_an_item_from_the_mean(feature: Feature, columns: list[list[float] | None]) -> None:
    np.testing.assert_allclose(rows_of(feature), slow_rows(columns), atol=1e-6)


@pytest.mark.parametrize(
    "feature",
    [
        MultiHot(np.zeros(4, dtype=np.int64), np.zeros(0, dtype=np.int32), ["a"]),
        Numeric(np.full(3, np.nan, dtype=np.float32)),
        Numeric(np.array([5, 5, 5], dtype=np.float32)),
        Categorical(np.zeros(3, dtype=np.int32), []),
        Dense(np.zeros((3, 2), dtype=np.float32), np.zeros(3, dtype=bool)),
    ],
)
def test_a_feature_that_tells_nothing_gives_zeros(feature: Feature) -> None:
    assert not rows_of(feature).any()


def learned(**settings: Any) -> Any:
    """A model that knows the features of the synthetic data, with projections as if it had trained."""
    torch.manual_seed(0)
    model: Any = build_model({"name": "sasrec", **TINY, "item_features": NAMES, **settings}, ITEMS)
    model.fit_data(synthetic_data()).eval().double()
    for feature in model.items.features:
        feature.weight.data.normal_()
        feature.scale.data.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_vectors_are_rows_plus_projected_features(similarity: str) -> None:
    items = learned(similarity=similarity).items
    known = synthetic_data().features().items
    expected = items.weight.detach().clone()
    for name, feature in zip(NAMES, items.features, strict=True):
        rows = rows_of(known[name])
        for number in range(ITEMS):
            part = sum(float(x) * row for x, row in zip(rows[number], feature.weight.detach(), strict=True))
            expected[number + 1] += feature.scale.detach() * part
    torch.testing.assert_close(items.vectors().weight, expected[1:])
    few, many = torch.tensor([[3, 0], [ITEMS, 1]]), torch.arange(ITEMS + 1).repeat(2, 1)
    torch.testing.assert_close(items(few), expected[few] * 16**0.5)
    torch.testing.assert_close(items(many), expected[many] * 16**0.5)
    assert not items(torch.zeros(1, 100, dtype=torch.int64)).any()


def test_a_model_starts_as_it_would_without_features() -> None:
    batch = Batch.of([[3, 4, 5], [7]])
    told = []
    for names in ((), NAMES):
        torch.manual_seed(0)
        model: Any = build_model({"name": "sasrec", **TINY, "item_features": names}, ITEMS)
        told.append(model.fit_data(synthetic_data()).eval().scores(batch))
    assert torch.equal(*told)
    plain = ItemTable(SASRec.Config(**TINY), ITEMS)
    assert set(plain.state_dict()) <= {"weight", "bias"}


def test_a_checkpoint_brings_the_features_along(tmp_path: Path) -> None:
    model, batch = learned(), Batch.of([[3, 4, 5], [7]])
    save_checkpoint(tmp_path / "weights", model.state_dict())
    other: Any = build_model({"name": "sasrec", **TINY, "item_features": NAMES}, ITEMS).double().eval()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="has not been told about the items"):
        other.scores(batch)
    load_weights(other, tmp_path / "weights")
    assert torch.equal(other.scores(batch), model.scores(batch))


def test_data_met_again_keep_what_was_learned() -> None:
    model = learned()
    before = [feature.weight for feature in model.items.features]
    model.fit_data(synthetic_data())
    assert all(feature.weight is weight for feature, weight in zip(model.items.features, before, strict=True))


def test_a_run_recommends_without_its_data(small_log: Path, tmp_path: Path) -> None:
    data = seqrec.load_data(small_log, **COLUMNS)
    random, items = np.random.default_rng(0), data.sequences.num_items
    known = Dense(random.standard_normal((items, 4)).astype(np.float32), np.arange(items) > 0)
    Features({"title": known, "year": Numeric(np.arange(items, dtype=np.float32))}).save(data.folder / "features")
    settings = {**SMALL, "model.item_features": ["title", "year"]}
    run = seqrec.train(data, "sasrec", settings=settings, out=tmp_path / "run", device="cpu")
    for path in sorted(data.folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    scorer: Any = Recommender.load(run.path).scorer
    assert all(feature.weight.abs().max() > 0 for feature in scorer.items.features)
    assert len(Recommender.load(run.path).recommend(["i3", "i4"], 5)) == 5


def test_features_that_there_are_not() -> None:
    data = synthetic_data()
    model: Any = build_model({"name": "sasrec", **TINY, "item_features": ["title", "maker"]}, ITEMS)
    with pytest.raises(ConfigError, match="says nothing about maker of its items; it has categories, title"):
        model.fit_data(data)
    with pytest.raises(ConfigError, match="it has no features at all"):
        model.fit_data(replace(data, known=Features()))  # type: ignore[call-arg]


def test_features_that_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_features, "MOST", ITEMS * 8 - 1)
    model: Any = build_model({"name": "sasrec", **TINY, "item_features": ["title"]}, ITEMS)
    with pytest.raises(ConfigError, match="title would be a table of 320 numbers"):
        model.fit_data(synthetic_data())


def test_a_table_with_features_is_not_cut() -> None:
    with pytest.raises(ConfigError, match=r"an item table with model\.item_features"):
        shard_items(learned(), Ranks(0, 2))


class NoTable(SASRec):
    def __init__(self, config: Any, num_items: int) -> None:
        super().__init__(config, num_items)
        del self.items


def test_a_model_without_an_item_table() -> None:
    with pytest.raises(ConfigError, match="NoTable has no item table that could take it"):
        NoTable(SASRec.Config(**TINY, item_features=("title",)), ITEMS).fit_data(synthetic_data())


@pytest.mark.parametrize("model", [SASRec, XLSTM])
def test_models_with_features_pass_the_battery(model: Any) -> None:
    check_model(model, **TINY, feedforward_factor=1, item_features=NAMES)
