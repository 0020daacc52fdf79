"""Cross-entropy over the catalogue against a loop with math.exp and math.log."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD
from seqrec.distributed import ALONE
from seqrec.errors import ConfigError
from seqrec.kernels.sharded_softmax import Shard
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models.base import ItemVectors, SequenceModelConfig
from seqrec.models.layers import ItemTable
from seqrec.models.sharded import ShardedItemVectors

SEEDS = st.integers(0, 2**31)


def loss(
    h_BLD: Tensor, targets_BL: Tensor, vectors: ItemVectors | ShardedItemVectors, smoothing: float = 0.0
) -> Tensor:
    batch = Batch(targets_BL, (targets_BL != PAD).sum(1))
    return SoftmaxLoss(SoftmaxConfig(label_smoothing=smoothing))(h_BLD, targets_BL, vectors, batch)


def slow_loss(logits: list[list[float]], targets: list[int], smoothing: float) -> float:
    """Mean over targets of -sum_j p_j log softmax_j, p = (1 - smoothing) at the target + smoothing / N everywhere."""
    losses = []
    for row, target in zip(logits, targets, strict=True):
        if target == PAD:
            continue
        top = max(row)
        log_sum = top + math.log(math.fsum(math.exp(logit - top) for logit in row))
        losses.append(
            math.fsum(
                ((1 - smoothing) * (item == target) + smoothing / len(row)) * (log_sum - logit)
                for item, logit in enumerate(row, start=1)
            )
        )
    return math.fsum(losses) / len(losses)


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def unit(a: list[float]) -> list[float]:
    return [x / math.sqrt(dot(a, a)) for x in a]


def random_case(seed: int, rows: int, length: int, items: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, targets (padded on the right, at least one per row), item vectors and biases."""
    generator = torch.Generator().manual_seed(seed)
    h_BLD = torch.randn(rows, length, width, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    targets = torch.randint(1, items + 1, (rows, length), generator=generator)
    targets = targets.masked_fill(torch.arange(length) >= lengths, PAD)
    weight = torch.randn(items, width, generator=generator, dtype=torch.float64)
    return h_BLD, targets, weight, torch.randn(items, generator=generator, dtype=torch.float64)


@given(
    seed=SEEDS,
    shape=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 9), st.integers(1, 5)),
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    biased=st.booleans(),
)
def test_loss_is_the_mean_over_targets(
    seed: int, shape: tuple[int, int, int, int], smoothing: float, biased: bool
) -> None:
    h_BLD, targets, weight, bias = random_case(seed, *shape)
    offsets = bias.tolist() if biased else [0.0] * len(weight)
    logits = [
        [dot(state, vector) + offset for vector, offset in zip(weight.tolist(), offsets, strict=True)]
        for state in h_BLD.flatten(0, 1).tolist()
    ]
    found = loss(h_BLD, targets, ItemVectors(weight, bias if biased else None), smoothing)
    assert found.shape == ()
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(slow_loss(logits, targets.flatten().tolist(), smoothing), rel=1e-5, abs=1e-6)


@given(seed=SEEDS, temperature=st.sampled_from([0.07, 0.5, 1.0]))
def test_cosine_compares_directions_and_divides_by_the_temperature(seed: int, temperature: float) -> None:
    h_BLD, targets, weight, _ = random_case(seed, rows=3, length=4, items=7, width=5)
    config = SequenceModelConfig(embedding_dim=5, similarity="cosine", temperature=temperature)
    table = ItemTable(config, num_items=7).double()
    with torch.no_grad():
        table.weight[1:] = weight
    logits = [
        [dot(unit(state), unit(vector)) / temperature for vector in weight.tolist()]
        for state in h_BLD.flatten(0, 1).tolist()
    ]
    vectors = table.vectors()
    assert vectors.bias is None
    expected = slow_loss(logits, targets.flatten().tolist(), smoothing=0.0)
    assert loss(table.query(h_BLD), targets, vectors).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_positions_without_a_target_have_no_influence() -> None:
    h_BLD, targets, weight, bias = random_case(3, rows=4, length=6, items=5, width=3)
    h_BLD.requires_grad_()
    first = loss(h_BLD, targets, ItemVectors(weight, bias))
    (gradient,) = torch.autograd.grad(first, h_BLD)
    assert not gradient[targets == PAD].any()
    assert gradient[targets != PAD].any(-1).all()
    noisy = torch.where((targets == PAD)[..., None], torch.full_like(h_BLD, 1e6), h_BLD)
    assert torch.equal(loss(noisy, targets, ItemVectors(weight, bias)), first)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("sharded", [False, True])
def test_without_any_target_the_loss_is_0_and_teaches_nothing(smoothing: float, sharded: bool) -> None:
    h_BLD, targets, weight, bias = random_case(3, rows=2, length=3, items=5, width=3)
    leaves = [part.requires_grad_() for part in (h_BLD, weight, bias)]
    vectors = ShardedItemVectors(weight, bias, Shard(0, 5, ALONE)) if sharded else ItemVectors(weight, bias)
    found = loss(h_BLD, torch.full_like(targets, PAD), vectors, smoothing)
    assert found.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(found, leaves))


@given(seed=SEEDS, smoothing=st.sampled_from([0.0, 0.3]), biased=st.booleans())
def test_cosine_vectors_are_their_directions(seed: int, smoothing: float, biased: bool) -> None:
    """The loss and its gradients, whether it or the caller divides vectors by their lengths."""
    h_BLD, targets, weight, bias = random_case(seed, rows=3, length=4, items=7, width=5)
    vectors = ItemVectors(weight, bias if biased else None, cosine=True)
    leaves = [part.requires_grad_() for part in (h_BLD, *vectors[:2]) if part is not None]
    found, expected = loss(h_BLD, targets, vectors, smoothing), loss(h_BLD, targets, vectors.plain(), smoothing)
    torch.testing.assert_close(found, expected)
    assert (found - loss(h_BLD, targets, vectors._replace(cosine=False), smoothing)).abs() > 1e-4
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_are_those_of_the_dense_formula() -> None:
    h_BLD, targets, weight, bias = random_case(5, rows=3, length=4, items=6, width=3)
    leaves = [part.requires_grad_() for part in (h_BLD, weight, bias)]
    found = torch.autograd.grad(loss(h_BLD, targets, ItemVectors(weight, bias)), leaves)
    chances = F.softmax(h_BLD @ weight.T + bias, -1) - F.one_hot(targets, 7)[..., 1:]
    chances = chances * (targets != PAD)[..., None] / (targets != PAD).sum()
    expected = (chances @ weight, torch.einsum("bln,bld->nd", chances, h_BLD), chances.sum((0, 1)))
    for gradient, formula in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, formula, rtol=1e-5, atol=1e-6)


def test_huge_logits_do_not_overflow() -> None:
    vectors = ItemVectors(torch.tensor([[1e4], [-1e4]]), None)
    found = loss(torch.ones(1, 2, 1), torch.tensor([[1, 2]]), vectors)
    assert found.item() == pytest.approx((0 + 2e4) / 2)


def test_a_catalogue_of_one_leaves_nothing_to_learn() -> None:
    assert loss(torch.ones(1, 1, 2), torch.tensor([[1]]), ItemVectors(torch.ones(1, 2), None)).item() == 0


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_is_a_share(smoothing: float) -> None:
    with pytest.raises(ConfigError, match=r"loss\.label_smoothing"):
        SoftmaxConfig.parse({"label_smoothing": smoothing}, "loss.")
