"""The Triton kernels of the mLSTM against the reference: on a GPU, or without one where TRITON_INTERPRET=1 is set."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from seqrec.errors import ConfigError
from seqrec.kernels.mlstm import MLSTMState, mlstm, reference
from seqrec.kernels.mlstm.step import step

pytest.importorskip("triton")
CUDA = torch.cuda.is_available()
if not CUDA and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

from seqrec.kernels.mlstm import triton_chunks, triton_form, triton_step  # noqa: E402

DEVICE = "cuda" if CUDA else "cpu"
B, H = 2, 2
# The scale of a position where all gates are shut is beyond float32: infinity is what is meant there.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")
on_a_gpu = pytest.mark.skipif(not CUDA, reason="needs a GPU")


class Case(NamedTuple):
    """Inputs in float64 on the CPU; q, k, v lie in memory as models lay them out."""

    inputs: tuple[Tensor, ...]
    state: MLSTMState
    starts: Tensor
    lengths: Tensor
    direction: Tensor
    to_memory: Tensor


def case(length: int, width: int = 16, gates: float = 1.0, seed: int = 0) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k, v, direction = (normal(B, length, H, width).transpose(1, 2) for _ in range(4))
    i, f = normal(B, length, 2 * H).mT.chunk(2, 1)
    state = MLSTMState(normal(B, H, width, width), normal(B, H, width), normal(B, H))
    starts = torch.rand(B, length, generator=generator) < 0.05
    lengths = torch.tensor([0, length * 2 // 3])
    return Case(
        (q, k, v, gates * 2 * i, gates * (2 * f + 2)), state, starts, lengths, direction, normal(*state.memory.shape)
    )


def run(
    form: Callable[..., tuple[Tensor, MLSTMState]], x: Case, dtype: torch.dtype, device: str, **given: bool
) -> list[Tensor]:
    """h, what is remembered, and the gradients of both: q, k, v, i, f, and the state's."""
    wide = [part.to(device, dtype).requires_grad_() for part in x.inputs[:3]]
    exact = torch.promote_types(dtype, torch.float32)
    gates = [part.to(device, exact).requires_grad_() for part in x.inputs[3:]]
    state = MLSTMState(*(part.to(device, exact) for part in x.state))
    learned = [state.memory.requires_grad_(), state.normaliser.requires_grad_()]
    lengths = x.lengths.to(device) if given.get("lengths") else None
    h, after = form(
        *wide,
        *gates,
        state if given.get("state") else None,
        lengths,
        x.starts.to(device) if given.get("starts") else None,
    )
    if lengths is not None:
        h = h * (torch.arange(h.shape[2], device=device) < lengths[:, None])[:, None, :, None]
    scale = torch.exp(after.log_scale.double())
    memory, normaliser = after.memory.double() * scale[..., None, None], after.normaliser.double() * scale[..., None]
    value = (h.double() * x.direction.to(device)).sum() + (memory * x.to_memory.to(device)).sum() + normaliser.sum()
    leaves = [*wide, *gates, *(learned if given.get("state") else [])]
    return [part.detach().double().cpu() for part in (h, memory, normaliser, *torch.autograd.grad(value, leaves))]


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """||x - ref|| / ||ref|| of each."""
    return [float((x - ref).norm() / ref.norm().clamp(min=1e-20)) for x, ref in zip(found, expected, strict=True)]


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_chunks, "ONE_CHUNK", 64)
    monkeypatch.setattr(triton_chunks, "CHUNK", 64)


@pytest.mark.parametrize("length", [1, 20, 64, 70, 150])
@pytest.mark.parametrize("given", [[], ["starts"], ["state"], ["state", "starts", "lengths"]], ids="-".join)
def test_one_chunk_is_the_reference(length: int, given: list[str]) -> None:
    x, wanted = case(length), dict.fromkeys(given, True)
    expected = run(reference.recurrent, x, torch.float64, "cpu", **wanted)
    found = run(triton_form.prefill, x, torch.float32, DEVICE, **wanted)
    # A row of one event forgets nothing that was learned: the gradient of f is zero there, so errors are absolute.
    assert all(error < 1e-4 or ref.norm() < 1e-12 for error, ref in zip(errors(found, expected), expected, strict=True))


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("length", [65, 220, 300])
@pytest.mark.parametrize("given", [[], ["starts"], ["state", "lengths"], ["state", "starts", "lengths"]], ids="-".join)
def test_chunks_are_the_reference(length: int, given: list[str]) -> None:
    x, wanted = case(length, seed=1), dict.fromkeys(given, True)
    expected = run(reference.recurrent, x, torch.float64, "cpu", **wanted)
    assert max(errors(run(triton_form.prefill, x, torch.float32, DEVICE, **wanted), expected)) < 1e-4


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("length", [50, 200])
def test_without_a_state_hidden_states_and_gradients_are_the_same(length: int) -> None:
    x = case(length)
    results = []
    for form, dtype, device in (
        (reference.parallel, torch.float64, "cpu"),
        (triton_form.hidden_states, torch.float32, DEVICE),
    ):
        leaves = [part.to(device, dtype).requires_grad_() for part in x.inputs]
        h = form(*leaves)
        results.append(
            [part.detach().double().cpu() for part in (h, *torch.autograd.grad(h, leaves, x.direction.to(h)))]
        )
    assert max(errors(results[1], results[0])) < 1e-4


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("seed", range(3))
def test_extreme_gates_leave_digits_where_steps_do(seed: int) -> None:
    """Inside a block decays are differences of sums over up to 64 positions, here of up to 3,200."""
    x = case(150, gates=12, seed=seed)
    x = x._replace(inputs=(*x.inputs[:3], *(gate.clamp(-50, 50) for gate in x.inputs[3:])))
    expected = run(reference.recurrent, x, torch.float64, "cpu", state=True)
    by_steps = errors(run(reference.recurrent, x, torch.float32, "cpu", state=True), expected)
    found = errors(run(triton_form.prefill, x, torch.float32, DEVICE, state=True), expected)
    assert all(error <= 20 * stepped + 1e-3 for error, stepped in zip(found, by_steps, strict=True)), (found, by_steps)


@pytest.mark.usefixtures("short_chunks")
def test_a_history_that_was_open_before_one_that_is_shut_stays_finite() -> None:
    x = case(130)
    i = torch.where(torch.arange(130) < 70, 50.0, -50.0).double().expand(B, H, 130)
    x = x._replace(inputs=(*x.inputs[:3], i, x.inputs[4]), starts=(torch.arange(130) == 70).expand(B, 130))
    expected = run(reference.recurrent, x, torch.float64, "cpu", starts=True)
    found = run(triton_form.prefill, x, torch.float32, DEVICE, starts=True)
    assert max(errors(found, expected)) < 1e-3


def test_closed_gates_stay_finite() -> None:
    x = case(70)
    x = x._replace(inputs=(*x.inputs[:3], x.inputs[3] - 1e4, x.inputs[4] - 1e4))
    assert all(torch.isfinite(part).all() for part in run(triton_form.prefill, x, torch.float32, DEVICE, state=True))


@pytest.mark.parametrize("width", [8, 24, 256])
def test_other_widths_are_refused_with_the_known_ones(width: int) -> None:
    q, gate = torch.zeros(1, 1, 4, width), torch.zeros(1, 1, 4)
    with pytest.raises(ConfigError, match=rf"width \(16, 32, 64, 128\) in 16 or 32 bits, not {width} in"):
        mlstm(q, q, q, gate, gate, kernel="triton")


@on_a_gpu
@pytest.mark.parametrize("width", [16, 32, 64, 128])
@pytest.mark.parametrize("length", [50, 200, 600])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_as_torch_in_it(width: int, length: int, dtype: torch.dtype) -> None:
    x = case(length, width)
    x = x._replace(inputs=tuple(part.to(dtype).double() for part in x.inputs[:3]) + x.inputs[3:])
    results = []
    for form, type_, device in (
        (reference.parallel, torch.float64, "cpu"),
        (reference.parallel, dtype, DEVICE),
        (triton_form.hidden_states, dtype, DEVICE),
    ):
        leaves = [
            part.to(device, type_ if at < 3 else torch.promote_types(type_, torch.float32))
            for at, part in enumerate(x.inputs)
        ]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        h = form(*leaves)
        gradients = torch.autograd.grad(h, leaves, x.direction.to(h))
        results.append([part.detach().double().cpu() for part in (h, *gradients)])
    inherent, found = errors(results[1], results[0]), errors(results[2], results[0])
    assert all(error <= max(0.02, 2 * torchs) for error, torchs in zip(found, inherent, strict=True)), (found, inherent)


def test_steps_are_the_reference() -> None:
    x = case(5)
    state, stored = x.state, MLSTMState(*(part.to(DEVICE, torch.float32) for part in x.state))
    for t in range(5):
        event = [part[:, :, t] for part in x.inputs]
        h, state = step(*event, state)
        found, stored = triton_step.step(*(part.to(DEVICE, torch.float32) for part in event), stored)
        assert errors([found.cpu().double()], [h])[0] < 1e-5
    assert max(errors([part.cpu().double() for part in stored], list(state))) < 1e-5


def test_what_a_single_row_leaves_behind_can_be_written_to() -> None:
    """One row with one head has no gaps in memory, so copies for their sake would be none."""
    x = case(20)
    inputs = [part[:1, :1].to(DEVICE, torch.float32).requires_grad_() for part in x.inputs]
    expected, found = [], []
    for gradients, writes in ((expected, False), (found, True)):
        h, after = triton_form.prefill(*inputs)
        loss = h.sum()
        if writes:
            after.memory.detach().zero_()
            after.normaliser.detach().zero_()
        gradients += torch.autograd.grad(loss, inputs)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
