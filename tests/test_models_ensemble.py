"""Ensembles: fused scores against loops in plain Python, and members that are treated as they would be alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.errors import ConfigError, ScoreError
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.kernels.ranking import top_items
from seqrec.models.build import build_model, is_stochastic
from seqrec.models.ensemble import Ensemble, EnsembleConfig, fuse, reciprocal_ranks, z_scores
from seqrec.models.popularity import Popularity
from seqrec.models.sasrec import SASRec
from seqrec.testing import ITEMS, check_model, synthetic_data

BATCH = Batch.of([[3, 4, 5, 6, 7], [9], [20, 1, 40, 2, 8, 30, 31], [40, 39]])
SMALL_SASREC = {"name": "sasrec", "embedding_dim": 16, "max_length": 4, "dropout": 0.5}


class Broken(Popularity):
    """Gives one NaN."""

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        return super().scores(batch, items).index_fill_(1, torch.tensor([6]), torch.nan)


def made(*members: Any, **settings: Any) -> Ensemble:
    specs = [{"name": member} if isinstance(member, str) else member for member in members]
    return Ensemble(EnsembleConfig(members=specs, **settings), ITEMS)


@pytest.mark.parametrize("fusion", ["zscore", "reciprocal_rank"])
def test_the_battery(fusion: str) -> None:
    check_model(Ensemble, fusion=fusion, weights=[0.2, 0.8])


def test_z_scores_are_those_of_a_loop() -> None:
    scores_BN = torch.from_numpy(np.random.default_rng(0).normal(5, 100, (7, 23)))
    for row, expected in zip(z_scores(scores_BN).tolist(), scores_BN.tolist(), strict=True):
        mean = math.fsum(expected) / len(expected)
        deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in expected) / len(expected))
        assert row == pytest.approx([(x - mean) / deviation for x in expected], rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e-300, 1.7e308])
def test_a_constant_row_gives_zeros(value: float) -> None:
    assert torch.equal(z_scores(torch.full((2, 37), value, dtype=torch.float64)), torch.zeros(2, 37).double())


@pytest.mark.parametrize("scale", [1e-310, 1e-30, 1.0, 1e30, 1e307])
def test_z_scores_keep_the_order_at_any_scale(scale: float) -> None:
    row = torch.arange(10).double() * scale
    z = z_scores(torch.stack([row, row.flip(0)]))
    assert bool(torch.isfinite(z).all())
    assert bool((z[0].diff() > 0).all())
    assert bool((z[1].diff() < 0).all())


def test_a_member_that_looks_at_times_is_given_them() -> None:
    spec = {"name": "xlstm", "embedding_dim": 8, "time_gate": True}
    torch.manual_seed(0)
    alone: Any = build_model(spec, ITEMS)
    torch.nn.init.normal_(alone.blocks[0].mixer.time_gate)
    both: Any = build_model({"name": "ensemble", "members": [spec, {"name": "popularity"}], "weights": [1, 0]}, ITEMS)
    both.members[0].load_state_dict(alone.state_dict())
    evaluator = Evaluator(synthetic_data(), EvaluationConfig())
    expected = evaluator.evaluate(alone, "test")
    assert np.array_equal(evaluator.evaluate(both, "test").ranks, expected.ranks)
    alone.uses_times = False
    assert not np.array_equal(evaluator.evaluate(alone, "test").ranks, expected.ranks)


def test_small_differences_beside_large_scores_stay_differences() -> None:
    scores = torch.tensor([[1e-9, 2e-9, 3e-9, 1.0, 0.5]])
    assert bool((z_scores(scores.double())[0, :3].diff() > 0).all())


def test_reciprocal_ranks_are_those_of_a_loop() -> None:
    scores_BN = torch.from_numpy(np.random.default_rng(1).integers(0, 9, (6, 31))).double()  # many ties
    for row, scores in zip(reciprocal_ranks(scores_BN).tolist(), scores_BN.tolist(), strict=True):
        assert row == pytest.approx([1 / (61 + sum(other > score for other in scores)) for score in scores])


def test_a_catalogue_of_one_item() -> None:
    assert z_scores(torch.tensor([[4.0]]).double()).tolist() == [[0.0]]
    assert reciprocal_ranks(torch.tensor([[4.0]]).double()).tolist() == [[1 / 61]]


def test_a_sum_leaves_what_it_is_made_of_alone() -> None:
    a, b = torch.ones(2, 3), torch.arange(6.0).view(2, 3)
    assert torch.equal(fuse([(0.5, a), (2.0, b)]), 0.5 + 2 * b)
    assert torch.equal(a, torch.ones(2, 3))
    assert torch.equal(b, torch.arange(6.0).view(2, 3))


@pytest.mark.parametrize("fusion", ["zscore", "reciprocal_rank"])
@pytest.mark.parametrize("only", [0, 1])
def test_all_weight_on_one_member_gives_its_ranks(fusion: str, only: int) -> None:
    data = synthetic_data()
    names, weights = ["popularity", "markov"], [float(only == 0), float(only == 1)]
    ensemble = made(*names, fusion=fusion, weights=weights).fit_data(data)
    alone = build_model({"name": names[only]}, ITEMS).fit_data(data)
    for part in ("validation", "test"):
        found, expected = (Evaluator(data, EvaluationConfig()).evaluate(model, part) for model in (ensemble, alone))
        assert np.array_equal(found.ranks, expected.ranks)
        assert np.array_equal(found.lists, expected.lists)


@pytest.mark.parametrize("fusion", ["zscore", "reciprocal_rank"])
def test_the_order_of_members_does_not_matter(fusion: str) -> None:
    data = synthetic_data()
    one = made("popularity", "markov", fusion=fusion, weights=[0.3, 0.7]).fit_data(data)
    other = made("markov", "popularity", fusion=fusion, weights=[0.7, 0.3]).fit_data(data)
    assert torch.equal(one.scores(BATCH), other.scores(BATCH))


def test_weights_are_equal_unless_given() -> None:
    data = synthetic_data()
    names = ("popularity", "markov", "recent_popularity")
    equal, given = (made(*names, weights=w).fit_data(data) for w in (None, [2.0, 2.0, 2.0]))
    assert equal.weights == pytest.approx([1 / 3] * 3)
    torch.testing.assert_close(equal.scores(BATCH) * 6, given.scores(BATCH))


def test_each_sequence_model_reads_the_end_it_can_read() -> None:
    torch.manual_seed(0)
    ensemble = made(SMALL_SASREC, "popularity", weights=[1.0, 0.0])
    ends = Batch.of([[4, 5, 6, 7], [9], [2, 8, 30, 31], [40, 39]])
    assert isinstance(ensemble.members[0], SASRec)
    expected = z_scores(ensemble.members[0].eval().scores(ends).double())
    torch.testing.assert_close(ensemble.scores(BATCH), expected)


def test_dropout_is_off_whatever_a_member_was_doing() -> None:
    torch.manual_seed(0)
    ensemble = made(SMALL_SASREC, weights=[1.0])
    assert isinstance(ensemble.members[0], SASRec)
    ensemble.members[0].train()
    assert torch.equal(ensemble.scores(BATCH), ensemble.scores(BATCH))
    assert not ensemble.members[0].training


def test_weights_and_tables_travel_together() -> None:
    data = synthetic_data()
    torch.manual_seed(0)
    ensemble = made(SMALL_SASREC, "markov")
    ensemble.members[1].fit_data(data)
    state = ensemble.state_dict()
    assert {name.split(".")[0] for name in state} == {"members"}
    assert "members.1.popularity" in state
    other = made(SMALL_SASREC, "markov")
    other.load_state_dict(state)
    assert torch.equal(other.scores(BATCH), ensemble.scores(BATCH))


def test_an_ensemble_can_be_a_member() -> None:
    data = synthetic_data()
    inner = {"name": "ensemble", "members": [{"name": "markov"}], "weights": [3.0]}
    nested = made(inner, "popularity").fit_data(data)
    flat = made("markov", "popularity").fit_data(data)
    torch.testing.assert_close(nested.scores(BATCH), flat.scores(BATCH))
    other = made(inner, "popularity")
    other.load_state_dict(nested.state_dict())
    assert torch.equal(other.scores(BATCH), nested.scores(BATCH))


def test_some_items_have_the_scores_they_have_among_all() -> None:
    ensemble = made("popularity", "markov").fit_data(synthetic_data())
    some = torch.tensor([ITEMS, 1, 7, 7])
    assert torch.equal(ensemble.scores(BATCH, some), ensemble.scores(BATCH)[:, some - 1])


def test_the_settings_of_members_are_written_out() -> None:
    config = EnsembleConfig(members=({"name": "markov", "window": 2},))
    assert config.members == ({"name": "markov", "window": 2, "decay": 0.5},)
    assert EnsembleConfig.parse(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": []}, "model.members: .*at least 1"),
        ({"members": [{"window": 3}]}, "members.0 is a model, such as"),
        ({"members": [{"name": "markov"}, {"name": "marcov"}]}, "members.1: Unknown model 'marcov'.*'markov'"),
        ({"members": [{"name": "markov", "windw": 3}]}, "members.0: Unknown key model.windw.*model.window"),
        ({"weights": [1.0]}, "2 members need as many weights, not 1"),
        ({"weights": [1.0, -0.1]}, "not negative"),
        ({"weights": [0.0, 0.0]}, "one is above 0"),
        ({"weights": [1.0, float("nan")]}, "weights"),
        ({"fusion": "mean"}, "model.fusion"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EnsembleConfig.parse(settings, "model.")


def test_members_that_need_training_are_refused_by_fitting() -> None:
    data = synthetic_data()
    for fit in (lambda model: model.fit_data(data), lambda model: model.fit(data.train)):
        with pytest.raises(ConfigError, match=r"sasrec has to be trained first.*seqrec ensemble RUN RUN"):
            fit(made("popularity", SMALL_SASREC))


@pytest.mark.parametrize(
    ("members", "weights", "expected"),
    [
        (["popularity", "markov"], None, False),
        (["popularity", "als"], None, True),
        (["popularity", "als"], [1.0, 0.0], False),
        (["sasrec"], None, True),
        ([{"name": "ensemble", "members": [{"name": "bpr"}]}, "markov"], None, True),
        ([{"name": "ensemble"}, "markov"], None, False),
    ],
)
def test_there_is_chance_in_an_ensemble_where_there_is_in_a_member(
    members: list[Any], weights: list[float] | None, expected: bool
) -> None:
    specs = [{"name": member} if isinstance(member, str) else member for member in members]
    assert is_stochastic({"name": "ensemble", "members": specs, "weights": weights}) is expected


def test_there_is_chance_in_a_model_that_says_so() -> None:
    assert [is_stochastic({"name": name}) for name in ("markov", "als", "xlstm")] == [False, True, True]


@pytest.mark.parametrize("fusion", ["zscore", "reciprocal_rank"])
def test_a_member_that_gives_nan_is_named(fusion: str) -> None:
    ensemble = made("popularity", f"{__name__}:Broken", fusion=fusion).fit_data(synthetic_data())
    with pytest.raises(ScoreError, match="Broken gave nan for item 7"):
        ensemble.scores(BATCH)


def test_equal_scores_are_listed_by_number_as_anywhere() -> None:
    scores = made("popularity", weights=[1.0]).scores(BATCH)  # not fitted: all counts are 0
    assert top_items(scores, 3)[0].tolist() == [[1, 2, 3]] * len(BATCH)
