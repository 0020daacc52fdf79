"""The optional backend `mlstm_kernels` against our own forms; with the package missing, the error alone.

Shapes: B rows, H heads, L positions, K key width, V value width.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.errors import ConfigError, MissingExtraError
from seqrec.kernels.mlstm import MLSTMState, initial_state, mlstm_step
from seqrec.kernels.mlstm.nxai import cuda_chunk, nxai, step
from seqrec.kernels.mlstm.reference import recurrent

B, H, K, V = 3, 2, 12, 6
installed = pytest.mark.skipif(find_spec("mlstm_kernels") is None, reason='pip install "seqrec[nxai]"')


def inputs(length: int) -> tuple[Tensor, ...]:
    """q, k, v, i, f that ask for gradients."""
    generator = torch.Generator().manual_seed(length)
    wide = [torch.randn(B, H, length, width, generator=generator, dtype=torch.float64) for width in (K, K, V)]
    i, f = (2 * torch.randn(B, H, length, generator=generator, dtype=torch.float64) for _ in range(2))
    return tuple(x.requires_grad_() for x in (*wide, i, f + 2))


def some_state() -> MLSTMState:
    _, state = recurrent(*(x.detach() for x in inputs(9)))
    return state


def descaled(state: MLSTMState) -> tuple[Tensor, Tensor]:
    scale = state.log_scale.exp()
    return state.memory * scale[..., None, None], state.normaliser * scale[..., None]


@installed
@pytest.mark.parametrize("length", [1, 7, 32, 50, 150])
@pytest.mark.parametrize("state", [None, some_state()], ids=["empty", "continued"])
def test_it_is_the_recurrent_form(length: int, state: MLSTMState | None) -> None:
    """Hidden states, states, and gradients behind a norm over each head; among the rows, one without events."""
    x, lengths = inputs(length), torch.tensor([length, 0, (length + 1) // 2])
    (expected, expected_state), (found, found_state) = recurrent(*x, state, lengths), nxai(*x, state, lengths)
    valid = (torch.arange(length) < lengths[:, None])[:, None, :, None]
    expected, found = (h.where(valid, 1.0) for h in (expected, found))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(descaled(found_state), descaled(expected_state), rtol=1e-10, atol=1e-10)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(0), dtype=found.dtype)
    of = [torch.autograd.grad((F.rms_norm(h, (V,), eps=0.0) * weight).sum(), x) for h in (found, expected)]
    for ours, theirs in zip(*of, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@installed
def test_half_precision_keeps_gates_and_state_in_single() -> None:
    x = [part.detach().float() for part in inputs(50)]
    half = [part.bfloat16() for part in x[:3]]
    with torch.autocast("cpu", torch.bfloat16):
        found, state = nxai(*half, *x[3:])
    expected, _ = nxai(*(part.float() for part in half), *x[3:])
    assert found.dtype == torch.bfloat16
    assert state.memory.dtype == state.log_scale.dtype == torch.float32
    assert (found.float() - expected).norm() < 0.02 * expected.norm()


@installed
def test_a_step_is_ours() -> None:
    x = [part.detach() for part in inputs(20)]
    ours = theirs = initial_state(B, H, K, V, x[0])
    for t in range(20):
        event = [part[:, :, t] for part in x]
        expected, ours = mlstm_step(*event, ours)
        found, theirs = step(*event, theirs)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(descaled(theirs), descaled(ours), rtol=1e-10, atol=1e-10)


def test_packed_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="choose native or triton"):
        nxai(*inputs(4), starts=torch.zeros(B, 4, dtype=torch.bool))


def test_a_missing_package_is_named_with_its_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlstm_kernels.torch", None)
    with pytest.raises(MissingExtraError, match=r'NXAI Community License.*pip install "seqrec\[nxai\]"'):
        nxai(*inputs(4))


@pytest.mark.parametrize(
    ("length", "chunk", "fill"), [(1, 16, 15), (16, 16, 0), (50, 64, 14), (65, 128, 63), (200, 128, 56), (256, 128, 0)]
)
def test_lengths_are_filled_up_for_a_gpu(length: int, chunk: int, fill: int) -> None:
    assert (cuda_chunk(length), -length % cuda_chunk(length)) == (chunk, fill)
