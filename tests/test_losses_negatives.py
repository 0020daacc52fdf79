"""Losses that compare targets with negatives of their own: against loops in float64, and edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loss_cases import of_counts, random_case, same_with_gradients, slow_score, value
from seqrec.data.sequences import PAD
from seqrec.errors import ConfigError
from seqrec.losses import LOSSES, pieces
from seqrec.losses.bce import GBCEConfig, GBCELoss
from seqrec.models.base import ItemVectors
from seqrec.registry import resolve

NAMES = ("bce", "gbce", "bpr", "bpr_max")
COUNTS = [1, 4, 2, 0, 9, 9]
Rule = Callable[[Tensor, list[Tensor]], Tensor]


def of(name: str, counts: list[int] | None = None, **settings: Any) -> Any:
    found = resolve("loss", name, LOSSES)
    loss = found(found.Config.parse(settings, "loss."))
    if counts is not None:
        loss.fit(of_counts(counts))
    return loss


def drawn(seed: int, positions: int, settings: dict[str, Any], counts: list[int]) -> list[list[int]]:
    """Negatives of each position, by walking along the shares; item 1 starts both histories, which are events too."""
    torch.manual_seed(seed)
    K = settings["num_negatives"]
    if settings["sampling"] == "uniform":
        return (torch.randint(len(counts), (positions, K)) + 1).tolist()
    events = [count + 2 * (item == 0) for item, count in enumerate(counts)]
    shares = [count ** settings["power"] for count in events]

    def at(point: float) -> int:
        item, passed = 0, shares[0] / sum(shares)
        while point >= passed:
            item += 1
            passed += shares[item] / sum(shares)
        return item + 1

    return [[at(point) for point in row] for row in torch.rand(positions, K, dtype=torch.float64).tolist()]


def sigma(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def rule(name: str, settings: dict[str, Any], items: int) -> Rule:
    K = settings["num_negatives"]

    def bce(own: Tensor, others: list[Tensor]) -> Tensor:
        beta = 1.0
        if name == "gbce" and items > 1:
            alpha, t = min(1.0, K / (items - 1)), settings["calibration"]
            beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
        return -(beta * sigma(own).log() + sum((1 - sigma(s)).log() for s in others)) / (K + 1)

    def bpr(own: Tensor, others: list[Tensor]) -> Tensor:
        return -sum((sigma(own - s).log() for s in others), own * 0) / max(1, len(others))

    def bpr_max(own: Tensor, others: list[Tensor]) -> Tensor:
        if not others:
            return own * 0
        total = sum(s.exp() for s in others)
        above = sum(s.exp() / total * sigma(own - s) for s in others)
        return settings["regularisation"] * sum(s.exp() / total * s**2 for s in others) - torch.as_tensor(above).log()

    return {"bce": bce, "gbce": bce, "bpr": bpr, "bpr_max": bpr_max}[name]


def slow(
    name: str, settings: dict[str, Any], h_BLD: Tensor, targets: Tensor, vectors: ItemVectors, seed: int
) -> Tensor:
    apply, losses = rule(name, settings, len(vectors.weight)), []
    rows = drawn(seed, targets.numel(), settings, COUNTS[: len(vectors.weight)])
    for h_D, target, negatives in zip(h_BLD.flatten(0, 1), targets.flatten().tolist(), rows, strict=True):
        if target != PAD:
            others = [slow_score(h_D, item, vectors) for item in negatives if item != target]
            losses.append(apply(slow_score(h_D, target, vectors), others))
    return torch.stack(losses).mean()


@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    items=st.sampled_from([1, 3, 6]),
    K=st.sampled_from([1, 2, 9]),
    sampling=st.sampled_from(["uniform", "popularity"]),
    flags=st.tuples(st.booleans(), st.booleans()),
    piece=st.sampled_from([1, 1 << 27]),
)
def test_loss_and_gradients_are_those_of_a_loop(
    name: str,
    seed: int,
    shape: tuple[int, int],
    items: int,
    K: int,
    sampling: str,
    flags: tuple[bool, bool],
    piece: int,
) -> None:
    """Catalogues of one item, where every negative is the target; all at once and one position at a time."""
    biased, cosine = flags
    settings: dict[str, Any] = {"num_negatives": K, "sampling": sampling, "power": 0.5}
    settings |= {"gbce": {"calibration": 0.6}, "bpr_max": {"regularisation": 0.3}}.get(name, {})
    h_BLD, targets, weight, bias = random_case(seed, *shape, items=items)
    vectors = ItemVectors(weight, bias if biased else None, cosine)
    leaves = [part.requires_grad_() for part in (h_BLD, *vectors[:2]) if part is not None]
    loss = of(name, COUNTS[:items], **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "NUMBERS", piece)
        found = value(loss, h_BLD, targets, vectors, seed)
        assert found.dtype == torch.float32
        same_with_gradients(found, slow(name, settings, h_BLD, targets, vectors, seed), leaves)


def test_calibration_goes_from_bce_to_the_share_of_negatives() -> None:
    h_BLD, targets, vectors = torch.zeros(1, 1, 1), torch.tensor([[1]]), ItemVectors(torch.zeros(101, 1), None)
    for calibration, beta in ((0.0, 1.0), (1.0, 0.05), (0.5, 0.525)):
        loss = GBCELoss(GBCEConfig(num_negatives=5, calibration=calibration))
        found = value(loss, h_BLD, targets, vectors, seed=0).item()  # none of these five is item 1
        assert found == pytest.approx((beta + 5) * math.log(2) / 6, rel=1e-5)


def test_popular_items_are_drawn_more_often_and_others_never() -> None:
    vectors = ItemVectors(torch.zeros(7, 1), torch.zeros(7, requires_grad=True))
    loss = of("bce", [0, 0, 16, 1, 4, 0, 0], num_negatives=50_000, sampling="popularity", power=0.5)
    assert vectors.bias is not None
    (gradient,) = torch.autograd.grad(value(loss, torch.zeros(1, 1, 1), torch.tensor([[7]]), vectors), vectors.bias)
    shares = torch.tensor([2**0.5, 0, 4, 1, 2, 0])  # item 1 starts both histories
    torch.testing.assert_close(gradient[:-1] / gradient[:-1].sum(), shares / shares.sum(), rtol=0, atol=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_seed(name: str) -> None:
    h_BLD, targets, weight, bias = random_case(2, 2, 3, items=50)
    loss, vectors = of(name, num_negatives=3), ItemVectors(weight, bias)
    found = [float(value(loss, h_BLD, targets, vectors, seed)) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cosine", [False, True])
def test_without_any_target_the_loss_is_0_and_teaches_nothing(name: str, cosine: bool) -> None:
    h_BLD, targets, weight, _ = random_case(3, 2, 3, items=5)
    h_BLD[0, 0] = math.inf
    leaves = [h_BLD.requires_grad_(), weight.requires_grad_()]
    found = value(of(name, num_negatives=4), h_BLD, torch.zeros_like(targets), ItemVectors(weight, None, cosine))
    assert found.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(found, leaves))


@pytest.mark.parametrize("name", NAMES)
def test_extreme_scores_stay_finite_and_what_is_not_a_number_shows(name: str) -> None:
    h_BLD = torch.full((1, 2, 1), 1e4, requires_grad=True)
    vectors = ItemVectors(torch.tensor([[1.0], [-1.0]]), None)
    found = value(of(name, num_negatives=6), h_BLD, torch.tensor([[1, 2]]), vectors)
    assert torch.isfinite(found)
    assert torch.isfinite(torch.autograd.grad(found, h_BLD)[0]).all()
    broken = value(of(name, num_negatives=6), h_BLD * math.nan, torch.tensor([[1, 2]]), vectors)
    assert broken.isnan()


@pytest.mark.parametrize("name", NAMES)
def test_under_autocast_scores_are_float32(name: str) -> None:
    h_BLD, targets, weight, bias = (
        part.float() if part.is_floating_point() else part for part in random_case(4, 3, 5, 9)
    )
    h_BLD, loss, vectors = h_BLD.bfloat16(), of(name, num_negatives=20), ItemVectors(weight, bias, True)
    expected = value(loss, h_BLD.float(), targets, vectors)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(value(loss, h_BLD, targets, vectors), expected, rtol=1e-6, atol=0)


def test_popularity_needs_counts() -> None:
    h_BLD, targets, weight, bias = random_case(4, 1, 1, 3)
    with pytest.raises(ConfigError, match=r"loss\.sampling.*fit\(train\)"):
        value(of("bpr", sampling="popularity"), h_BLD, targets, ItemVectors(weight, bias))


def test_scores_of_some_items_are_the_same_by_both_ways() -> None:
    """By way of all scores where those are fewer, else by way of the items' vectors."""
    h_BLD, _, weight, bias = random_case(1, 1, 4, items=40)
    for K in (2, 30):
        for vectors in (ItemVectors(weight, bias), ItemVectors(weight, None, True)):
            items = torch.randint(1, 41, (4, K), generator=torch.Generator().manual_seed(K))
            expected = vectors.score(h_BLD[0]).gather(1, items - 1)
            torch.testing.assert_close(vectors.scores_of(h_BLD[0], items), expected)
