"""HSTU: held against the paper's formulas event by event, and what it may and may not see."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.data.batches import NO_TIME, Batch
from seqrec.errors import ConfigError
from seqrec.models.hstu import HSTU, HSTUConfig, time_buckets
from seqrec.testing import check_model

BATCH = Batch.of(
    [[3], [1, 2, 9, 2, 5, 5], [4, 4]],
    times=[[5], [0, 400, 90_000, 90_000, 10**9, 10**12], [NO_TIME, 7_000]],
)


def model(**settings: Any) -> HSTU:
    """In float64, with every weight moved."""
    torch.manual_seed(0)
    hstu = HSTU(HSTUConfig(embedding_dim=8, max_length=7, num_blocks=2, **settings), 9).double().eval()
    with torch.no_grad():
        for parameter in hstu.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return hstu


def normed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Layer norm of one vector."""
    apart = x - sum(x.tolist()) / len(x)
    return apart / math.sqrt(sum(apart.square().tolist()) / len(x) + 1e-6) * weight + bias


def silu(number: float) -> float:
    return number / (1 + math.exp(-number))


def time_bias(weights: dict[str, Tensor], name: str, one: int, other: int) -> float:
    if f"{name}.time_bias" not in weights or NO_TIME in (one, other):
        return 0.0
    bucket = min(int(math.log(max(abs(one - other) / 1000, 1)) / 0.301), 128)
    return float(weights[f"{name}.time_bias"][bucket])


def unit_by_hand(
    weights: dict[str, Tensor], name: str, rows: list[Tensor], times: list[int], heads: int
) -> list[Tensor]:
    """One layer: for each event, sums over all events up to it, head by head."""
    values = weights[f"{name}.out.weight"].shape[1]
    parts = []
    for x in rows:
        y = weights[f"{name}.uvqk.weight"] @ normed(x, weights[f"{name}.norm.weight"], weights[f"{name}.norm.bias"])
        y = torch.tensor([silu(number) for number in y.tolist()], dtype=torch.float64)
        parts.append((y[:values], y[values : 2 * values], *y[2 * values :].chunk(2)))
    found = []
    for i, (u, _, q, _) in enumerate(parts):
        sums = torch.zeros(heads, values // heads, dtype=torch.float64)
        for j in range(i + 1):
            _, v, _, k = parts[j]
            for head in range(heads):
                product = float(q.chunk(heads)[head] @ k.chunk(heads)[head])
                bias = float(weights[f"{name}.distance_bias"][i - j]) + time_bias(weights, name, times[i], times[j])
                sums[head] += silu(product + bias) / 7 * v.chunk(heads)[head]
        norm = weights[f"{name}.attention_norm.weight"], weights[f"{name}.attention_norm.bias"]
        y = weights[f"{name}.out.weight"] @ (normed(sums.flatten(), *norm) * u) + weights[f"{name}.out.bias"]
        found.append(rows[i] + y)
    return found


def encoded_by_hand(hstu: HSTU, items: list[int], times: list[int]) -> list[Tensor]:
    """Hidden states of one history, ready for cosine scores."""
    weights = {name: value.detach() for name, value in hstu.state_dict().items()}
    rows = [weights["items.weight"][item] * math.sqrt(8) for item in items]
    if hstu.positions is not None:
        rows = [row + weights["positions"][place] for place, row in enumerate(rows)]
    for number in range(2):
        rows = unit_by_hand(weights, f"units.{number}", rows, times, hstu.config.num_heads)
    rows = [row / (row.square().mean() + 1e-6).sqrt() * weights["norm.weight"] for row in rows]
    return [row / row.norm() / hstu.config.temperature for row in rows]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_heads": 1, "positions": False},
        {"num_heads": 4, "attention_factor": 0.5, "linear_factor": 2},
        {"time_bias": True},
    ],
    ids=str,
)
def test_the_formulas_event_by_event(settings: dict[str, Any]) -> None:
    hstu = model(**settings)
    with torch.no_grad():
        h_BLD = hstu.encode(BATCH)
        last_BD = hstu.last_state(BATCH)
    assert BATCH.times is not None
    for row, length in enumerate(BATCH.lengths.tolist()):
        items, times = BATCH.items[row, :length].tolist(), BATCH.times[row, :length].tolist()
        expected = torch.stack(encoded_by_hand(hstu, items, times))
        torch.testing.assert_close(h_BLD[row, :length], expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(last_BD[row], expected[-1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("time_bias", [False, True])
def test_weights_shown_reproduce_what_a_unit_adds(time_bias: bool) -> None:
    hstu = model(time_bias=time_bias)
    found = hstu.inspect(BATCH)
    assert sorted(found) == ["attention.0", "attention.1"]
    assert not any(weights.triu(1).any() for weights in found.values())
    unit, x_BLD = hstu._units()[0], hstu.embed(BATCH)
    _, gate, v, _, _ = unit._project(x_BLD, None)
    y_BLV = (found["attention.0"] @ v).transpose(1, 2).flatten(2)
    y_BLD = unit.out(F.layer_norm(y_BLV, (8,), unit.attention_norm.weight, unit.attention_norm.bias, 1e-6) * gate)
    torch.testing.assert_close(unit(x_BLD, None, hstu._apart(BATCH))[1], y_BLD)


def test_buckets_are_logarithms_of_seconds() -> None:
    times = torch.tensor([[0, 999, 1_352, 3_000, NO_TIME, 10**18]])
    assert time_buckets(times)[0, 0].tolist() == [0, 0, 1, 3, 129, 114]
    assert torch.equal(time_buckets(times), time_buckets(times).mT)


def test_times_nobody_knows_add_nothing() -> None:
    hstu = model(time_bias=True)
    unknown = replace(BATCH, times=torch.full_like(BATCH.items, NO_TIME))
    torch.testing.assert_close(hstu.encode(unknown), hstu.encode(replace(BATCH, times=None)))
    assert not torch.allclose(hstu.encode(BATCH), hstu.encode(unknown))


def test_order_only_unless_asked() -> None:
    assert not model().uses_times
    assert model(time_bias=True).uses_times
    hstu = model()
    assert torch.equal(hstu.encode(BATCH), hstu.encode(replace(BATCH, times=None)))


def test_the_time_bias_passes_the_battery() -> None:
    assert "tells_no_times" in check_model(HSTU, embedding_dim=16, max_length=32, num_blocks=1, time_bias=True)


@pytest.mark.filterwarnings("error")
def test_hidden_events_have_no_gradient_in_half_precision() -> None:
    torch.manual_seed(1)
    hstu = HSTU(HSTUConfig(embedding_dim=8, max_length=8, dropout=0.0), 9)
    with torch.autocast("cpu", torch.bfloat16):
        h_BLD = hstu.encode(replace(BATCH, times=None))
    h_BLD[1, 2].float().sum().backward()
    gradient = hstu.items.weight.grad
    assert gradient is not None
    assert bool(torch.isfinite(gradient).all())
    assert gradient[1].any()
    assert not gradient[5].any()  # item 5 comes later


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedding_dim": 9}, "embedding_dim \\* attention_factor is 9, not a multiple of num_heads 2"),
        ({"embedding_dim": 8, "linear_factor": 0.6}, "embedding_dim \\* linear_factor is 4.8"),
        ({"feedforward_factor": 4}, "feedforward_factor"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HSTUConfig.parse(settings)


def test_widths_are_whole_though_factors_are_rounded() -> None:
    """100 * 1.1 is a little more than 110 in binary."""
    assert HSTUConfig.parse({"embedding_dim": 100, "attention_factor": 1.1}).attention_dim == 55


def test_longer_histories_are_refused() -> None:
    with pytest.raises(ValueError, match="histories of 8 events; max_length is 7: cut them"):
        model().encode(Batch.of([[1] * 8]))
