"""The three forms of the mLSTM against the paper's equations, written as a loop without any stabilisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from seqrec.kernels.mlstm import MLSTMState, effective_attention, initial_state, mlstm, mlstm_step
from seqrec.kernels.mlstm.native import CHUNK, native, native_hidden
from seqrec.kernels.mlstm.reference import parallel

B, H, K, V = 2, 2, 4, 3
LENGTHS = st.integers(1, 200)
SEEDS = st.integers(0, 2**31)


class Inputs(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    i: Tensor
    f: Tensor

    def cut(self, start: int, end: int) -> Inputs:
        return Inputs(*(x[:, :, start:end] for x in self))

    def at(self, position: int) -> Inputs:
        return Inputs(*(x[:, :, position] for x in self))

    def single(self) -> Inputs:
        return Inputs(*(x.float() for x in self))


def random_inputs(length: int, seed: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k, v = normal(B, H, length, K), normal(B, H, length, K), normal(B, H, length, V)
    return Inputs(q, k, v, 2 * normal(B, H, length), 2 * normal(B, H, length) + 2)


def saturated_inputs(length: int, seed: int) -> Inputs:
    """Gates that are wide open or shut, in any order."""
    inputs = random_inputs(length, seed)
    return inputs._replace(i=15 * inputs.i.sign(), f=15 * (inputs.f - 2).sign())


def from_the_paper(x: Inputs) -> npt.NDArray[np.float64]:
    """h of one head at a time: C_t = f C + i k v', n_t = f n + i k, h = C' q / max(|n.q|, 1)."""
    q, k, v, i, f = (part.numpy() for part in x)
    h = np.empty(v.shape)
    for b, head in np.ndindex(*v.shape[:2]):
        memory, normaliser = np.zeros((q.shape[-1], v.shape[-1])), np.zeros(q.shape[-1])
        for t in range(v.shape[2]):
            at = (b, head, t)
            forget, add, key = 1 / (1 + math.exp(-f[at])), math.exp(i[at]), k[at] / math.sqrt(q.shape[-1])
            memory = forget * memory + add * np.outer(key, v[at])
            normaliser = forget * normaliser + add * key
            h[at] = memory.T @ q[at] / max(abs(normaliser @ q[at]), 1.0)
    return h


def steps(x: Inputs, state: MLSTMState | None = None) -> tuple[Tensor, MLSTMState]:
    state = state or initial_state(x.q.shape[0], x.q.shape[1], x.q.shape[-1], x.v.shape[-1], x.q)
    hidden = []
    for position in range(x.q.shape[2]):
        h, state = mlstm_step(*x.at(position), state)
        hidden.append(h)
    return torch.stack(hidden, 2), state


def assert_same_memory(found: MLSTMState, expected: MLSTMState) -> None:
    """States agree when what they stand for does: the common scale is free."""
    for state in (found, expected):
        assert all(torch.isfinite(part).all() for part in state)
    shift = torch.exp(found.log_scale - expected.log_scale)
    torch.testing.assert_close(found.memory * shift[..., None, None], expected.memory, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.normaliser * shift[..., None], expected.normaliser, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [random_inputs, saturated_inputs])
@given(length=LENGTHS, seed=SEEDS)
@example(length=CHUNK - 1, seed=0)
@example(length=CHUNK, seed=1)
@example(length=CHUNK + 1, seed=2)
@example(length=3 * CHUNK, seed=3)
def test_all_forms_are_the_equations_of_the_paper(make: Callable[[int, int], Inputs], length: int, seed: int) -> None:
    x = make(length, seed)
    expected = torch.from_numpy(from_the_paper(x))
    whole, state = native(*x)
    stepped, after = steps(x)
    for found in (mlstm(*x), parallel(*x), whole, stepped):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    assert_same_memory(state, after)


@given(length=st.integers(2, 200), seed=SEEDS, data=st.data())
def test_a_cut_anywhere_changes_nothing(length: int, seed: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, length - 1))
    x = random_inputs(length, seed)
    expected, end = native(*x)
    head, carried = native(*x.cut(0, cut))
    for continued in (native, _steps_like_native):
        tail, state = continued(*x.cut(cut, length), carried)
        torch.testing.assert_close(torch.cat([head, tail], 2), expected, rtol=1e-9, atol=1e-9)
        assert_same_memory(state, end)


def _steps_like_native(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState
) -> tuple[Tensor, MLSTMState]:
    return steps(Inputs(q, k, v, i, f), state)


@given(lengths=st.tuples(st.integers(0, 150), st.integers(1, 150)), padding=st.integers(0, 70), seed=SEEDS)
def test_the_state_is_that_of_the_last_valid_position(lengths: tuple[int, int], padding: int, seed: int) -> None:
    x = random_inputs(max(lengths) + padding, seed)
    h, state = native(*x, lengths=torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = Inputs(*(part[row : row + 1, :, :length] for part in x))
        expected, after = steps(alone) if length else (alone.v, initial_state(1, H, K, V, x.q))
        torch.testing.assert_close(h[row : row + 1, :, :length], expected, rtol=1e-9, atol=1e-9)
        assert_same_memory(MLSTMState(*(part[row : row + 1] for part in state)), after)


@given(length=LENGTHS, seed=SEEDS)
@example(length=CHUNK + 1, seed=0)
def test_gradients_are_those_of_autograd(length: int, seed: int) -> None:
    x = random_inputs(length, seed)
    direction = torch.randn(x.v.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gradients = []
    for form in (parallel, lambda *parts: native(*parts)[0]):
        leaves = [part.clone().requires_grad_() for part in x]
        gradients.append(torch.autograd.grad((form(*leaves) * direction).sum(), leaves))
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(second, first, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_finite_differences() -> None:
    leaves = [part[:1, :1].clone().requires_grad_() for part in random_inputs(7, seed=0)]
    assert torch.autograd.gradcheck(parallel, leaves)
    assert torch.autograd.gradcheck(lambda *parts: native_hidden(*parts, chunk=3), leaves)


@given(length=LENGTHS, seed=SEEDS)
def test_float32_is_near_float64(length: int, seed: int) -> None:
    x = random_inputs(length, seed)
    expected = parallel(*x).float()
    single = x.single()
    for found in (parallel(*single), native(*single)[0], steps(single)[0]):
        torch.testing.assert_close(found, expected, rtol=3e-4, atol=3e-4)


@given(length=LENGTHS, seed=SEEDS)
def test_saturated_gates_stay_finite_in_float32_forth_and_back(length: int, seed: int) -> None:
    single = saturated_inputs(length, seed).single()
    for form in (parallel, lambda *parts: native(*parts)[0]):
        leaves = [part.clone().requires_grad_() for part in single]
        h = form(*leaves)
        assert torch.isfinite(h).all()
        assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(h.sum(), leaves))


@given(length=LENGTHS, seed=SEEDS)
def test_effective_attention_draws_h_from_values_of_the_past(length: int, seed: int) -> None:
    x = random_inputs(length, seed)
    attention = effective_attention(x.q, x.k, x.i, x.f)
    assert attention.shape == (B, H, length, length)
    assert not attention.triu(1).any()
    torch.testing.assert_close(attention @ x.v, torch.from_numpy(from_the_paper(x)), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("length", [5, CHUNK + 1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_hidden_states_have_the_dtype_of_the_values(length: int, dtype: torch.dtype) -> None:
    x = Inputs(*(part.to(dtype) for part in random_inputs(length, seed=0)))
    assert mlstm(*x).dtype == dtype
    assert native(*x)[0].dtype == dtype


def test_inputs_are_left_as_they_were() -> None:
    x = random_inputs(70, seed=0)
    before = [part.clone() for part in x]
    native(*x, lengths=torch.tensor([3, 70]))
    parallel(*x)
    assert all(torch.equal(now, then) for now, then in zip(x, before, strict=True))
