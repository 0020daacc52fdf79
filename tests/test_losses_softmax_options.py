"""What softmax can do besides: against loops in float64, and edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loss_cases import of_counts, random_case, same_with_gradients, slow_score, value
from seqrec.data.sequences import PAD
from seqrec.distributed import ALONE
from seqrec.errors import ConfigError
from seqrec.experiments.config import RunConfig
from seqrec.kernels.sharded_softmax import Shard
from seqrec.losses.frequencies import MOST, log_popularity, popularity_weights, target_counts
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models.base import ItemVectors
from seqrec.models.sharded import ShardedItemVectors

COUNTS = [3, 0, 1, 20, 7, 1, 2]


def of(counts: list[int] | None = None, **settings: Any) -> SoftmaxLoss:
    loss = SoftmaxLoss(SoftmaxConfig(**settings))
    if counts is not None:
        loss.fit(of_counts(counts))
    return loss


def one(h_D: Tensor, target: int, vectors: ItemVectors, settings: dict[str, Any], counts: list[int]) -> Tensor:
    """The loss of one position."""
    N, smoothing, tau = len(counts), settings.get("label_smoothing", 0.0), settings.get("adjustment", 0.0)
    shares = [max(count, 1) / sum(max(other, 1) for other in counts) for count in counts]
    scores = torch.stack([slow_score(h_D, j + 1, vectors) + tau * math.log(shares[j]) for j in range(N)])
    logs = scores - scores.exp().sum().log()
    loss = -(1 - smoothing) * logs[target - 1] - smoothing * logs.sum() / N
    loss = loss * (1 - logs[target - 1].exp()) ** settings.get("focal", 0.0)
    mean = sum(counts) / N
    weights = [min((max(count, 1) / mean) ** -settings.get("popularity_weight", 0.0), MOST) for count in counts]
    normal = sum(weight * count for weight, count in zip(weights, counts, strict=True)) / sum(counts)
    return loss * weights[target - 1] / normal


def slow(h_BLD: Tensor, targets: Tensor, vectors: ItemVectors, settings: dict[str, Any], counts: list[int]) -> Tensor:
    share, total, number = settings.get("next_but_one", 0.0), torch.zeros((), dtype=torch.float64), 0
    for b, row in enumerate(targets.tolist()):
        for t, target in enumerate(row):
            if target == PAD:
                continue
            number += 1
            total = total + (1 - share) * one(h_BLD[b, t], target, vectors, settings, counts)
            if share and t + 1 < len(row) and row[t + 1] != PAD:
                total = total + share * one(h_BLD[b, t], row[t + 1], vectors, settings, counts)
    return total / number


OPTIONS = st.fixed_dictionaries(
    {
        "label_smoothing": st.sampled_from([0.0, 0.2]),
        "focal": st.sampled_from([0.0, 0.5, 2.0]),
        "popularity_weight": st.sampled_from([0.0, 0.5]),
        "adjustment": st.sampled_from([0.0, 0.7]),
        "next_but_one": st.sampled_from([0.0, 0.3]),
    }
)


@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    settings=OPTIONS,
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_loss_and_gradients_are_those_of_a_loop(
    seed: int, shape: tuple[int, int], settings: dict[str, Any], flags: tuple[bool, bool]
) -> None:
    biased, cosine = flags
    h_BLD, targets, weight, bias = random_case(seed, *shape, items=len(COUNTS))
    vectors = ItemVectors(weight, bias if biased else None, cosine)
    leaves = [part.requires_grad_() for part in (h_BLD, *vectors[:2]) if part is not None]
    found = value(of(COUNTS, **settings), h_BLD, targets, vectors)
    assert found.dtype == torch.float32
    same_with_gradients(found, slow(h_BLD, targets, vectors, settings, COUNTS), leaves)


@pytest.mark.parametrize(
    "settings", [{"focal": 1.0, "label_smoothing": 0.1}, {"adjustment": 0.5}, {"popularity_weight": 0.5}]
)
def test_a_table_in_parts_learns_the_same(settings: dict[str, Any]) -> None:
    h_BLD, targets, weight, bias = random_case(3, 3, 4, len(COUNTS))
    leaves = [part.requires_grad_() for part in (h_BLD, weight, bias)]
    loss, shard = of(COUNTS, **settings), Shard(0, len(COUNTS), ALONE)
    found = value(loss, h_BLD, targets, ShardedItemVectors(weight, bias, shard))
    same_with_gradients(found, value(loss, h_BLD, targets, ItemVectors(weight, bias)).double(), leaves)


def test_offsets_of_a_part_are_those_of_its_items() -> None:
    part = ShardedItemVectors(torch.ones(2, 3), torch.tensor([1.0, 2.0]), Shard(3, 7, ALONE))
    assert part.plus(torch.arange(7.0)).offsets.tolist() == [4.0, 6.0]
    bare = ShardedItemVectors(torch.ones(2, 3), None, Shard(3, 7, ALONE))
    assert bare.plus(torch.arange(7.0)).offsets.tolist() == [3.0, 4.0]


def test_targets_are_all_events_but_the_first_of_each_history() -> None:
    assert target_counts(of_counts(COUNTS)).tolist() == COUNTS


def test_weights_of_targets_have_a_mean_of_one_and_rare_ones_weigh_more() -> None:
    counts, weights = np.array(COUNTS), popularity_weights(of_counts(COUNTS), 0.5).numpy()
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[3] < weights[4] < weights[0] < weights[2]
    assert weights.max() / weights.min() <= MOST * (20 / (sum(COUNTS) / 7)) ** 0.5 + 1e-3


def test_popularity_is_of_what_occurs_and_finite_for_what_does_not() -> None:
    found = log_popularity(of_counts([6, 0, 3]))
    torch.testing.assert_close(found.exp(), torch.tensor([0.6, 0.1, 0.3]))


# --- edges


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_sure_hits_have_finite_gradients(gamma: float) -> None:
    """1 - p is 0 there, where a power below 1 has no slope."""
    h_BLD = torch.tensor([[[100.0], [0.0]]], requires_grad=True)
    vectors = ItemVectors(torch.tensor([[1.0], [-1.0]]), None)
    found = value(of(focal=gamma), h_BLD, torch.tensor([[1, 2]]), vectors)
    assert found.item() == pytest.approx(math.log(2) / 2 / 2**gamma)
    assert torch.isfinite(torch.autograd.grad(found, h_BLD)[0]).all()


ALL = {"focal": 0.5, "popularity_weight": 0.5, "adjustment": 0.5, "next_but_one": 0.3, "label_smoothing": 0.1}


def test_without_any_target_the_loss_is_0_and_teaches_nothing() -> None:
    h_BLD, targets, weight, _ = random_case(3, 2, 3, len(COUNTS))
    leaves = [h_BLD.requires_grad_(), weight.requires_grad_()]
    found = value(of(COUNTS, **ALL), h_BLD, torch.zeros_like(targets), ItemVectors(weight, None))
    assert found.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(found, leaves))


@pytest.mark.parametrize("settings", [{}, {"focal": 1.0}, {"popularity_weight": 0.5}, {"next_but_one": 0.3}])
def test_what_is_not_a_number_stays_so(settings: dict[str, Any]) -> None:
    h_BLD, targets, weight, _ = random_case(3, 2, 3, len(COUNTS))
    h_BLD[0, 0] = math.nan
    assert value(of(COUNTS, **settings), h_BLD, targets, ItemVectors(weight, None)).isnan()


@pytest.mark.parametrize("key", ["popularity_weight", "adjustment"])
def test_counts_are_needed(key: str) -> None:
    h_BLD, targets, weight, _ = random_case(3, 2, 3, 4)
    with pytest.raises(ConfigError, match=rf"loss\.{key}.*fit\(train\)"):
        value(of(**{key: 0.5}), h_BLD, targets, ItemVectors(weight, None))


def test_bidirectional_models_have_no_next_but_one() -> None:
    for model in ({"name": "bert4rec"}, {"name": "xlstm", "bidirectional": True}):
        with pytest.raises(ConfigError, match=r"loss\.next_but_one.*model\.bidirectional"):
            RunConfig.from_dict({"model": model, "loss": {"next_but_one": 0.2}})
