"""The Triton kernels of the residual norm against the reference: on a GPU, or where TRITON_INTERPRET=1 is set."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from seqrec.kernels.residual_norm import residual_norm

pytest.importorskip("triton")
CUDA = torch.cuda.is_available()
if not CUDA and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

from seqrec.kernels.residual_norm import triton_form  # noqa: E402

DEVICE = "cuda" if CUDA else "cpu"
EPS = 1e-5
on_a_gpu = pytest.mark.skipif(not CUDA, reason="needs a GPU")
SHAPES = [(1, 1), (5, 16), (3, 7, 48), (33, 96), (2, 9, 100), (70, 256), (3, 1024)]


@pytest.fixture(params=["tiles", "small tiles"])
def _tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones of other sizes forwards than backwards, many for each program."""
    if request.param == "small tiles":
        monkeypatch.setattr(triton_form, "FORWARD", (512, 4))
        monkeypatch.setattr(triton_form, "BACKWARD", (1024, 4))
        monkeypatch.setattr(triton_form, "PROGRAMS", 3)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kept(shape: tuple[int, ...], dropout: float, seed: int = 0) -> Tensor:
    """What a branch of this shape is multiplied with after `torch.manual_seed(seed)`, (...) float64 on the CPU."""
    torch.manual_seed(seed)
    zeros, D = torch.zeros(shape, device=DEVICE), shape[-1]
    stream, _ = residual_norm(zeros, zeros + 1, torch.ones(D, device=DEVICE), eps=EPS, dropout=dropout, kernel="triton")
    return (stream != 0).double().cpu() / (1 - dropout)


def run(
    parts: list[Tensor | None], kernel: str, device: str, dtype: torch.dtype, dropout: float, uses: str,
    half: torch.dtype | None = None,
) -> list[Tensor]:  # fmt: skip
    """Stream, norm, and the gradients of what is there of x, branch, weight, bias; `half`: dtype of branch and norm."""
    dtypes = (dtype, half or dtype, dtype, dtype)
    leaves = [
        None if part is None else part.to(device, to).requires_grad_() for part, to in zip(parts, dtypes, strict=True)
    ]
    torch.manual_seed(0)
    stream, normed = residual_norm(*leaves, eps=EPS, dropout=dropout, dtype=half, kernel=kernel)  # type: ignore[arg-type]
    outputs = [part for part, name in ((stream, "stream"), (normed, "norm")) if name in uses]
    directions = [normal(*part.shape, seed=9 + at).to(part) for at, part in enumerate(outputs)]
    given = [leaf for leaf in leaves if leaf is not None]
    gradients = torch.autograd.grad(outputs, given, directions, allow_unused=True, materialize_grads=True)
    return [part.detach().double().cpu() for part in (stream, normed, *gradients)]


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """||x - ref|| / ||ref|| of each; where nothing but rounding is expected, ||x - ref||."""
    return [
        float((x - ref).norm() / (ref.norm() if ref.norm() > 1e-9 else 1.0))
        for x, ref in zip(found, expected, strict=True)
    ]


def case(shape: tuple[int, ...], branched: bool, centred: bool) -> list[Tensor | None]:
    D = shape[-1]
    return [
        normal(*shape, seed=0) + (3 if centred else 0),
        normal(*shape, seed=1) if branched else None,
        normal(D, seed=2),
        normal(D, seed=3) if centred else None,
    ]


def with_mask(parts: list[Tensor | None], dropout: float) -> list[Tensor]:
    """`run` of the reference in float64, with the mask that the kernels draw."""
    x, branch, weight, bias = parts
    assert x is not None
    if branch is None or dropout == 0:
        return run(parts, "reference", "cpu", torch.float64, 0.0, "stream norm")
    mask = kept(tuple(branch.shape), dropout)
    found = run([x, branch * mask, weight, bias], "reference", "cpu", torch.float64, 0.0, "stream norm")
    found[3] = found[3] * mask
    return found


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("centred", [False, True], ids=["rms", "layer"])
@pytest.mark.parametrize(("branched", "dropout"), [(False, 0.0), (True, 0.0), (True, 0.4)])
def test_kernels_are_the_reference(shape: tuple[int, ...], centred: bool, branched: bool, dropout: float) -> None:
    parts = case(shape, branched, centred)
    found = run(parts, "triton", DEVICE, torch.float32, dropout, "stream norm")
    assert max(errors(found, with_mask(parts, dropout))) < 1e-5


@pytest.mark.parametrize("uses", ["stream", "norm"])
@pytest.mark.parametrize("branched", [False, True])
@pytest.mark.parametrize("centred", [False, True], ids=["rms", "layer"])
def test_either_output_may_go_unused(uses: str, branched: bool, centred: bool) -> None:
    parts = case((5, 48), branched, centred)
    expected = run(parts, "reference", "cpu", torch.float64, 0.0, uses)
    assert max(errors(run(parts, "triton", DEVICE, torch.float32, 0.0, uses), expected)) < 1e-5


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("centred", [False, True], ids=["rms", "layer"])
def test_branches_and_norms_may_be_of_half_precision(half: torch.dtype, centred: bool) -> None:
    parts = case((40, 96), True, centred)
    assert parts[1] is not None
    parts[1] = parts[1].to(half).double()
    found = run(parts, "triton", DEVICE, torch.float32, 0.3, "stream norm", half)
    each = errors(found, with_mask(parts, 0.3))
    assert each[0] < 1e-6
    assert max(each) < 0.01


def test_a_stream_of_half_precision_is_normed_as_it_is_stored() -> None:
    x, branch = normal(9, 64, seed=0).bfloat16().to(DEVICE), normal(9, 64, seed=1).to(DEVICE)
    weight = torch.ones(64, device=DEVICE)
    stream, normed = residual_norm(x, branch.float(), weight, eps=EPS, dtype=torch.float32, kernel="triton")
    assert stream.dtype == torch.bfloat16
    expected = residual_norm(stream.double().cpu(), None, weight.double().cpu(), eps=EPS)[1]
    assert errors([normed.double().cpu()], [expected])[0] < 1e-6


def test_autocast_says_what_the_norm_is_of() -> None:
    x, weight = torch.ones(4, 16, device=DEVICE), torch.ones(16, device=DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        stream, normed = residual_norm(x, x.bfloat16(), weight, eps=EPS, kernel="triton")
    assert (stream.dtype, normed.dtype) == (torch.float32, torch.bfloat16)


def test_tensors_need_not_be_dense() -> None:
    wide = normal(16, 2, 12, seed=0).to(DEVICE, torch.float32)
    x, branch = wide[:, 0].mT, wide[:, 1].mT
    for given in (branch, None):
        found = residual_norm(x, given, torch.ones(16, device=DEVICE), eps=EPS, kernel="triton")
        expected = residual_norm(x, given, torch.ones(16, device=DEVICE), eps=EPS, kernel="reference")
        assert max(errors(list(found), list(expected))) < 1e-6


def test_masks_follow_the_seed_and_are_new_with_each_call() -> None:
    shape, D = (20, 48), 48
    assert torch.equal(kept(shape, 0.5), kept(shape, 0.5))
    assert not torch.equal(kept(shape, 0.5), kept(shape, 0.5, seed=1))
    zeros, weight = torch.zeros(shape, device=DEVICE), torch.ones(D, device=DEVICE)
    first, second = (
        residual_norm(zeros, zeros + 1, weight, eps=EPS, dropout=0.5, kernel="triton")[0] for _ in range(2)
    )
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_masks_leave_out_their_share_and_neighbours_know_nothing_of_each_other(dropout: float) -> None:
    left_out = (kept((400, 64), dropout) == 0).double()
    spread = (dropout * (1 - dropout) / left_out.numel()) ** 0.5
    assert left_out.mean().item() == pytest.approx(dropout, abs=5 * spread)
    assert (left_out.mean(0) - dropout).abs().max() < 5 * spread * 64**0.5
    assert (left_out.mean(1) - dropout).abs().max() < 5 * spread * 400**0.5
    centred = left_out - dropout
    limit = 5 * dropout * (1 - dropout) / left_out.numel() ** 0.5
    for down, across in [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (2, 0), (1, 1)]:
        pairs = centred[down:, across:] * centred[: len(centred) - down, : 64 - across]
        assert pairs.mean().abs() < limit


def test_a_row_that_is_not_a_number_spoils_no_other() -> None:
    x = torch.ones(6, 16, device=DEVICE)
    x[2, 3] = float("nan")
    _, normed = residual_norm(x, x.clone(), torch.ones(16, device=DEVICE), eps=EPS, kernel="triton")
    assert normed.isfinite().all(1).tolist() == [True, True, False, True, True, True]


def test_the_largest_numbers_and_rows_of_zeros_stay_finite() -> None:
    x = torch.tensor([0.0, 1e18, 1e-30], device=DEVICE)[:, None].expand(3, 16).contiguous().requires_grad_()
    for bias in (None, torch.ones(16, device=DEVICE)):
        stream, normed = residual_norm(x, None, torch.ones(16, device=DEVICE), bias, eps=EPS, kernel="triton")
        (gradient,) = torch.autograd.grad(normed.sum() + stream.sum(), x)
        assert normed.isfinite().all()
        assert gradient.isfinite().all()


@on_a_gpu
def test_a_recorded_graph_draws_anew_and_its_gradients_know_what_was_drawn() -> None:
    x, branch = (torch.ones(100, 256, device="cuda", requires_grad=True) for _ in range(2))
    weight = torch.ones(256, device="cuda")

    def step() -> tuple[Tensor, Tensor]:
        stream, _ = residual_norm(x, branch, weight, eps=EPS, dropout=0.5)
        return stream - 1, torch.autograd.grad(stream.sum(), branch)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        added, gradient = step()
    masks = []
    for _ in range(3):
        graph.replay()
        assert torch.equal(added, gradient)
        masks.append(added.clone())
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[1], masks[2])
