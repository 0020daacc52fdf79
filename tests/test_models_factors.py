"""Matrix factorisations: each against an independent formula, the fold-in against the normal equations."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Sequences
from seqrec.errors import MissingExtraError
from seqrec.models.build import build_model
from seqrec.models.factors import FactorModel, ridge_fold_in
from seqrec.models.interaction_matrix import interaction_matrix
from seqrec.models.pmf import events_of
from seqrec.testing import ITEMS, synthetic_data

NAMES = ["als", "bpr", "svd", "nmf", "pmf"]
ASKED = Batch.of([[3, 4, 5, 6, 7], [9], [20, 1, 40, 2, 20], [40, 39]])


@pytest.fixture(scope="module")
def data() -> PreparedData:
    return synthetic_data()


def fitted(name: str, train: Sequences, seed: int = 0, **settings: Any) -> FactorModel:
    torch.manual_seed(seed)
    model = build_model({"name": name, **settings}, train.num_items)
    assert isinstance(model, FactorModel)
    return model.fit(train)


def slow_ridge(weights: Tensor, V: Tensor, b: Tensor, confidence: float, zero: float, pull: float) -> Tensor:
    """The minimum found by Newton's step on the written-out objective."""

    def objective(u: Tensor) -> Tensor:
        scores = V @ u + b
        inside = weights > 0
        errors = torch.where(inside, confidence * weights * (1 - scores) ** 2, zero * scores**2)
        return errors.sum() + pull * u.square().sum()

    at = torch.zeros(V.shape[1], dtype=V.dtype)
    slope = torch.autograd.functional.jacobian(objective, at)
    curvature = torch.autograd.functional.hessian(objective, at)
    return -torch.linalg.solve(curvature, slope)


@pytest.mark.parametrize(("confidence", "zero"), [(10.0, 1.0), (0.3, 1.0), (1.0, 0.02)])
def test_fold_in_is_the_minimum_of_its_objective(confidence: float, zero: float) -> None:
    random = torch.Generator().manual_seed(1)
    V, b = (torch.randn(size, generator=random, dtype=torch.float64) for size in ((7, 3), (7,)))
    history = torch.rand(5, 7, generator=random, dtype=torch.float64)
    history *= history > 0.5
    history[0] = 0
    found = ridge_fold_in(history, V, b, confidence, zero, 0.7)
    expected = torch.stack([slow_ridge(row, V, b, confidence, zero, 0.7) for row in history])
    torch.testing.assert_close(found, expected)


def test_the_fold_in_of_als_is_the_half_step_of_the_library(data: PreparedData) -> None:
    from implicit.cpu.als import AlternatingLeastSquares

    train = data.train
    model = fitted("als", train, factors=5, decay=0.8, alpha=4.0, regularisation=0.5)
    library = AlternatingLeastSquares(factors=5, regularization=0.5, num_threads=1, use_cg=False)
    library.item_factors = model.item_factors_NK.numpy()
    rows = interaction_matrix(train, 0.8)[:4]
    expected = library.recalculate_user(np.arange(4), 4.0 * rows)
    found = model.fold_in(torch.from_numpy(rows.toarray()))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("factors", "rank"), [(5, 5), (1000, ITEMS - 1)])
def test_svd_is_the_best_approximation_of_its_rank(data: PreparedData, factors: int, rank: int) -> None:
    model = fitted("svd", data.train, factors=factors, decay=0.7)
    X = interaction_matrix(data.train, 0.7).toarray().astype(np.float64)
    left, values, right = np.linalg.svd(X)
    best = (left[:, :rank] * values[:rank]) @ right[:rank]
    V = model.item_factors_NK.double().numpy()
    np.testing.assert_allclose(X @ V @ V.T, best, atol=1e-4)
    np.testing.assert_allclose(V.T @ V, np.eye(rank), atol=1e-5)


@pytest.mark.parametrize("histories", [[[1, 2, 2]], [[1], [1]]])
def test_svd_of_one_person_or_one_item(histories: list[list[int]]) -> None:
    items = max(max(history) for history in histories)
    scores = fitted("svd", Sequences.of(histories, items)).scores(Batch.of([[1]]))
    assert scores.shape == (1, items)
    assert scores[0, 0] > 0


def test_nmf_approximates_and_stays_non_negative(data: PreparedData) -> None:
    model = fitted("nmf", data.train, factors=10, decay=1.0)
    assert (model.item_factors_NK >= 0).all()
    X = torch.from_numpy(interaction_matrix(data.train).toarray())
    error = (X - model.fold_in(X) @ model.item_factors_NK.T).square().sum()
    values = np.linalg.svd(X.numpy(), compute_uv=False)
    assert (values[10:] ** 2).sum() <= error < 1.4 * (values[10:] ** 2).sum()


def test_nmf_folds_in_by_non_negative_least_squares(data: PreparedData) -> None:
    from scipy.optimize import nnls

    model = fitted("nmf", data.train, factors=4)
    X = torch.from_numpy(interaction_matrix(data.train, 0.9)[:6].toarray())
    V = model.item_factors_NK.double().numpy()
    found = model.fold_in(X).double().numpy() @ V.T
    expected = np.stack([V @ nnls(V, row)[0] for row in X.double().numpy()])
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_bpr_puts_what_follows_above_the_rest(data: PreparedData) -> None:
    model = fitted("bpr", data.train, factors=16)
    X = interaction_matrix(data.train).toarray() > 0
    scores = model.fold_in(torch.from_numpy(X.astype(np.float32))) @ model.item_factors_NK.T + model.bias_N
    won = [np.mean(row[inside][:, None] > row[~inside]) for row, inside in zip(scores.numpy(), X, strict=True)]
    assert np.mean(won) > 0.75


def test_pmf_reaches_ratings_and_zeros() -> None:
    """Two tastes, ratings 4 and 2 of at most 4: what one taste scores is its rating, the rest is about 0."""
    train = Sequences.of([[1, 2, 3], [4, 5, 6]] * 30, 200)
    rated = replace(train, values=np.where(train.items <= 3, 4, 2).astype(np.float32))
    model = fitted("pmf", rated, factors=4, epochs=60, regularisation=1e-3, decay=1.0)
    scores = model.scores(Batch.of([[1, 2], [4, 5]]))[:, :6]
    assert scores[0, 2] > 0.7 > 0.2 > scores[0, 3:].abs().max()
    assert scores[1, 5] > 0.4 > 0.2 > scores[1, :3].abs().max()


def test_ratings_are_shares_of_the_highest_and_a_missing_one_counts_as_it(monkeypatch: pytest.MonkeyPatch) -> None:
    train = Sequences.of([[1, 2], [], [3, 1, 2]], 3)
    values = np.array([2, np.nan, 4, 1, 3], dtype=np.float32)
    rated = replace(train, values=values)
    for size in (1 << 20, 2):
        monkeypatch.setattr("seqrec.data.sequences.BLOCK", size)
        users, items, ratings = events_of(rated.until(np.array([2, 2, 4])))
        assert (users.tolist(), items.tolist()) == ([0, 0, 2, 2], [0, 1, 2, 0])
        assert ratings.tolist() == [0.5, 1.0, 1.0, 0.25]
    assert events_of(train)[2].tolist() == [1.0] * 5


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_where_it_is_said_to(name: str, data: PreparedData) -> None:
    first, second, other = (fitted(name, data.train, seed).item_factors_NK for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert torch.equal(first, other) != build_model({"name": name}, ITEMS).stochastic


@pytest.mark.parametrize("name", NAMES)
def test_state_round_trip(name: str, data: PreparedData) -> None:
    model, copy = fitted(name, data.train), build_model({"name": name}, ITEMS)
    assert not copy.scores(ASKED).any()
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy.scores(ASKED), model.scores(ASKED))


@pytest.mark.parametrize("name", ["svd", "nmf"])
def test_old_events_fade(name: str, data: PreparedData) -> None:
    model = fitted(name, data.train, decay=0.5)
    once = model.scores(Batch.of([[7, 8, 9]]))
    torch.testing.assert_close(model.scores(Batch.of([[30, *[9] * 60, 7, 8, 9]])), once, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_events_no_opinion(name: str) -> None:
    assert not fitted(name, Sequences.of([[], []], 5)).scores(Batch.of([[1, 2]])).any()


@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_log(name: str) -> None:
    scores = fitted(name, Sequences.of([[1, 2], [2, 3], [], [3]], 5)).scores(Batch.of([[1, 4], [5]]))
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize(
    ("name", "module"), [("als", "implicit.cpu.als"), ("bpr", "implicit.cpu.bpr"), ("nmf", "sklearn.decomposition")]
)
def test_a_missing_library_is_named(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"seqrec\[classical\]"):
        fitted(name, Sequences.of([[1, 2]], 2))
