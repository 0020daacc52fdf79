"""The blocks an xLSTM can be made of: that forms agree, and that each does what its equations say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.models.xlstm import XLSTM, XLSTMConfig
from seqrec.models.xlstm.attention import BUCKETS, AttentionMixer, distance_buckets
from seqrec.models.xlstm.mixers import Rows
from seqrec.models.xlstm.mlstm import MLSTMMixer
from seqrec.models.xlstm.slstm import SLSTMMixer

N = 30
BATCH = Batch.of([[3], [1, 2, 30, 2], [1 + position * 7 % N for position in range(40)]])
VARIANTS: list[dict[str, Any]] = [
    {"stack": "s"},
    {"stack": "ms", "num_heads": 4},
    {"stack": "a"},
    {"stack": "am", "max_length": 24},
    {"projection": "pre"},
    {"projection": "pre", "projection_factor": 1.5, "output_gate": "none"},
    {"stack": "ms", "conv_width": 0},
    {"stack": "ms", "conv_width": 1, "head_norm": False},
    {"stack": "ms", "conv_width": 7, "gate_cap": None},
    {"output_gate": "silu"},
    {"output_gate": "none"},
    {"stack": "ms", "forget_bias": (-1, 2), "input_bias": -3},
]


def stirred(seed: int = 0, **settings: Any) -> XLSTM:
    """In float64, with every weight moved: some start at zero."""
    torch.manual_seed(seed)
    xlstm = XLSTM(XLSTMConfig(**{"embedding_dim": 8, "max_length": 64, **settings}), N).double().eval()
    with torch.no_grad():
        for parameter in xlstm.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return xlstm


def mixer(xlstm: XLSTM, number: int = 0) -> Any:
    return xlstm._blocks()[number].mixer


def inputs(length: int = 12, width: int = 8) -> Tensor:
    return torch.randn(2, length, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def both(x_BLD: Tensor) -> Rows:
    return Rows(torch.full((len(x_BLD),), x_BLD.shape[1]))


# --- every variant


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_at_once_and_one_by_one_agree(settings: dict[str, Any]) -> None:
    xlstm = stirred(**settings)
    h, state = xlstm.prefill(BATCH)
    torch.testing.assert_close(h, BATCH.last(xlstm.encode(BATCH)), rtol=1e-9, atol=1e-9)
    rows = [row[:length] for row, length in zip(BATCH.items.tolist(), BATCH.lengths.tolist(), strict=True)]
    for item in (5, 6, 5):
        rows = [[*row, item] for row in rows]
        h, state = xlstm.step(torch.full((3,), item), state)
    longer = Batch.of(rows)
    torch.testing.assert_close(h, longer.last(xlstm.encode(longer)), rtol=1e-9, atol=1e-9)
    hidden, state = [], xlstm.initial_state(1)
    for item in rows[2]:
        h, state = xlstm.step(torch.tensor([item]), state)
        hidden.append(h)
    torch.testing.assert_close(torch.stack(hidden, 1), xlstm.encode(longer)[2:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_weights_in_half_precision_step_too(settings: dict[str, Any]) -> None:
    xlstm = stirred(**settings).bfloat16()
    _, state = xlstm.prefill(BATCH)
    h, _ = xlstm.step(torch.tensor([4, 5, 6]), state)
    assert h.dtype == torch.bfloat16
    assert torch.isfinite(h).all()


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_every_weight_has_a_gradient(settings: dict[str, Any]) -> None:
    xlstm = stirred(**settings)
    xlstm.scores(BATCH).logsumexp(1).sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in xlstm.parameters())


def test_the_order_of_blocks_is_that_of_the_stack() -> None:
    kinds = {"m": MLSTMMixer, "s": SLSTMMixer, "a": AttentionMixer}
    xlstm = stirred(stack="asm", num_blocks=5)
    assert [type(mixer(xlstm, number)) for number in range(5)] == [kinds[kind] for kind in "asmas"]


def test_gates_start_where_they_are_told() -> None:
    torch.manual_seed(0)
    config = XLSTMConfig(embedding_dim=8, num_heads=4, stack="ms", forget_bias=(-1, 2), input_bias=-3)
    m, s = (mixer(XLSTM(config, N), number) for number in (0, 1))
    assert m.gates.bias.tolist() == [-3, -3, -3, -3, -1, 0, 1, 2]
    assert s.input_forget.bias[:8].tolist() == [-3] * 8
    torch.testing.assert_close(s.input_forget.bias[8:], torch.linspace(-1, 2, 8))


# --- the mLSTM's options


def cell(x_BLD: Tensor, m: Any) -> tuple[Tensor, Tensor]:
    """What forward does up to the norm, with plain loops: hidden states by heads (B, L, H, K), and the output gate."""
    inner, outer = m.up(x_BLD).chunk(2, -1) if m.up is not None else (x_BLD, None)
    c = inner
    if m.conv_kernel is not None:
        W = m.conv_kernel.shape[-1]
        padded = F.pad(inner, (0, 0, W - 1, 0))
        taps = [padded[:, w : w + x_BLD.shape[1]] * m.conv_kernel[:, 0, w] for w in range(W)]
        c = F.silu(sum(taps) + m.conv_bias)
    q, k = m.query_key(c).chunk(2, -1)
    values = m.value_output(inner)
    P = inner.shape[-1]
    v, gate = values[..., :P], outer if outer is not None else values[..., P:]
    gates = m.gates(c) if m.gate_cap is None else m.gate_cap * torch.tanh(m.gates(c) / m.gate_cap)
    i, f = gates.chunk(2, -1)
    hidden = []
    for head in range(m.num_heads):
        at = slice(head * P // m.num_heads, (head + 1) * P // m.num_heads)
        C, n = torch.zeros(2, P // m.num_heads, P // m.num_heads).double(), torch.zeros(2, P // m.num_heads).double()
        steps = []
        for t in range(x_BLD.shape[1]):
            forget, add = torch.sigmoid(f[:, t, head, None]), torch.exp(i[:, t, head, None])
            key, query = k[:, t, at] / math.sqrt(P // m.num_heads), q[:, t, at]
            C = forget[..., None] * C + (add * key)[:, :, None] * v[:, t, None, at]
            n = forget * n + add * key
            scale = (n * query).sum(-1, keepdim=True).abs().clamp(min=1)
            steps.append(torch.einsum("bkv,bk->bv", C, query) / scale)
        hidden.append(torch.stack(steps, 1))
    return torch.stack(hidden, 2), gate


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"projection": "pre"},
        {"conv_width": 0},
        {"conv_width": 2, "gate_cap": 2},
        {"gate_cap": None, "head_norm": False},
        {"output_gate": "silu", "num_heads": 4},
        {"output_gate": "none"},
    ],
    ids=str,
)
def test_the_mlstm_mixer_is_its_equations(settings: dict[str, Any]) -> None:
    m, x_BLD = mixer(stirred(**settings)), inputs()
    h_BLHK, gate = cell(x_BLD, m)
    if settings.get("head_norm", True):
        h_BLHK = h_BLHK / (h_BLHK.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    y = h_BLHK.flatten(2) * (1 if m.head_norm is None else m.head_norm)
    kind = "silu" if settings.get("projection") == "pre" else settings.get("output_gate", "sigmoid")
    gated = {"silu": lambda: y * gate * torch.sigmoid(gate), "sigmoid": lambda: y * torch.sigmoid(gate)}
    expected = m.out(gated.get(kind, lambda: y)())
    torch.testing.assert_close(m(x_BLD, both(x_BLD)), expected, rtol=1e-9, atol=1e-9)


def test_a_block_inside_a_wider_space_has_no_feedforward_layer() -> None:
    pre, mixed = stirred(projection="pre", projection_factor=3), stirred(projection="pre", stack="ms")
    assert [block.feedforward is None for block in pre._blocks()] == [True, True]
    assert [block.feedforward is None for block in mixed._blocks()] == [True, False]
    assert mixer(pre).out.weight.shape == (8, 24)


# --- the sLSTM


def test_the_slstm_mixer_is_its_equations() -> None:
    s, x_BLD = mixer(stirred(stack="s", num_heads=2)), inputs()
    x = s.project(x_BLD, both(x_BLD))
    c = n = h = torch.zeros(2, 2, 4, dtype=torch.float64)
    hidden, weights, weighted = [], [], []
    for t in range(x_BLD.shape[1]):
        i, f, z, o = (x[:, t, g] + torch.einsum("bhk,hkj->bhj", h, s.recurrent[g]) for g in range(4))
        weights = [weight * torch.sigmoid(f) for weight in weights] + [torch.exp(i)]
        c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z)
        n = torch.sigmoid(f) * n + torch.exp(i)
        h = torch.sigmoid(o) * c / n
        hidden.append(h)
        weighted.append([(weight / n).mean(-1) for weight in weights])
    h_BLHK = torch.stack(hidden, 1)
    normed = h_BLHK / (h_BLHK.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(s(x_BLD, both(x_BLD)), s.out(normed.flatten(2) * s.head_norm), rtol=1e-8, atol=1e-8)
    found = s.inspect(x_BLD, both(x_BLD))
    torch.testing.assert_close(found["attention"].sum(-1), torch.ones(2, 2, 12, dtype=torch.float64))
    for t, row in enumerate(weighted):
        torch.testing.assert_close(found["attention"][:, :, t, : t + 1], torch.stack(row, -1), rtol=1e-8, atol=1e-10)
    assert not found["attention"].triu(1).any()
    assert found["input_gate"].shape == found["forget_gate"].shape == (2, 2, 12)


def test_the_convolution_feeds_input_and_forget_gates_alone() -> None:
    s, x_BLD = mixer(stirred(stack="s")), inputs()
    before = s.project(x_BLD, both(x_BLD))
    with torch.no_grad():
        s.conv_bias += 1
    moved = (s.project(x_BLD, both(x_BLD)) != before).flatten(3).any(-1).all(0).all(0)
    assert moved.tolist() == [True, True, False, False]


# --- attention


@pytest.mark.parametrize("reach", [1, 5, 16, 17, 200, 1000])
def test_near_distances_have_a_bucket_each_and_far_ones_share(reach: int) -> None:
    found = distance_buckets(reach).tolist()
    assert found[: BUCKETS // 2] == list(range(min(reach, BUCKETS // 2)))
    assert found == sorted(found)
    assert max(found) < BUCKETS
    if reach >= 200:
        assert set(found) == set(range(BUCKETS))


def test_attention_is_softmax_with_a_bias_by_distance() -> None:
    a, x_BLD = mixer(stirred(stack="a", max_length=5, num_heads=2)), inputs()
    found, rows = a.inspect(x_BLD, both(x_BLD))["attention"], []
    q, k, v = (part.unflatten(-1, (2, 4)) for part in a.qkv(x_BLD).chunk(3, -1))
    for t in range(12):
        seen = range(max(0, t - 4), t + 1)  # five events at most
        logits = [(q[:, t] * k[:, s]).sum(-1) / 2 + a.distance_bias[t - s] for s in seen]
        weights = torch.stack(logits, -1).softmax(-1)
        torch.testing.assert_close(found[:, :, t, seen.start : t + 1], weights)
        assert not found[:, :, t, : seen.start].any()
        assert not found[:, :, t, t + 1 :].any()
        rows.append(sum(weights[:, :, j, None] * v[:, s] for j, s in enumerate(seen)))
    expected = a.out(torch.stack(rows, 1).flatten(2))  # type: ignore[arg-type]
    torch.testing.assert_close(a(x_BLD, both(x_BLD)), expected)


def test_attention_goes_on_from_rows_of_different_age() -> None:
    """The ring of a row may have gone round or be half empty; each row sees its own last events."""
    xlstm = stirred(stack="a", max_length=6, num_blocks=2)
    _, state = xlstm.prefill(BATCH)
    assert state.blocks[0].keys.shape == (3, 2, 6, 4)
    assert state.blocks[0].events.tolist() == [1, 4, 40]
    rows = [row[:length] for row, length in zip(BATCH.items.tolist(), BATCH.lengths.tolist(), strict=True)]
    for item in range(1, 15):
        rows = [[*row, item] for row in rows]
        h, state = xlstm.step(torch.full((3,), item), state)
        longer = Batch.of(rows)
        torch.testing.assert_close(h, longer.last(xlstm.encode(longer)), rtol=1e-9, atol=1e-9)


def test_inspect_names_what_each_block_has() -> None:
    found = stirred(stack="msa", num_blocks=3).inspect(BATCH)
    names = ["attention.0", "input_gate.0", "forget_gate.0", "attention.1", "input_gate.1", "forget_gate.1"]
    assert list(found) == [*names, "attention.2"]
    assert all(value.shape == (3, 2, *[40] * (value.dim() - 2)) for value in found.values())
