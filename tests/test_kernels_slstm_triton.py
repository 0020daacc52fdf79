"""The Triton form of the sLSTM against the reference in float64: on a GPU, or with TRITON_INTERPRET=1 on a CPU.

The interpreter multiplies matrices of bfloat16 as if they were integers, so that type waits for a GPU.

Shapes: B rows, L positions, H heads, K width of a head.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from seqrec.kernels.slstm import SLSTMState, slstm, slstm_prefill

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and TRITON_INTERPRET is not 1", allow_module_level=True)
pytest.importorskip("triton")

DEVICE = "cpu" if INTERPRETED else "cuda"
#: Largest error allowed of hidden states and of gradients, each relative to the largest entry of its tensor.
TOLERANCE = {torch.float32: (2e-6, 1e-5), torch.float16: (2e-3, 5e-3), torch.bfloat16: (1e-2, 3e-2)}
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])
#: B, L, H, K: less than a block of rows and more; one event; all widths.
SIZES = [(5, 7, 2, 16), (18, 1, 1, 16), (2, 4, 1, 32)]
if not INTERPRETED:
    SIZES += [(37, 67, 2, 32), (33, 200, 4, 64), (20, 50, 2, 128), (3, 1500, 1, 64)]

Inputs = tuple[Tensor, Tensor, SLSTMState, Tensor, Tensor]


def random_inputs(size: tuple[int, int, int, int], dtype: torch.dtype, seed: int = 0) -> Inputs:
    """x, r, state, lengths and starts, float64, x and r rounded to `dtype`; the last row remembers nothing."""
    B, L, H, K = size
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, r = normal(B, L, 4, H, K).to(dtype).double(), (normal(4, H, K, K) / K**0.5).to(dtype).double()
    hidden, cell, normaliser, log_scale = normal(4, B, H, K)
    state = SLSTMState(hidden.tanh().to(dtype).double(), cell, normaliser.abs() + 0.1, log_scale)
    for part in state:
        part[-1] = 0
    lengths = torch.randint(0, L + 1, (B,), generator=generator)
    lengths[0] = L
    return x, r, state, lengths, torch.rand(B, L, generator=generator) < 0.1


def everything(inputs: Inputs, kernel: str, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """Hidden states, the state after the rows, and gradients under a random loss on all of these, by name."""
    x, r, state, lengths, starts = inputs
    held = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = [x.to(device, dtype), *(part.to(device, held) for part in (r, *state[:3]))]
    leaves = [part.clone().requires_grad_() for part in leaves]
    before = SLSTMState(*leaves[2:], state.log_scale.to(device, held))
    lengths, starts = lengths.to(device), starts.to(device)
    h, after = slstm_prefill(*leaves[:2], lengths, state=before, starts=starts, kernel=kernel)
    valid = torch.arange(x.shape[1], device=device) < lengths[:, None]
    normaliser = after.normaliser.masked_fill(after.normaliser == 0, 1)
    log_weight = normaliser.log() + after.log_scale
    outputs = [h.masked_fill(~valid[:, :, None, None], 0), after.hidden, after.cell / normaliser, log_weight]
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part) for part in outputs]
    gradients = torch.autograd.grad(outputs, leaves, directions)
    names = ["h", "hidden", "mean", "log weight", "dx", "dr", "dhidden", "dcell", "dnormaliser"]
    return {name: part.detach().double().cpu() for name, part in zip(names, (*outputs, *gradients), strict=True)}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_triton_is_the_reference_forth_and_back(size: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    inputs = random_inputs(size, dtype)
    exact = everything(inputs, "recurrent", torch.float64, "cpu")
    found = everything(inputs, "triton", dtype, DEVICE)
    for name, expected in exact.items():
        tolerance = TOLERANCE[dtype][name.startswith("d")] * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(
            found[name], expected, rtol=0, atol=tolerance, msg=lambda text, of=name: f"{of}: {text}"
        )


def test_extreme_gates_stay_finite_and_near_float64() -> None:
    x, r, state, lengths, starts = random_inputs((5, 7, 2, 16), torch.float32, seed=1)
    x[:, :, :2] = 50 * x[:, :, :2].sign()
    inputs = (x, r / 4, state, lengths, starts)
    exact = everything(inputs, "recurrent", torch.float64, "cpu")
    for name, part in everything(inputs, "triton", torch.float32, DEVICE).items():
        tolerance = 1e-4 * max(1.0, float(exact[name].abs().max()))
        torch.testing.assert_close(part, exact[name], rtol=0, atol=tolerance, msg=lambda text, of=name: f"{of}: {text}")


def test_strided_inputs_are_read_where_they_lie() -> None:
    x, r, *_ = random_inputs((5, 4, 2, 16), torch.float32, seed=2)
    x, r = x.float().to(DEVICE), r.float().to(DEVICE)
    strided = x.permute(1, 2, 3, 0, 4).contiguous().permute(3, 0, 1, 2, 4).requires_grad_()
    scattered = x.transpose(1, 4).contiguous().transpose(1, 4).requires_grad_()
    plain = x.clone().requires_grad_()
    expected = slstm(plain, r, kernel="triton")
    gradient = torch.autograd.grad(expected.square().sum(), plain)[0]
    for other in (strided, scattered):
        h = slstm(other, r, kernel="triton")
        assert torch.equal(h, expected)
        assert torch.equal(torch.autograd.grad(h.square().sum(), other)[0], gradient)


def test_without_gradients_the_numbers_are_the_same() -> None:
    x, r, state, lengths, starts = random_inputs((5, 4, 2, 16), torch.float32, seed=3)
    x, r, lengths, starts = x.float().to(DEVICE), r.float().to(DEVICE), lengths.to(DEVICE), starts.to(DEVICE)
    state = SLSTMState(*(part.float().to(DEVICE) for part in state))
    found = slstm_prefill(x, r, lengths, state=state, starts=starts, kernel="triton")
    kept = slstm_prefill(x.requires_grad_(), r, lengths, state=state, starts=starts, kernel="triton")
    for first, second in zip((found[0], *found[1]), (kept[0], *kept[1]), strict=True):
        assert torch.equal(first, second)
    for first, second in zip(found[1], state, strict=True):
        assert torch.equal(first[lengths == 0], second[lengths == 0])


@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs where tensors are on the CPU")
def test_on_a_gpu_it_is_what_auto_takes() -> None:
    x, r, *_ = random_inputs((5, 4, 2, 32), torch.float32, seed=4)
    x, r = x.float().cuda(), r.float().cuda()
    assert torch.equal(slstm(x, r), slstm(x, r, kernel="triton"))
