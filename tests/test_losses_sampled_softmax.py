"""Cross-entropy among drawn items: against a loop, against the full softmax in expectation, and in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loss_cases import random_case, value
from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD, Ints, Sequences
from seqrec.errors import ConfigError
from seqrec.experiments.config import RunConfig
from seqrec.losses.sampled_softmax import SampledSoftmaxConfig, SampledSoftmaxLoss
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models.base import ItemVectors
from seqrec.models.popularity import Popularity
from seqrec.testing import synthetic_data
from test_training_step import on_gpu, run
from training import same, trained, trainer

SAMPLING = pytest.mark.parametrize("sampling", ["uniform", "popularity"])


def of(counts: list[int] | None = None, **settings: Any) -> SampledSoftmaxLoss:
    """A loss that has met item j + 1 `counts[j]` times in training."""
    loss = SampledSoftmaxLoss(SampledSoftmaxConfig(**settings))
    if counts is not None:
        events = [item for item, count in enumerate(counts, 1) for _ in range(count)]
        loss.fit(Sequences.of([events[::2], events[1::2]], len(counts)))
    return loss


def drawn(seed: int, counts: list[int], K: int, sampling: str, power: float) -> list[tuple[int, float]]:
    """Items that are drawn, and the chance of each, by walking along the shares."""
    torch.manual_seed(seed)
    if sampling == "uniform":
        return [(int(item) + 1, 1 / len(counts)) for item in torch.randint(len(counts), (K,))]
    shares = [count**power / sum(other**power for other in counts) for count in counts]
    found = []
    for point in torch.rand(K, dtype=torch.float64).tolist():
        item, passed = 1, shares[0]
        while point >= passed:
            passed += shares[item]
            item += 1
        found.append((item, shares[item - 1]))
    return found


def slow_loss(
    h_BLD: Tensor, targets: Tensor, vectors: ItemVectors, negatives: list[tuple[int, float]], logq: bool
) -> Tensor:
    """Mean over targets of -log of the target's share of exponentials, score by score."""
    weight, bias, cosine = vectors

    def score(h_D: Tensor, item: int) -> Tensor:
        w_D = weight[item - 1] / weight[item - 1].square().sum().sqrt() if cosine else weight[item - 1]
        return (h_D * w_D).sum() + (0.0 if bias is None else bias[item - 1])

    losses = []
    for h_D, target in zip(h_BLD.flatten(0, 1), targets.flatten().tolist(), strict=True):
        if target == PAD:
            continue
        own = score(h_D, target)
        total = own.exp()
        for item, chance in negatives:
            if item != target:
                total = total + score(h_D, item).exp() / (len(negatives) * chance if logq else 1)
        losses.append(total.log() - own)
    return torch.stack(losses).mean()


@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=7).filter(any),
    K=st.integers(1, 12),
    sampling=st.sampled_from(["uniform", "popularity"]),
    power=st.sampled_from([0.5, 1.0]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_loss_and_gradients_are_those_of_a_loop(
    seed: int,
    shape: tuple[int, int],
    counts: list[int],
    K: int,
    sampling: str,
    power: float,
    flags: tuple[bool, bool, bool],
) -> None:
    """Catalogues of one item and more draws than items among them."""
    biased, cosine, logq = flags
    h_BLD, targets, weight, bias = random_case(seed, *shape, items=len(counts))
    vectors = ItemVectors(weight, bias if biased else None, cosine)
    leaves = [part.requires_grad_() for part in (h_BLD, *vectors[:2]) if part is not None]
    loss = of(counts, num_negatives=K, sampling=sampling, power=power, logq=logq)
    found = value(loss, h_BLD, targets, vectors, seed)
    assert found.shape == ()
    assert found.dtype == torch.float32
    slow = slow_loss(h_BLD, targets, vectors, drawn(seed, counts, K, sampling, power), logq)
    torch.testing.assert_close(found.double(), slow, rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(found, leaves)
    for gradient, expected in zip(gradients, torch.autograd.grad(slow, leaves, materialize_grads=True), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


# --- an estimate of the full softmax

COUNTS = [1, 40, 3, 0, 9, 9, 25, 2, 1, 60, 5, 30]


def full(h_BLD: Tensor, targets: Tensor, vectors: ItemVectors) -> Tensor:
    return value(SoftmaxLoss(SoftmaxConfig()), h_BLD, targets, vectors)


def seen(weight: Tensor, bias: Tensor) -> ItemVectors:
    """Item 4, which never occurs, is never drawn: it must not count in the full softmax either."""
    bias[3] = -1e9
    return ItemVectors(weight, bias)


def partitions(steps: int, **settings: Any) -> tuple[Tensor, float]:
    """Estimates (steps,) of the sum of exponentials over the target's, and what they estimate."""
    h_BLD, _, weight, bias = random_case(11, 1, 1, len(COUNTS))
    vectors, targets = seen(weight, bias), torch.tensor([[7]])
    loss = of(COUNTS, **settings)
    found = [value(loss, h_BLD, targets, vectors, seed).double().exp() for seed in range(steps)]
    return torch.stack(found), float(full(h_BLD, targets, vectors).double().exp())


@SAMPLING
def test_the_sum_of_exponentials_is_estimated_without_bias(sampling: str) -> None:
    found, expected = partitions(1000, num_negatives=5, sampling=sampling)
    error = float(found.std() / len(found) ** 0.5)
    assert error < 0.05 * expected
    assert float(found.mean()) == pytest.approx(expected, abs=4 * error)


def test_without_logq_it_is_not() -> None:
    found, expected = partitions(500, num_negatives=5, sampling="popularity", logq=False)
    assert abs(float(found.mean()) - expected) > 10 * float(found.std() / len(found) ** 0.5)


def gradient_error(K: int, **settings: Any) -> float:
    """Of the item vectors' gradient, relative to that of the full softmax."""
    h_BLD, targets, weight, bias = random_case(5, 3, 4, len(COUNTS))
    targets.masked_fill_(targets == 4, 5)
    vectors = seen(weight.requires_grad_(), bias)
    (expected,) = torch.autograd.grad(full(h_BLD, targets, vectors), weight)
    (found,) = torch.autograd.grad(value(of(COUNTS, num_negatives=K, **settings), h_BLD, targets, vectors), weight)
    return float((found - expected).norm() / expected.norm())


@SAMPLING
def test_gradients_become_those_of_the_full_softmax(sampling: str) -> None:
    errors = [gradient_error(K, sampling=sampling) for K in (10, 1000, 100_000)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.01
    assert gradient_error(100_000, sampling="popularity", logq=False) > 0.1


# --- what is drawn


def draws(loss: SampledSoftmaxLoss, items: int) -> Tensor:
    """(items,) how often each was drawn over how often any: with equal scores the biases' gradients tell."""
    bias = torch.zeros(items + 1, requires_grad=True)  # the last item is the target, which nobody draws
    found = value(loss, torch.zeros(1, 1, 2), torch.tensor([[items + 1]]), ItemVectors(torch.ones(items + 1, 2), bias))
    (gradient,) = torch.autograd.grad(found, bias)
    return gradient[:-1] / gradient[:-1].sum()


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_popular_items_are_drawn_by_their_counts_and_others_never(power: float) -> None:
    counts = [0, 0, 16, 1, 0, 4, 64, 0]
    found = draws(of([*counts, 0], sampling="popularity", power=power, logq=False, num_negatives=100_000), len(counts))
    expected = torch.tensor(counts) ** power
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(found, expected / expected.sum(), rtol=0, atol=0.005)


class Skewed(Sequences):
    """One item with 4 billion events and 100,000 items with one each, without the events."""

    def counts(self) -> Ints:
        return np.r_[4_000_000_000, np.ones(100_000, dtype=np.int64)]


def test_items_of_a_tiny_share_are_drawn_as_often_as_they_should_be() -> None:
    """Their shares are below float32's resolution at 1, which would give them to every 256th item."""
    loss = of(sampling="popularity", power=1.0, num_negatives=100_000)
    nothing = Sequences.of([], 100_001)
    loss.fit(Skewed(nothing.items, nothing.starts, nothing.ends, nothing.num_items))
    weight = torch.zeros(100_001, 1, requires_grad=True)
    tiny: list[int] = []
    for seed in range(10):
        found = value(loss, torch.ones(1, 1, 1), torch.tensor([[1]]), ItemVectors(weight, None), seed)
        (gradient,) = torch.autograd.grad(found, weight)
        tiny += gradient[1:, 0].nonzero()[:, 0].tolist()
    assert 10 <= len(tiny) <= 45  # 25 on average
    assert len({item % 64 for item in tiny}) > 8


def test_draws_follow_the_seed_and_change_from_step_to_step() -> None:
    h_BLD, targets, weight, bias = random_case(2, 2, 3, items=50)
    loss, vectors = of(num_negatives=10), ItemVectors(weight, bias)
    first = value(loss, h_BLD, targets, vectors, seed=1)
    second = loss(h_BLD, targets, vectors, Batch(targets, (targets != PAD).sum(1)))
    assert torch.equal(value(loss, h_BLD, targets, vectors, seed=1), first)
    assert len({float(x) for x in (first, second, value(loss, h_BLD, targets, vectors, seed=2))}) == 3


# --- edges


def test_a_negative_that_is_the_target_is_left_out_there_alone() -> None:
    h_BLD, targets = torch.ones(1, 2, 1), torch.tensor([[1, 2]])
    loss = of([1, 0], sampling="popularity", num_negatives=7, logq=False)  # item 1 is drawn seven times
    vectors = ItemVectors(torch.tensor([[0.3], [0.3]]), None)
    assert value(loss, h_BLD[:, :1], targets[:, :1], vectors).item() == 0
    assert value(loss, h_BLD, targets, vectors).item() == pytest.approx(torch.tensor(8.0).log().item() / 2)


def test_positions_without_a_target_have_no_influence() -> None:
    h_BLD, targets, weight, bias = random_case(3, 4, 6, items=5)
    vectors, loss = ItemVectors(weight, bias), of(num_negatives=8)
    first = value(loss, h_BLD.requires_grad_(), targets, vectors)
    (gradient,) = torch.autograd.grad(first, h_BLD)
    assert not gradient[targets == PAD].any()
    assert gradient[targets != PAD].any(-1).all()
    noisy = torch.where((targets == PAD)[..., None], torch.full_like(h_BLD, 1e6), h_BLD)
    assert torch.equal(value(loss, noisy, targets, vectors), first)


@pytest.mark.parametrize("cosine", [False, True])
def test_without_any_target_the_loss_is_0_and_teaches_nothing(cosine: bool) -> None:
    h_BLD, targets, weight, _ = random_case(3, 2, 3, items=5)
    leaves = [h_BLD.requires_grad_(), weight.requires_grad_()]
    found = value(of(num_negatives=8), h_BLD, torch.zeros_like(targets), ItemVectors(weight, None, cosine))
    assert found.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(found, leaves))


def test_huge_scores_do_not_overflow() -> None:
    vectors = ItemVectors(torch.tensor([[1e4], [-1e4]]), None)
    found = value(of(num_negatives=100, logq=False), torch.ones(1, 2, 1), torch.tensor([[1, 2]]), vectors)
    assert found.item() == pytest.approx((0 + 2e4) / 2, rel=1e-3)


def test_under_autocast_the_loss_stays_float32() -> None:
    h_BLD, targets, weight, bias = (
        part.float() if part.is_floating_point() else part for part in random_case(4, 3, 5, 9)
    )
    vectors, loss = ItemVectors(weight, bias, True), of(num_negatives=20)
    expected = value(loss, h_BLD, targets, vectors)
    with torch.autocast("cpu", torch.bfloat16):
        found = value(loss, h_BLD.bfloat16(), targets, vectors)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.0)


def test_popularity_needs_counts() -> None:
    h_BLD, targets, weight, bias = random_case(4, 1, 1, 3)
    with pytest.raises(ConfigError, match=r"loss\.sampling.*fit\(train\)"):
        value(of(sampling="popularity"), h_BLD, targets, ItemVectors(weight, bias))


@pytest.mark.parametrize("setting", [{"num_negatives": 0}, {"sampling": "hard"}, {"power": 0.0}, {"power": 1.5}])
def test_settings_that_make_no_sense(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"loss\.{next(iter(setting))}"):
        RunConfig.from_dict({"loss": {"name": "sampled_softmax"} | setting})


# --- in training


def settings(sampling: str) -> dict[str, Any]:
    return {"loss": of(num_negatives=10, sampling=sampling), "learning_rate": 0.01, "item_dropout": 0.1}


@SAMPLING
def test_training_with_it_beats_popularity(sampling: str, tmp_path: Path) -> None:
    mine = trainer(tmp_path / "run", epochs=12, evaluate_every=12, **settings(sampling))
    best = mine.train().best
    popular = Popularity(Popularity.Config(), mine.model.num_items).fit(mine.evaluator.data.train)
    baseline = mine.evaluator.evaluate(popular, "validation").metrics["ndcg@10"]
    assert best is not None
    assert best > 2 * baseline > 0


@SAMPLING
def test_resumed_is_bit_for_bit_the_straight_run(sampling: str, tmp_path: Path) -> None:
    straight = trained(tmp_path / "straight", epochs=4, **settings(sampling))
    before = trained(tmp_path / "resumed", epochs=2, **settings(sampling))
    resumed = trained(tmp_path / "resumed", epochs=4, **settings(sampling))
    assert same(resumed, straight)
    assert not same(before, straight)


@on_gpu
@SAMPLING
def test_recorded_steps_are_the_steps_themselves(sampling: str) -> None:
    found = []
    for compile in ("off", "auto"):
        loss = settings(sampling)["loss"]
        loss.fit(synthetic_data().train)
        found.append(run("sasrec", "cuda", loss, dropout=0.3, compile=compile))
    (told, _, weights), (recorded, step, others) = found
    assert step.recorder._recordings
    assert torch.equal(told, recorded)
    assert same(weights, others)
