"""Ratings as an input: vectors of ratings, what batches carry, what live events need; refusals; battery."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import seqrec
from conftest import SMALL
from seqrec.data.batches import Batch, BatchMaker
from seqrec.data.sequences import Sequences
from seqrec.distributed import Ranks
from seqrec.errors import ConfigError, DataError
from seqrec.models import MODELS
from seqrec.models.base import SequenceModel
from seqrec.models.bert4rec import BERT4Rec
from seqrec.models.build import build_model
from seqrec.models.gru4rec import GRU4Rec
from seqrec.models.lstm import LSTM
from seqrec.models.ratings import PARTS, Ratings
from seqrec.models.sasrec import SASRec
from seqrec.models.sharded import shard_items
from seqrec.models.xlstm import XLSTM
from seqrec.recommendation.recommender import Recommender
from seqrec.registry import resolve
from seqrec.testing import ITEMS, check_model, synthetic_data

NAN = float("nan")
TINY: dict[str, Any] = {"embedding_dim": 16, "max_length": 32, "rating_input": True}


def rated(values: list[float]) -> Any:
    """The synthetic data with these ratings in turn."""
    data = synthetic_data()
    size = len(data.sequences.items)
    return replace(data, sequences=replace(data.sequences, values=np.resize(values, size).astype(np.float32)))


def fitted(values: list[float]) -> Ratings:
    """Vectors of ratings that know these, with weights as if they had trained."""
    torch.manual_seed(0)
    ratings = Ratings(3).double()
    ratings.fit_data(rated(values))
    ratings.weight.data.normal_()
    return ratings


def found(ratings: Ratings, *values: float) -> Tensor:
    return ratings(torch.tensor(values), torch.ones(len(values), dtype=torch.int64))


def test_few_ratings_have_a_vector_each() -> None:
    ratings = fitted([4, 1, NAN, 2.5])
    mine = found(ratings, 1, 2.5, 4, NAN)
    torch.testing.assert_close(mine[:3], ratings.weight[1:4])
    assert torch.equal(found(ratings, -9, 99), mine[[0, 2]])
    assert torch.equal(found(ratings, 2.4, 3.3), mine[[1, 2]])


def test_many_ratings_share_vectors_by_tenths() -> None:
    ratings = fitted([float(value) for value in range(100)])
    places = [int((ratings.weight[1:] == vector).all(1).nonzero()) for vector in found(ratings, *range(0, 100, 2))]
    assert places == sorted(places)
    assert set(places) == set(range(PARTS))
    assert np.bincount(places).max() <= 6


def test_an_unknown_rating_is_an_average_one_and_more() -> None:
    data, values = rated([4, 1, 1, NAN]), [4, 1]
    ratings = fitted([4, 1, 1, NAN])
    train = data.train
    given = [value for user in range(len(train)) for value in train.values[train.starts[user] : train.ends[user]]]
    four, one = (np.mean(np.array(given)[~np.isnan(given)] == value) for value in values)
    expected = ratings.weight[0] + four * ratings.weight[2] + one * ratings.weight[1]
    torch.testing.assert_close(found(ratings, NAN)[0], expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(ratings(None, torch.ones(1, dtype=torch.int64)), found(ratings, NAN))
    assert not ratings(torch.tensor([4.0]), torch.zeros(1, dtype=torch.int64)).any(), "no item, no rating"


def test_what_was_rated_after_training_is_not_looked_at() -> None:
    data = rated([3])
    values = np.array(data.sequences.values)
    values[data.split.train_ends] = 5  # of validation events
    ratings = Ratings(3)
    ratings.fit_data(replace(data, sequences=replace(data.sequences, values=values)))
    assert ratings.shares.tolist() == [1.0] + [0.0] * (PARTS - 1)


def test_batches_carry_ratings_when_asked() -> None:
    sequences = replace(Sequences.of([[1, 2, 3], [4]], 9), values=np.array([1, NAN, 3, 4], dtype=np.float32))
    maker = BatchMaker(sequences, torch.device("cpu"))
    users, starts, lengths = np.array([0, 1]), np.array([0, 3]), np.array([3, 1])
    assert maker.windows(users, starts, lengths, 4).values is None
    batch = maker.windows(users, starts, lengths, 4, values=True)
    expected = Batch.of([[1, 2, 3], [4]], values=[[1, NAN, 3], [4]])
    assert batch.values is not None
    assert expected.values is not None
    np.testing.assert_equal(batch.values.numpy()[:, :3], expected.values.numpy())
    assert batch.values[:, 3].isnan().all()
    tail = batch.tail(2).values
    assert tail is not None
    np.testing.assert_equal(tail.numpy(), [[NAN, 3], [4, NAN]])
    np.testing.assert_equal([part.values.tolist() for part in batch.split(1)], batch.values[:, None].tolist())  # type: ignore[union-attr]
    with pytest.raises(DataError, match="these data have none"):
        BatchMaker(replace(sequences, values=None), torch.device("cpu")).windows(users, starts, lengths, 4, values=True)


def test_the_last_rating_of_a_window_is_its_targets() -> None:
    model: Any = build_model({"name": "sasrec", **TINY}, ITEMS)
    batch = Batch.of([[1, 2, 3]], values=[[1, 2, 3]])
    assert model.training_batch(batch)[0].values.tolist() == [[1, 2]]


def test_a_masked_event_hides_its_rating() -> None:
    model: Any = build_model({"name": "bert4rec", **TINY}, ITEMS)
    torch.manual_seed(0)
    inputs, targets = model.training_batch(Batch.of([list(range(1, 11))], values=[[float(x) for x in range(10)]]))
    assert inputs.values.isnan().equal(targets > 0)
    assert model.with_mask(Batch.of([[1]], values=[[2]])).values[0, 1].isnan()


def test_recommendations_with_ratings(small_log: Path, tmp_path: Path) -> None:
    lines = small_log.read_text().split()
    rows = [f"{line},{'stars' if number == 0 else number % 5 + 1}" for number, line in enumerate(lines)]
    small_log.write_text("\n".join(rows) + "\n")
    data = seqrec.load_data(small_log, user="uid", item="iid", time="ts", value="stars")
    settings = {**SMALL, "model.rating_input": True}
    run = seqrec.train(data, "sasrec", settings=settings, out=tmp_path / "run", device="cpu")
    recommender = Recommender.load(run.path)
    scorer: Any = recommender.scorer
    assert scorer.items.ratings.weight.abs().max() > 0
    scorer.items.ratings.weight.data.mul_(50)

    def scores(values: Any) -> list[float]:
        return [item.score for item in recommender.recommend(["i3", "i4"], 5, values=values)]

    assert scores(None) == scores([None, None]) == scores([None, NAN])
    assert scores([5, 1]) != scores([1, 5])
    batch = Batch.of([[1, 2]])  # whatever stands in the log as i3 and i4
    assert scorer.scores(batch).shape == (1, data.sequences.num_items)
    with pytest.raises(ValueError, match="2 events and 1 values"):
        scores([5])
    with pytest.raises(TypeError, match="values are ratings, which are numbers, or None"):
        scores(["good", 5])
    with pytest.raises(ValueError, match="1 histories, values of 2"):
        recommender.recommend_batch([["i3"]], values=[[1], [2]])


def test_refusals() -> None:
    data = synthetic_data()
    model: Any = build_model({"name": "sasrec", **TINY}, ITEMS)
    with pytest.raises(ConfigError, match="synthetic has no ratings"):
        model.fit_data(replace(data, sequences=replace(data.sequences, values=None)))
    with pytest.raises(ConfigError, match="no event of synthetic has a rating in training"):
        model.fit_data(rated([NAN]))
    with pytest.raises(ConfigError, match=r"model\.rating_input .*cannot be cut"):
        shard_items(model, Ranks(0, 2))


class Deaf(SASRec):
    reads_ratings = False


def test_a_model_that_reads_none_says_so() -> None:
    with pytest.raises(ConfigError, match="Deaf does not read ratings"):
        Deaf(SASRec.Config(**TINY), ITEMS)


class TellsTheRatingOfTargets(SASRec):
    """Sees how the next event is rated."""

    def training_batch(self, batch: Batch) -> tuple[Batch, Tensor]:
        inputs, targets = super().training_batch(batch)
        return replace(inputs, values=None if batch.values is None else batch.values[:, 1:]), targets


def test_the_battery_catches_told_ratings() -> None:
    with pytest.raises(AssertionError, match="fails tells_no_ratings"):
        check_model(TellsTheRatingOfTargets, **TINY)


@pytest.mark.parametrize("model", [SASRec, XLSTM, LSTM, GRU4Rec, BERT4Rec])
def test_models_with_ratings_pass_the_battery(model: Any) -> None:
    assert "tells_no_ratings" in check_model(model, **TINY)


def test_every_other_model_refuses_or_reads_them() -> None:
    for name in MODELS:
        model = resolve("model", name, MODELS)
        if issubclass(model, SequenceModel) and model.reads_ratings:
            torch.manual_seed(0)
            made: Any = build_model({"name": name, **TINY}, ITEMS).fit_data(synthetic_data())
            made.eval().items.ratings.weight.data.normal_()
            low, high = (made.scores(Batch.of([[3, 4]], values=[[1, value]])) for value in (1, 4))
            assert not torch.equal(low, high), f"{name} says that it reads ratings"
