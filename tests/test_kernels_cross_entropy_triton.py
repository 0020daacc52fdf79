"""The Triton kernels of the cross-entropy against the reference: on a GPU, or where TRITON_INTERPRET=1 is set."""

from __future__ import annotations

import math
import os

import pytest
import torch

from cross_entropies import BIASES, Case, candidates, catalogue, errors, run, weighted
from seqrec.kernels.cross_entropy import linear_cross_entropy, shared_cross_entropy

pytest.importorskip("triton")
CUDA = torch.cuda.is_available()
if not CUDA and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

from seqrec.kernels.cross_entropy import triton_form, triton_plan  # noqa: E402
from seqrec.kernels.cross_entropy.triton_plan import Pass, Tiles  # noqa: E402

DEVICE = "cuda" if CUDA else "cpu"
on_a_gpu = pytest.mark.skipif(not CUDA, reason="needs a GPU")
SHAPES = [(1, 1, 16), (5, 3, 7), (33, 257, 24), (150, 70, 16)]


@pytest.fixture(params=["tiles", "small tiles"])
def _tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones make many tiles of little data, and parts."""
    if request.param == "small tiles":
        small = Tiles(Pass(16, 32, 4, 2, 1), Pass(32, 16, 4, 2, 1))
        monkeypatch.setattr(triton_form, "tiles", lambda rows: small)
        monkeypatch.setattr(triton_plan, "OVERHEAD", 0)


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("biased", "smoothing", "cosine"), [(False, 0.0, False), (False, 0.0, True), (True, 0.2, False), (True, 0.2, True)]
)
def test_kernels_are_the_reference(shape: tuple[int, int, int], biased: bool, smoothing: float, cosine: bool) -> None:
    case = catalogue(*shape, biased=biased, smoothing=smoothing, cosine=cosine)
    expected = run(case, "reference")
    for error, ref in zip(errors(run(case, "triton", torch.float32, DEVICE), expected), expected, strict=True):
        assert error < 1e-5 or ref.norm() < 1e-12


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("biased", "smoothing", "cosine"), [(False, 0.0, False), (True, 0.2, False), (True, 0.2, True)]
)
def test_losses_of_each_position_are_the_reference(
    shape: tuple[int, int, int], biased: bool, smoothing: float, cosine: bool
) -> None:
    case = weighted(catalogue(*shape, biased=biased, smoothing=smoothing, cosine=cosine))
    expected = run(case, "reference")
    for error, ref in zip(errors(run(case, "triton", torch.float32, DEVICE), expected), expected, strict=True):
        assert error < 1e-5 or ref.norm() < 1e-6


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("shape", [(1, 2, 16, 1), (60, 12, 5, 20), (70, 200, 24, 90)])
@pytest.mark.parametrize(("biased", "own_biased"), BIASES)
def test_kernels_among_candidates_are_the_reference(
    shape: tuple[int, int, int, int], biased: bool, own_biased: bool
) -> None:
    case = candidates(*shape, biased=biased, own_biased=own_biased)
    assert max(errors(run(case, "triton", torch.float32, DEVICE), run(case, "reference"))) < 1e-5


@pytest.mark.parametrize(
    "case", [catalogue(20, 30, 16, biased=True), candidates(20, 12, 16, 9, biased=True, own_biased=True)]
)
def test_tensors_with_gaps_are_the_same(case: Case) -> None:
    def spaced(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x, torch.full_like(x, 3)], -1)[..., 0]

    leaves = [None if x is None else spaced(x.to(DEVICE, torch.float32)).requires_grad_() for x in case.leaves]
    h, weight, bias, own, own_bias = [*leaves, None, None][:5]
    targets = spaced(case.targets.to(DEVICE))
    assert h is not None
    assert weight is not None
    if own is None or case.ids is None:
        loss = linear_cross_entropy(h, weight, targets, bias=bias, kernel="triton")
    else:
        ids = spaced(case.ids.to(DEVICE, torch.int32))
        loss = shared_cross_entropy(h, own, weight, targets, ids, own_bias=own_bias, bias=bias, kernel="triton")
    found = [loss, *torch.autograd.grad(1.7 * loss, [x for x in leaves if x is not None])]
    assert max(errors([x.detach().double().cpu() for x in found], run(case, "reference"))) < 1e-5


def test_work_is_cut_so_that_every_tile_is_met_once() -> None:
    like = torch.empty(0, 128)
    for rows in (1, 100, 14_600, 1_000_000):
        for others in (1, 63, 3416, 25_600, 1_000_000):
            cut = Pass(128, 64, 8, 3, 1)
            number, share = triton_plan.parts(rows, others, cut, like)
            tiles = -(-others // cut.met)
            assert (number - 1) * share < tiles <= number * share
            assert 1 <= number <= triton_plan.MOST
            assert number == 1 or number * rows * 128 <= triton_plan.NUMBERS


def test_small_gpus_get_tiles_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    wide, narrow = (torch.empty(0, width, dtype=torch.bfloat16) for width in (256, 128))
    assert triton_plan.tiles(wide) != triton_plan.TILES_SMALL
    monkeypatch.setattr(triton_plan, "shared_memory", lambda device: 102_400)
    assert triton_plan.tiles(wide) == triton_plan.TILES_SMALL != triton_plan.tiles(narrow)


def test_where_no_position_counts_nothing_is_lost_or_learned() -> None:
    case = catalogue(5, 4, 3, biased=True, smoothing=0.1)._replace(targets=torch.full((5,), -1))
    assert not any(part.any() for part in run(case, "triton", torch.float32, DEVICE))
    assert not any(part.any() for part in run(weighted(case), "triton", torch.float32, DEVICE))


def test_a_target_that_does_not_exist_makes_the_loss_nan() -> None:
    h, weight = torch.ones(3, 16, device=DEVICE), torch.ones(4, 16, device=DEVICE)
    for wrong in (4, -2):
        targets = torch.tensor([0, wrong, -1], device=DEVICE)
        assert math.isnan(linear_cross_entropy(h, weight, targets, kernel="triton").item())
        losses = linear_cross_entropy(h, weight, targets, reduction="none", kernel="triton")
        assert losses.isnan().tolist() == [False, True, False]


def test_hidden_states_without_a_target_do_not_matter() -> None:
    h, weight = torch.ones(3, 16, device=DEVICE), torch.ones(4, 16, device=DEVICE)
    h[2] = 1e30
    targets = torch.tensor([0, 1, -1], device=DEVICE)
    loss = linear_cross_entropy(h.requires_grad_(), weight.requires_grad_(), targets, kernel="triton")
    assert loss.item() == pytest.approx(math.log(4))
    assert all(torch.isfinite(part).all() for part in torch.autograd.grad(loss, (h, weight)))


def test_without_gradients_the_loss_is_the_same() -> None:
    case = catalogue(40, 30, 16)
    h, weight = (x.to(DEVICE, torch.float32) for x in case.leaves[:2] if x is not None)
    loss = linear_cross_entropy(h, weight, case.targets.to(DEVICE), kernel="triton")
    assert loss.item() == pytest.approx(float(run(case, "reference")[0]), rel=1e-6)


@on_a_gpu
@pytest.mark.parametrize("width", [16, 32, 64, 96, 128, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_as_torch_in_it(width: int, dtype: torch.dtype) -> None:
    case = catalogue(700, 1500, width, cosine=True)
    expected = run(case, "reference")
    inherent, found = (errors(run(case, kernel, dtype, DEVICE), expected) for kernel in ("reference", "triton"))
    assert all(error <= max(0.01, 1.5 * torchs) for error, torchs in zip(found, inherent, strict=True)), (
        found,
        inherent,
    )


@on_a_gpu
def test_steps_repeat_and_can_be_captured() -> None:
    generator = torch.Generator(DEVICE).manual_seed(0)
    h = torch.randn(2000, 128, device=DEVICE, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(3000, 128, device=DEVICE, generator=generator).requires_grad_()
    targets = torch.randint(3000, (2000,), device=DEVICE, generator=generator)

    def step() -> list[torch.Tensor]:
        loss = linear_cross_entropy(h, weight, targets, cosine=True, kernel="triton")
        return [loss, *torch.autograd.grad(loss, (h, weight))]

    expected = step()
    assert all(torch.equal(a, b) for a, b in zip(step(), expected, strict=True))
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        found = step()
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
