"""The forms of the sLSTM against the paper's equations, written as a loop without any stabilisation.

Shapes: B rows, L positions, H heads, K width of a head.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from seqrec.errors import ConfigError, MissingExtraError, UnknownNameError
from seqrec.kernels.slstm import SLSTMState, initial_state, slstm, slstm_prefill, slstm_step

B, H, K = 3, 2, 4
FORMS = pytest.mark.parametrize("kernel", ["recurrent", "native"])
LENGTHS = st.integers(1, 40)
SEEDS = st.integers(0, 2**31)


class Case(NamedTuple):
    """Inputs of one call; the first `rows` rows of `state` remember something, the others nothing."""

    x: Tensor
    r: Tensor
    state: SLSTMState
    lengths: Tensor
    starts: Tensor

    def to(self, dtype: torch.dtype) -> Case:
        state = SLSTMState(*(part.to(dtype) for part in self.state))
        return self._replace(x=self.x.to(dtype), r=self.r.to(dtype), state=state)

    @property
    def valid(self) -> Tensor:
        """(B, L, 1, 1), whether a position is within its row."""
        return (torch.arange(self.x.shape[1]) < self.lengths[:, None])[:, :, None, None]


def random_case(length: int, seed: int, rows: int = 2) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden, cell, normaliser, log_scale = normal(4, B, H, K)
    state = SLSTMState(hidden, cell, normaliser.abs() + 0.1, log_scale)
    for part in state:
        part[rows:] = 0
    lengths = torch.randint(0, length + 1, (B,), generator=generator)
    starts = torch.rand(B, length, generator=generator) < 0.15
    return Case(2 * normal(B, length, 4, H, K), normal(4, H, K, K) / 2, state, lengths, starts)


def extreme_case(length: int, seed: int) -> Case:
    """Input and forget gates anywhere up to 50, or at it."""
    case = random_case(length, seed)
    gates = (case.x[:, :, :2] * 20).clamp(-50, 50)
    gates[:, :, :, 0] = 50 * gates[:, :, :, 0].sign()
    return case._replace(x=torch.cat([gates, case.x[:, :, 2:]], 2), r=case.r / 4)


def from_the_paper(case: Case) -> npt.NDArray[np.float64]:
    """h of one row at a time: c = f c + i tanh(z), n = f n + i, h = sigmoid(o) c / n; NaN beyond the row."""
    x, r, starts, lengths = (part.numpy() for part in (case.x, case.r, case.starts, case.lengths))
    hidden, cell, normaliser, log_scale = (part.numpy() for part in case.state)
    out = np.full((*x.shape[:2], H, K), np.nan)
    for b, head in np.ndindex(B, H):
        scale = np.exp(log_scale[b, head])
        h, c, n = hidden[b, head], cell[b, head] * scale, normaliser[b, head] * scale
        for t in range(lengths[b]):
            if starts[b, t]:
                h, c, n = np.zeros(K), np.zeros(K), np.zeros(K)
            i, f, z, o = (x[b, t, gate, head] + h @ r[gate, head] for gate in range(4))
            forget = 1 / (1 + np.exp(-f))
            c, n = forget * c + np.exp(i) * np.tanh(z), forget * n + np.exp(i)
            h = c / n / (1 + np.exp(-o))
            out[b, t, head] = h
    return out


def meaning(state: SLSTMState) -> tuple[Tensor, Tensor, Tensor]:
    """What a state stands for, whatever its scale: hidden state, mean cell input, and the logarithm of its weight."""
    empty = state.normaliser == 0
    normaliser = state.normaliser.masked_fill(empty, 1)
    log_weight = normaliser.log() + state.log_scale
    return state.hidden, state.cell / normaliser, log_weight.masked_fill(empty, 0)


def everything(case: Case, kernel: str, seed: int = 0) -> list[Tensor]:
    """Hidden states, the state after the rows, and the gradients of all inputs under a random loss on all of these."""
    leaves = [part.clone().requires_grad_() for part in (case.x, case.r, *case.state[:3])]
    state = SLSTMState(*leaves[2:], case.state.log_scale)
    h, after = slstm_prefill(*leaves[:2], case.lengths, state=state, starts=case.starts, kernel=kernel)
    outputs = [h.masked_fill(~case.valid, 0), *meaning(after)]
    generator = torch.Generator().manual_seed(seed)
    loss = sum((part * torch.randn(part.shape, generator=generator, dtype=torch.float64)).sum() for part in outputs)
    assert isinstance(loss, Tensor)
    return [*(part.detach() for part in outputs), *torch.autograd.grad(loss, leaves)]


@FORMS
@given(length=LENGTHS, seed=SEEDS)
def test_every_form_is_the_equations_of_the_paper(kernel: str, length: int, seed: int) -> None:
    case = random_case(length, seed)
    h, _ = slstm_prefill(case.x, case.r, case.lengths, state=case.state, starts=case.starts, kernel=kernel)
    expected = torch.from_numpy(from_the_paper(case))
    torch.testing.assert_close(h.where(case.valid, torch.nan), expected, rtol=1e-9, atol=1e-9, equal_nan=True)


@given(length=LENGTHS, seed=SEEDS)
@example(length=1, seed=0)
@example(length=16, seed=1)
@example(length=17, seed=2)
def test_native_has_the_states_and_gradients_of_the_reference(length: int, seed: int) -> None:
    case = random_case(length, seed)
    for found, expected in zip(everything(case, "native"), everything(case, "recurrent"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@FORMS
def test_gradients_are_those_of_finite_differences(kernel: str) -> None:
    case = random_case(5, seed=3, rows=3)

    def outputs(x: Tensor, r: Tensor, hidden: Tensor, cell: Tensor, normaliser: Tensor) -> tuple[Tensor, ...]:
        state = SLSTMState(hidden, cell, normaliser, case.state.log_scale[:2])
        h, after = slstm_prefill(x, r, torch.tensor([5, 3]), state=state, starts=case.starts[:2], kernel=kernel)
        return h[0], h[1, :3], *meaning(after)

    leaves = [case.x[:2], case.r, *(part[:2] for part in case.state[:3])]
    assert torch.autograd.gradcheck(outputs, [part.clone().requires_grad_() for part in leaves])


@FORMS
@given(length=st.integers(2, 40), seed=SEEDS, data=st.data())
def test_a_cut_anywhere_changes_nothing(kernel: str, length: int, seed: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, length))
    x, r, state, lengths, starts = random_case(length, seed)
    whole, end = slstm_prefill(x, r, lengths, state=state, starts=starts, kernel=kernel)
    first = lengths.clamp(max=cut)
    head, between = slstm_prefill(x[:, :cut], r, first, state=state, starts=starts[:, :cut], kernel=kernel)
    tail, after = slstm_prefill(x[:, cut:], r, lengths - first, state=between, starts=starts[:, cut:], kernel=kernel)
    valid = torch.arange(length) < lengths[:, None]
    torch.testing.assert_close(torch.cat([head, tail], 1)[valid], whole[valid], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(meaning(after), meaning(end), rtol=1e-9, atol=1e-9)


@FORMS
@given(length=LENGTHS, seed=SEEDS)
def test_steps_are_the_whole(kernel: str, length: int, seed: int) -> None:
    x, r, *_ = random_case(length, seed)
    state = initial_state(B, H, K, x)
    hidden = []
    for t in range(length):
        h, state = slstm_step(x[:, t], r, state)
        hidden.append(h)
    whole, end = slstm_prefill(x, r, kernel=kernel)
    torch.testing.assert_close(torch.stack(hidden, 1), whole, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(meaning(state), meaning(end), rtol=1e-9, atol=1e-9)


@FORMS
@given(length=LENGTHS, seed=SEEDS)
def test_packed_histories_are_as_if_alone(kernel: str, length: int, seed: int) -> None:
    x, r, _, _, starts = random_case(length, seed)
    packed = slstm(x, r, starts=starts, kernel=kernel)
    for row in range(B):
        cuts = [0, *(starts[row].nonzero()[:, 0].tolist()), length]
        for begin, end in pairwise(cuts):
            alone = slstm(x[row : row + 1, begin:end], r, kernel=kernel)
            torch.testing.assert_close(packed[row : row + 1, begin:end], alone, rtol=1e-9, atol=1e-9)


@FORMS
def test_a_row_without_events_keeps_its_state_to_the_bit(kernel: str) -> None:
    x, r, state, _, starts = random_case(6, seed=0)
    starts[:] = True  # those in the padding start nothing
    _, after = slstm_prefill(x, r, torch.tensor([0, 6, 0]), state=state, starts=starts, kernel=kernel)
    for new, old in zip(after, state, strict=True):
        assert torch.equal(new[[0, 2]], old[[0, 2]])
    for new, old in zip(slstm_prefill(x[:, :0], r, state=state, kernel=kernel)[1], state, strict=True):
        assert torch.equal(new, old)


@FORMS
def test_padding_is_no_event(kernel: str) -> None:
    x, r, state, lengths, starts = random_case(6, seed=1)
    expected = slstm_prefill(x, r, lengths, state=state, starts=starts, kernel=kernel)[1]
    padded = torch.cat([x, 100 * torch.ones_like(x)], 1)
    again = torch.cat([starts, ~starts], 1)
    found = slstm_prefill(padded, r, lengths, state=state, starts=again, kernel=kernel)[1]
    torch.testing.assert_close(meaning(found), meaning(expected), rtol=1e-12, atol=1e-12)


@FORMS
@given(length=LENGTHS, seed=SEEDS, shift=st.floats(-20, 20))
def test_the_scale_of_a_state_is_free(kernel: str, length: int, seed: int, shift: float) -> None:
    x, r, state, *_ = random_case(length, seed, rows=2)
    hidden, cell, normaliser, log_scale = state
    moved = SLSTMState(hidden, cell * np.exp(-shift), normaliser * np.exp(-shift), log_scale + shift)
    expected, after = slstm_prefill(x, r, state=state, kernel=kernel)
    found, moved_after = slstm_prefill(x, r, state=moved, kernel=kernel)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(meaning(moved_after), meaning(after), rtol=1e-9, atol=1e-9)


@FORMS
@given(length=LENGTHS, seed=SEEDS)
def test_float32_is_near_float64_at_ordinary_gates(kernel: str, length: int, seed: int) -> None:
    case = random_case(length, seed)
    for found, expected in zip(everything(case.to(torch.float32), kernel), everything(case, kernel), strict=True):
        assert found.dtype in (torch.float32, torch.float64)
        largest = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * largest)


@given(length=LENGTHS, seed=SEEDS)
def test_extreme_gates_stay_finite_and_near_float64_in_float32(length: int, seed: int) -> None:
    case = extreme_case(length, seed)
    exact = everything(case, "recurrent")
    reference, native = (everything(case.to(torch.float32), kernel) for kernel in ("recurrent", "native"))
    for expected, first, second in zip(exact, reference, native, strict=True):
        assert torch.isfinite(second).all()
        allowed = max(float((first - expected).abs().max()), 1e-6 * max(1.0, float(expected.abs().max())))
        assert (second - expected).abs().max() <= 4 * allowed


@FORMS
def test_the_first_event_is_all_there_is_however_small_its_gate(kernel: str) -> None:
    x, r = torch.zeros(B, 2, 4, H, K), torch.zeros(4, H, K, K)
    x[:, :, 0], x[:, :, 2] = -1000.0, 3.0
    h, state = slstm_prefill(x, r, kernel=kernel)
    torch.testing.assert_close(h, torch.full_like(h, 0.5 * np.tanh(3.0)))
    assert all(torch.isfinite(part).all() for part in state)


@FORMS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_hidden_states_have_the_dtype_of_the_input_and_states_that_of_arithmetic(
    kernel: str, dtype: torch.dtype
) -> None:
    case = random_case(5, seed=0)
    x = case.x.to(dtype).requires_grad_()
    h, state = slstm_prefill(x, case.r.to(dtype), kernel=kernel)
    assert h.dtype == dtype
    assert {part.dtype for part in state} == {torch.promote_types(dtype, torch.float32)}
    assert torch.autograd.grad(h.sum(), x)[0].dtype == dtype


def test_native_takes_strided_inputs_and_leaves_all_as_it_was() -> None:
    case = random_case(7, seed=4)
    strided = case.x.permute(4, 1, 0, 3, 2).contiguous().permute(2, 1, 4, 3, 0)
    before = [part.clone() for part in (*case[:2], *case.state, *case[3:])]
    found = everything(case._replace(x=strided), "native")
    torch.testing.assert_close(found, everything(case, "native"), rtol=1e-12, atol=1e-12)
    assert all(map(torch.equal, (*case[:2], *case.state, *case[3:]), before))


def test_native_goes_back_twice_through_one_graph() -> None:
    case = random_case(20, seed=5)
    x = case.x.clone().requires_grad_()
    loss = slstm(x, case.r, kernel="native").square().sum()
    first, second = (torch.autograd.grad(loss, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_native_keeps_its_precision_under_autocast() -> None:
    case = random_case(20, seed=9).to(torch.float32)
    expected = everything(case, "native")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(everything(case, "native"), expected, rtol=0, atol=0)


def test_without_gradients_nothing_is_kept() -> None:
    case = random_case(6, seed=6)
    x = case.x.clone().requires_grad_()
    kept = slstm_prefill(x, case.r, case.lengths, state=case.state, starts=case.starts)
    with torch.inference_mode():
        found = slstm_prefill(x, case.r, case.lengths, state=case.state, starts=case.starts)
    assert kept[0].requires_grad
    assert not found[0].requires_grad
    torch.testing.assert_close(found, kept, rtol=0, atol=0)


class Whole(torch.nn.Module):
    """`slstm_prefill` as a module, to trace it."""

    def forward(self, x: Tensor, r: Tensor, lengths: Tensor) -> Tensor:
        h, state = slstm_prefill(x, r, lengths)
        return h[:, 0] + state.hidden


def test_it_can_be_traced_and_exported() -> None:
    case = random_case(4, seed=7)
    inputs = (case.x, case.r, case.lengths)
    expected = Whole()(*inputs)
    traced = torch.compile(Whole(), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(traced(*inputs), expected, rtol=1e-9, atol=1e-9)
    exported = torch.export.export(Whole(), inputs).module()
    torch.testing.assert_close(exported(*inputs), expected, rtol=1e-9, atol=1e-9)


def test_an_unknown_kernel_is_refused() -> None:
    case = random_case(2, seed=8)
    with pytest.raises(UnknownNameError, match=r"Unknown sLSTM kernel 'fast'\..*auto, native"):
        slstm(case.x, case.r, kernel="fast")


def test_triton_refuses_what_it_cannot_take() -> None:
    case = random_case(2, seed=8)
    with pytest.raises(ConfigError, match=r"\(16, 32, 64, 128\) in 16 or 32 bits, not 4 in torch\.float64"):
        slstm(case.x, case.r, kernel="triton")


def test_a_missing_triton_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr("seqrec.kernels.gpu.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"seqrec\[triton\]"):
        slstm(torch.zeros(1, 2, 4, 1, 16), torch.zeros(4, 1, 16, 16), kernel="triton")
