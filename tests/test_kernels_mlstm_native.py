"""The native mLSTM against the recurrent form under autograd: hidden states, states and every gradient."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from seqrec.kernels.mlstm import MLSTMState, mlstm, mlstm_prefill
from seqrec.kernels.mlstm.native import chunk_size, native, native_hidden
from seqrec.kernels.mlstm.reference import recurrent

B, H, K, V = 3, 2, 4, 3
NAMES = ("h", "memory", "normaliser", "dq", "dk", "dv", "di", "df", "dmemory", "dnormaliser")


def cell_inputs(length: int, seed: int, gates: str = "ordinary", width: tuple[int, int] = (K, V)) -> list[Tensor]:
    """q, k, v, i, f in float64."""
    torch.manual_seed(seed)
    q, k, v = (torch.randn(B, H, length, w, dtype=torch.float64) for w in (width[0], *width))
    normal = [torch.randn(B, H, length, dtype=torch.float64) for _ in range(2)]
    uniform = [100 * torch.rand(B, H, length, dtype=torch.float64) - 50 for _ in range(2)]
    i, f = {
        "ordinary": (2 * normal[0], 2 * normal[1] + 2),
        "saturated": (15 * normal[0].sign(), 15 * normal[1].sign()),
        "extreme": (uniform[0], uniform[1]),
        "shut": (normal[0], normal[1] - 50),
        "shutting": (normal[0], uniform[1]),
        "closed": (normal[0] - 50, normal[1] + 3),
        "kept": (uniform[0], normal[1] + 50),
    }[gates]
    return [q, k, v, i, f]


def initial(seed: int) -> MLSTMState:
    generator = torch.Generator().manual_seed(seed)
    shapes = (B, H, K, V), (B, H, K), (B, H)
    return MLSTMState(*(torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes))


def forth_and_back(
    form: Any, x: list[Tensor], state: MLSTMState | None, lengths: Tensor | None, starts: Tensor | None
) -> list[Tensor]:
    """h, the state and the gradients of a random function of both; positions behind the lengths count for nothing."""
    parts = [*x, *(state[:2] if state else ())]
    leaves = [part.clone().requires_grad_() for part in parts]
    given_state = MLSTMState(leaves[5], leaves[6], state.log_scale) if state else None
    h, after = form(*leaves[:5], given_state, lengths, starts)
    length = h.shape[2]
    inside = torch.arange(length) < (torch.full((B,), length) if lengths is None else lengths)[:, None]
    scale = torch.exp(after.log_scale.detach())[..., None]
    scale = scale / (scale[..., None] * after.memory.detach()).abs().max().clamp(min=1)
    outputs = [h * inside[:, None, :, None], after.memory * scale[..., None], after.normaliser * scale]
    torch.manual_seed(0)
    loss = sum((torch.randn_like(part) * part).sum() for part in outputs)
    return [part.detach() for part in outputs] + list(torch.autograd.grad(loss, leaves))  # type: ignore[arg-type]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for name, one, other in zip(NAMES, found, expected, strict=False):
        error = float((one - other).abs().max() / (1 + other.abs().max()))
        assert error < 1e-9, f"{name} differs by {error}"


@pytest.mark.parametrize("block", [1, 1 << 17])
@given(
    length=st.integers(1, 90),
    chunk=st.sampled_from([None, 1, 7, 16, 1000]),
    seed=st.integers(0, 2**31),
    gates=st.sampled_from(["ordinary", "saturated"]),
    packed=st.booleans(),
    resumed=st.booleans(),
    ragged=st.booleans(),
    forgotten=st.booleans(),
)
def test_every_form_has_the_states_and_gradients_of_the_recurrence(
    block: int,
    length: int,
    chunk: int | None,
    seed: int,
    gates: str,
    packed: bool,
    resumed: bool,
    ragged: bool,
    forgotten: bool,
) -> None:
    x = cell_inputs(length, seed, gates)
    if forgotten:
        x[4][:, 0] = -1e4
    lengths = torch.tensor([0, length, length // 2]) if ragged else None
    starts = torch.rand(B, length) < 0.1 if packed else None
    state = initial(seed) if resumed else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["seqrec.kernels.mlstm.native"], "BLOCK", block)
        found = forth_and_back(lambda *parts: native(*parts, chunk=chunk), x, state, lengths, starts)
    assert_equal(found, forth_and_back(recurrent, x, state, lengths, starts))


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5), seed=st.integers(0, 2**31))
def test_packed_histories_are_each_on_their_own(lengths: list[int], seed: int) -> None:
    x = [part[:1].requires_grad_() for part in cell_inputs(sum(lengths), seed)]
    starts = torch.zeros(1, sum(lengths), dtype=torch.bool)
    starts[0, torch.tensor([0, *lengths]).cumsum(0)[:-1]] = True
    apart = torch.cat([mlstm(*parts) for parts in zip(*(part.split(lengths, 2) for part in x), strict=True)], 2)
    packed = mlstm(*x, starts=starts)
    weight = torch.randn_like(apart)
    outcomes = ([h, *torch.autograd.grad((h * weight).sum(), x, retain_graph=True)] for h in (packed, apart))
    for found, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def errors(form: Any, x: list[Tensor], weight: Tensor, exact: list[Tensor]) -> list[float]:
    """||found - exact|| / ||exact|| of h and the gradients of q, k, v, i, f, each over the whole tensor."""
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(outputs(form, x, weight), exact, strict=True)]


def outputs(form: Any, x: list[Tensor], weight: Tensor) -> list[Tensor]:
    leaves = [part.clone().requires_grad_() for part in x]
    h = form(*leaves)
    return [h.detach(), *torch.autograd.grad(h, leaves, weight)]


@pytest.mark.parametrize("length", [3, 50, 200, 1000])
def test_float32_is_within_a_hundred_thousandth_at_ordinary_gates(length: int) -> None:
    torch.manual_seed(0)
    x = cell_inputs(length, 0, width=(16, 16))
    x[3], x[4] = torch.randn(B, H, length).double(), torch.randn(B, H, length).double() + 3
    weight = torch.randn(B, H, length, 16)
    exact = outputs(native_hidden, x, weight.double())
    found = errors(native_hidden, [part.float() for part in x], weight, exact)
    assert max(found) < 1e-5, found


@pytest.mark.parametrize("gates", ["saturated", "extreme", "shut", "shutting", "closed", "kept"])
@pytest.mark.parametrize("length", [3, 50, 200, 1000])
def test_float32_at_extreme_gates_is_no_worse_than_four_times_the_recurrence(length: int, gates: str) -> None:
    x = cell_inputs(length, length, gates, width=(16, 16))
    weight = torch.randn(B, H, length, 16)
    exact = outputs(native_hidden, x, weight.double())
    single = [part.float() for part in x]
    found = errors(native_hidden, single, weight, exact)
    allowed = errors(lambda *parts: recurrent(*parts)[0], single, weight, exact)
    assert all(one <= 4 * other for one, other in zip(found, allowed, strict=True)), (found, allowed)


def test_gates_that_forget_everything_stay_finite() -> None:
    x = [part.float() for part in cell_inputs(70, 0)]
    x[4] = torch.full_like(x[4], -1e4)
    found = forth_and_back(native, x, None, None, None)
    assert all(torch.isfinite(part).all() for part in found)


@pytest.mark.parametrize(("rows", "length"), [(2, 0), (0, 3)])
def test_nothing_in_nothing_out(rows: int, length: int) -> None:
    x = [part[:rows, :, :length] for part in cell_inputs(4, 0)]
    h, state = mlstm_prefill(*x)
    assert h.shape == (rows, H, length, V)
    assert not any(part.any() for part in state)
    assert mlstm(*x).shape == h.shape


@pytest.mark.parametrize("training", [False, True])
def test_the_compiled_form_is_the_eager_one(training: bool) -> None:
    x = [part.requires_grad_(training) for part in cell_inputs(70, 0)]
    traced = torch.compile(native_hidden, backend="aot_eager", fullgraph=True)
    expected, found = native_hidden(*x), traced(*x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    if training:
        for one, other in zip(*(torch.autograd.grad(h.sum(), x) for h in (found, expected)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_layout_does_not_matter() -> None:
    x = cell_inputs(70, 0)
    strided = [part.transpose(1, 2).contiguous().transpose(1, 2) for part in x]
    found = native_hidden(*strided)
    torch.testing.assert_close(found, native_hidden(*x), rtol=1e-12, atol=1e-12)


@given(length=st.integers(1, 5000))
def test_chunks_are_of_nearly_equal_size(length: int) -> None:
    size = chunk_size(length)
    assert size == length if length <= 64 else 27 <= size <= 64


@pytest.mark.parametrize("length", [50, 100])
def test_autocast_changes_nothing(length: int) -> None:
    x = [part.float() for part in cell_inputs(length, 0)]
    results = []
    for narrowed in (False, True):
        leaves = [part.clone().requires_grad_() for part in x]
        with torch.autocast("cpu", torch.bfloat16, enabled=narrowed):
            h, after = native(*leaves)
            results.append([h, *after[:2], *torch.autograd.grad(h.sum() + after.memory.sum(), leaves)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_traced_form_has_finite_gradients_where_much_is_forgotten() -> None:
    q, k, v, i, _ = (part.float() for part in cell_inputs(70, 0))
    leaves = [part.requires_grad_() for part in (q, k, v, i, torch.full_like(i, -15.0))]
    h = torch.compile(native_hidden, backend="aot_eager")(*leaves)
    assert all(torch.isfinite(part).all() for part in torch.autograd.grad(h.sum(), leaves))
