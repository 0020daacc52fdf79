"""LRURec: the whole model against its formulas written down number by number, its ring, and its state."""

from __future__ import annotations

import cmath
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD
from seqrec.errors import ConfigError
from seqrec.models.lrurec import LRURec, LRURecConfig

N = 12
BATCH = Batch.of([[3], [1, 2, 12, 2, 5, 5, 7], [4, 4]])

Vector = list[float]


def model(**settings: Any) -> LRURec:
    """With all weights moved, so that none hides behind a zero."""
    torch.manual_seed(0)
    made = LRURec(LRURecConfig(**{"embedding_dim": 6, "similarity": "dot", **settings}), N).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return made


def linear(x: Vector, weight: Tensor, bias: Tensor) -> Vector:
    rows = zip(weight.tolist(), bias.tolist(), strict=True)
    return [math.fsum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in rows]


def norm(x: Vector, layer: Any, eps: float = 1e-5) -> Vector:
    mean = math.fsum(x) / len(x)
    scale = 1 / math.sqrt(math.fsum((v - mean) ** 2 for v in x) / len(x) + eps)
    return [(v - mean) * scale * w + b for v, w, b in zip(x, layer.weight.tolist(), layer.bias.tolist(), strict=True)]


def feed_forward(x: Vector, block: Any, eps: float = 1e-5) -> Vector:
    wide = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in linear(x, block.widen.weight, block.widen.bias)]
    y = linear(wide, block.narrow.weight, block.narrow.bias)
    return norm([a + b for a, b in zip(x, y, strict=True)], block.feedforward_norm, eps)


def unit_by_hand(x_LD: list[Vector], unit: Any) -> list[Vector]:
    """h_t = lambda h_{t-1} + gamma (W x_t + w), y_t = Re(V h_t + v). Even rows of W are real parts."""
    fading, angle, gain = (part.tolist() for part in (unit.log_fading, unit.log_angle, unit.log_gain))
    factor = [cmath.exp(complex(-math.exp(nu), math.exp(theta))) for nu, theta in zip(fading, angle, strict=True)]
    h, found = [0j] * len(factor), []
    for x in x_LD:
        taken = linear(x, unit.into.weight, unit.into.bias)
        told = [complex(real, imaginary) for real, imaginary in zip(taken[::2], taken[1::2], strict=True)]
        h = [a * z + math.exp(g) * b for a, z, g, b in zip(factor, h, gain, told, strict=True)]
        found.append(linear([part for z in h for part in (z.real, z.imag)], unit.out.weight, unit.out.bias))
    return found


def by_hand(lru: LRURec, history: list[int]) -> list[Vector]:
    """Hidden states after each event."""
    table = (lru.items.weight * lru.items.scale).tolist()
    x_LD = [norm(table[item], lru.norm) for item in history]
    for block in lru.blocks:
        y_LD = unit_by_hand(x_LD, block.mixer)
        x_LD = [
            feed_forward(norm([a + b for a, b in zip(x, y, strict=True)], block.mixer_norm), block)
            for x, y in zip(x_LD, y_LD, strict=True)
        ]
    return x_LD


@pytest.mark.parametrize("settings", [{}, {"num_blocks": 1, "expansion": 1.5, "feedforward_factor": 2}], ids=str)
def test_the_model_is_that_of_the_formulas(settings: dict[str, Any]) -> None:
    lru = model(**settings)
    h = lru.encode(BATCH)
    for row, length in enumerate(BATCH.lengths.tolist()):
        expected = by_hand(lru, BATCH.items[row, :length].tolist())
        torch.testing.assert_close(h[row, :length], torch.tensor(expected, dtype=torch.float64))


def test_it_starts_in_the_ring_and_as_large_as_its_input() -> None:
    torch.manual_seed(0)
    mixer: Any = LRURec(LRURecConfig(embedding_dim=500), N).blocks[0].mixer
    factors = mixer.factors().detach()
    radius, angle = factors.abs(), factors.angle()
    assert 0.8 - 1e-5 < radius.min() < 0.803
    assert 0.988 < radius.max() < 0.99 + 1e-5
    squared = radius**2  # evenly by area
    assert float(squared.mean()) == pytest.approx((0.8**2 + 0.99**2) / 2, abs=0.01)
    assert float(angle.mean()) == pytest.approx(0, abs=0.2)
    torch.testing.assert_close(mixer.log_gain.detach().exp() ** 2, 1 - squared, rtol=1e-3, atol=1e-5)
    weight = mixer.into.weight.detach()
    assert float(weight.abs().max()) <= 0.04
    assert 0.015 < float(weight.std()) < 0.02


def test_the_state_is_that_after_the_last_event_and_its_rows_do_not_mix() -> None:
    lru = model()
    h, state = lru.prefill(BATCH)
    torch.testing.assert_close(h, BATCH.last(lru.encode(BATCH)))
    assert [tuple(block.hidden.shape) for block in state] == [(3, 12, 2)] * 2
    together, after = lru.step(torch.tensor([4, 5, 6]), state)
    for row, (history, item) in enumerate(zip(BATCH.items.tolist(), (4, 5, 6), strict=True)):
        alone = Batch.of([[*history[: int(BATCH.lengths[row])], item]])
        torch.testing.assert_close(together[row], alone.last(lru.encode(alone))[0])
        torch.testing.assert_close(after[1].hidden[row], lru.prefill(alone)[1][1].hidden[0])


def test_an_event_hidden_in_training_has_a_gradient_that_stays_small() -> None:
    lru = model(similarity="cosine").train()
    lru.encode(Batch(torch.tensor([[PAD, 3, PAD]]), torch.tensor([3]))).pow(3).sum().backward()
    sizes = [float(part.grad.norm()) for part in lru.parameters() if part.grad is not None]
    assert 0 < max(sizes) < 1e7
    assert not lru.items.weight.grad[PAD].any()  # type: ignore[index]


@pytest.mark.parametrize("ring", [(0.9, 0.8), (0.5, 1.0), (0.0, 0.9)])
def test_rings_without_an_inside_and_numbers_that_grow_are_refused(ring: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"model\.ring|radius"):
        LRURecConfig.parse({"ring": ring}, "model.")
