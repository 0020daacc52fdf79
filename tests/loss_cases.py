"""Random inputs of losses, and scores as a loop has them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD, Sequences
from seqrec.models.base import ItemVectors


def random_case(seed: int, rows: int, length: int, items: int, width: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, targets (padded on the right, at least one per row), item vectors and biases; float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    targets = torch.randint(1, items + 1, (rows, length), generator=generator)
    targets = targets.masked_fill(torch.arange(length) >= lengths, PAD)
    return normal(rows, length, width), targets, normal(items, width), normal(items)


def of_counts(counts: list[int]) -> Sequences:
    """Histories in which item j + 1 is a target `counts[j]` times: all start with item 1, which nothing counts."""
    events = [item for item, count in enumerate(counts, 1) for _ in range(count)]
    return Sequences.of([[1, *events[::2]], [1, *events[1::2]]], len(counts))


def value(loss: Any, h_BLD: Tensor, targets_BL: Tensor, vectors: Any, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return loss(h_BLD, targets_BL, vectors, Batch(targets_BL, (targets_BL != PAD).sum(1)))


def slow_score(h_D: Tensor, item: int, vectors: ItemVectors) -> Tensor:
    weight, bias, cosine = vectors
    w_D = weight[item - 1] / weight[item - 1].square().sum().sqrt() if cosine else weight[item - 1]
    return (h_D * w_D).sum() + (0.0 if bias is None else bias[item - 1])


def same_with_gradients(found: Tensor, expected: Tensor, leaves: list[Tensor]) -> None:
    """Values and gradients agree to float32."""
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    expected_gradients = torch.autograd.grad(expected, leaves, materialize_grads=True)
    for gradient, other in zip(
        torch.autograd.grad(found, leaves, materialize_grads=True), expected_gradients, strict=True
    ):
        torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-6)
