"""Sampled softmax with targets of the batch as negatives, alone and mixed with uniform draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loss_cases import of_counts, random_case, same_with_gradients, slow_score, value
from seqrec.data.sequences import PAD
from seqrec.errors import ConfigError
from seqrec.losses.sampled_softmax import SampledSoftmaxConfig, SampledSoftmaxLoss
from seqrec.models.base import ItemVectors

COUNTS = [1, 40, 3, 9, 25, 2, 60]
SAMPLING = pytest.mark.parametrize("sampling", ["in_batch", "mixed"])


def of(**settings: Any) -> SampledSoftmaxLoss:
    loss = SampledSoftmaxLoss(SampledSoftmaxConfig(**settings))
    loss.fit(of_counts(COUNTS))
    return loss


def drawn(seed: int, targets: Tensor, K: int, sampling: str) -> list[int]:
    """Items: a third of them uniform where mixed, the others targets, each position as likely as another."""
    torch.manual_seed(seed)
    uniform = round(K / 3) if sampling == "mixed" else 0
    items = (torch.randint(len(COUNTS), (uniform,)) + 1).tolist() if uniform else []
    there = [target for target in targets.flatten().tolist() if target != PAD]
    if uniform < K:
        items += [there[int(point * len(there))] for point in torch.rand(K - uniform, dtype=torch.float64).tolist()]
    return items


def expected_draws(item: int, K: int, sampling: str) -> float:
    uniform = round(K / 3) if sampling == "mixed" else 0
    return uniform / len(COUNTS) + (K - uniform) * COUNTS[item - 1] / sum(COUNTS)


class Otherwise:
    """Item vectors of a head that scores otherwise: a loss has to ask for scores."""

    numbers_per_score = 3

    def __init__(self, vectors: ItemVectors) -> None:
        self._vectors = vectors
        self.num_items, self.score, self.scores_of = vectors.num_items, vectors.score, vectors.scores_of

    def of(self, items: Tensor) -> ItemVectors:
        return self._vectors.of(items)


@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    K=st.integers(1, 12),
    sampling=st.sampled_from(["in_batch", "mixed"]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)
def test_loss_and_gradients_are_those_of_a_loop(
    seed: int, shape: tuple[int, int], K: int, sampling: str, flags: tuple[bool, bool, bool, bool]
) -> None:
    """As products, and where a head says no more than scores."""
    biased, cosine, logq, otherwise = flags
    h_BLD, targets, weight, bias = random_case(seed, *shape, items=len(COUNTS))
    vectors = ItemVectors(weight, bias if biased else None, cosine)
    leaves = [part.requires_grad_() for part in (h_BLD, *vectors[:2]) if part is not None]
    loss = of(num_negatives=K, sampling=sampling, uniform_share=1 / 3, logq=logq)
    found = value(loss, h_BLD, targets, Otherwise(vectors) if otherwise else vectors, seed)
    negatives, losses = drawn(seed, targets, K, sampling), []
    for h_D, target in zip(h_BLD.flatten(0, 1), targets.flatten().tolist(), strict=True):
        if target != PAD:
            own = slow_score(h_D, target, vectors)
            total = own.exp()
            for item in negatives:
                if item != target:
                    stands_for = expected_draws(item, K, sampling) if logq else 1.0
                    total = total + slow_score(h_D, item, vectors).exp() / stands_for
            losses.append(total.log() - own)
    same_with_gradients(found, torch.stack(losses).mean(), leaves)


@SAMPLING
def test_the_sum_of_exponentials_is_estimated_without_bias(sampling: str) -> None:
    """Over batches in which items are targets as often as in training."""
    _, _, scores, _ = random_case(4, 1, 1, len(COUNTS), width=1)
    loss, generator = of(num_negatives=8, sampling=sampling), torch.Generator().manual_seed(1)
    estimates = []
    torch.manual_seed(0)
    for _ in range(2000):
        targets = torch.multinomial(torch.tensor(COUNTS).double(), 40, replacement=True, generator=generator)
        columns = loss._draw(targets, len(COUNTS))
        estimates.append((scores[columns, 0] - loss._log_draws(columns, len(COUNTS))).exp().sum())
    found = torch.stack(estimates)
    error = float(found.std() / len(found) ** 0.5)
    assert error < 0.05 * float(scores.exp().sum())
    assert float(found.mean()) == pytest.approx(float(scores.exp().sum()), abs=4 * error)


@SAMPLING
def test_without_any_target_the_loss_is_0_and_teaches_nothing(sampling: str) -> None:
    h_BLD, targets, weight, _ = random_case(3, 2, 3, items=len(COUNTS))
    leaves = [h_BLD.requires_grad_(), weight.requires_grad_()]
    loss = of(num_negatives=8, sampling=sampling)
    for vectors in (ItemVectors(weight, None), Otherwise(ItemVectors(weight, None))):
        found = value(loss, h_BLD, torch.zeros_like(targets), vectors)
        assert found.item() == 0
        assert not any(gradient.any() for gradient in torch.autograd.grad(found, leaves))


def test_padding_is_never_a_negative() -> None:
    columns = torch.tensor([-1, 4, -1, -1, 2, -1])
    found = of(num_negatives=500, sampling="in_batch")._draw(columns, len(COUNTS))
    assert set(found.tolist()) == {2, 4}
    assert 180 < int((found == 2).sum()) < 320


@SAMPLING
def test_correction_needs_counts(sampling: str) -> None:
    h_BLD, targets, weight, bias = random_case(4, 1, 1, 3)
    bare = SampledSoftmaxLoss(SampledSoftmaxConfig(sampling=sampling))
    with pytest.raises(ConfigError, match=r"loss\.sampling.*fit\(train\)"):
        value(bare, h_BLD, targets, ItemVectors(weight, bias))
