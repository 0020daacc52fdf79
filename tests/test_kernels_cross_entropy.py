"""The cross-entropy over many items: the reference against loops, the native form against the reference."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cross_entropies import BIASES, Case, candidates, catalogue, errors, run, weighted
from seqrec.errors import ConfigError
from seqrec.kernels.cross_entropy import linear_cross_entropy, native, shared_cross_entropy

SHAPES = [(1, 1, 1), (7, 1, 3), (40, 30, 5), (90, 70, 16)]


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def negative_log(target: float, scores: list[float]) -> float:
    """-log of the target's share among all `scores`, of which it is one."""
    top = max(scores)
    return top + math.log(math.fsum(math.exp(score - top) for score in scores)) - target


def rows(x: Tensor | None) -> list[list[float]]:
    return [] if x is None else x.tolist()


def slow(case: Case) -> float:
    """The mean over counted positions, in Python's floats."""
    h, weight, bias, *own = case.leaves
    vectors = [[x / math.sqrt(dot(w, w)) for x in w] if case.cosine else w for w in rows(weight)]
    offsets = [0.0] * len(vectors) if bias is None else bias.tolist()
    losses, counts = [], []
    for t, (state, target) in enumerate(zip(rows(h), case.targets.tolist(), strict=True)):
        if target == -1:
            continue
        counts.append(1.0 if case.weights is None else float(case.weights[t]))
        scores = [dot(state, vector) + offset for vector, offset in zip(vectors, offsets, strict=True)]
        if case.ids is None:
            spread = math.fsum(negative_log(score, scores) for score in scores) / len(scores)
            losses.append((1 - case.smoothing) * negative_log(scores[target], scores) + case.smoothing * spread)
        else:
            mine = dot(state, rows(own[0])[t]) + (0.0 if own[1] is None else float(own[1][t]))
            rivals = [score for score, item in zip(scores, case.ids.tolist(), strict=True) if item != target]
            losses.append(negative_log(mine, [mine, *rivals]))
    total = math.fsum(count * loss for count, loss in zip(counts, losses, strict=True))
    return total if case.weights is not None else total / len(losses)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "BLOCK", 1)
    monkeypatch.setattr(native, "FEWEST", 16)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kernel", ["reference", "native"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("cosine", [False, True])
def test_loss_is_that_of_a_loop(
    kernel: str, shape: tuple[int, int, int], biased: bool, smoothing: float, cosine: bool
) -> None:
    case = catalogue(*shape, biased=biased, smoothing=smoothing, cosine=cosine)
    assert float(run(case, kernel)[0]) == pytest.approx(slow(case), rel=1e-12, abs=1e-12)
    each = weighted(case)
    assert float(run(each, kernel)[0]) == pytest.approx(slow(each), rel=1e-11, abs=1e-11)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kernel", ["reference", "native"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (9, 2, 3, 1), (60, 12, 5, 20)])
@pytest.mark.parametrize(("biased", "own_biased"), BIASES)
def test_loss_among_candidates_is_that_of_a_loop(
    kernel: str, shape: tuple[int, int, int, int], biased: bool, own_biased: bool
) -> None:
    case = candidates(*shape, biased=biased, own_biased=own_biased)
    assert float(run(case, kernel)[0]) == pytest.approx(slow(case), rel=1e-12, abs=1e-12)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("cosine", [False, True])
def test_native_gradients_are_the_reference(
    dtype: torch.dtype, tolerance: float, shape: tuple[int, int, int], biased: bool, smoothing: float, cosine: bool
) -> None:
    case = catalogue(*shape, biased=biased, smoothing=smoothing, cosine=cosine)
    # One item leaves nothing to learn, and one number has no direction: gradients are zero, errors absolute.
    for given in (case, weighted(case)):
        expected = run(given, "reference")
        for error, ref in zip(errors(run(given, "native", dtype), expected), expected, strict=True):
            assert error < tolerance or ref.norm() < 1e-12


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("biased", "own_biased"), BIASES)
def test_native_gradients_among_candidates_are_the_reference(
    dtype: torch.dtype, tolerance: float, biased: bool, own_biased: bool
) -> None:
    case = candidates(60, 12, 5, 20, biased=biased, own_biased=own_biased)
    assert max(errors(run(case, "native", dtype), run(case, "reference"))) < tolerance


def test_reference_is_torchs_cross_entropy() -> None:
    case = catalogue(40, 30, 5, biased=True, smoothing=0.1)
    h, weight, bias = case.leaves
    assert h is not None
    assert weight is not None
    expected = F.cross_entropy(F.linear(h, weight, bias), case.targets, ignore_index=-1, label_smoothing=0.1)
    torch.testing.assert_close(run(case, "reference")[0], expected)


@pytest.mark.parametrize("kernel", ["reference", "native"])
def test_gradients_are_those_of_finite_differences(kernel: str) -> None:
    case = catalogue(6, 5, 3, biased=True, smoothing=0.1, cosine=True)
    leaves = [x.requires_grad_() for x in case.leaves if x is not None]

    def loss(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_cross_entropy(h, weight, case.targets, bias=bias, label_smoothing=0.1, cosine=True, kernel=kernel)

    def losses(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_cross_entropy(
            h, weight, case.targets, bias=bias, label_smoothing=0.1, cosine=True, reduction="none", kernel=kernel
        )

    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.autograd.gradcheck(losses, leaves)


@pytest.mark.parametrize("kernel", ["reference", "native"])
def test_where_no_position_counts_nothing_is_lost_or_learned(kernel: str) -> None:
    case = catalogue(5, 4, 3, biased=True, smoothing=0.1)._replace(targets=torch.full((5,), -1))
    assert not any(part.any() for part in run(case, kernel))
    assert not any(part.any() for part in run(weighted(case), kernel))
    assert not any(part.any() for part in run(candidates(5, 4, 3, 6)._replace(targets=case.targets), kernel))


@pytest.mark.parametrize("kernel", ["reference", "native", "auto"])
def test_no_positions_at_all(kernel: str) -> None:
    h = torch.zeros(0, 3, requires_grad=True)
    loss = linear_cross_entropy(h, torch.ones(4, 3), torch.zeros(0, dtype=torch.int64), kernel=kernel)
    loss.backward()
    assert loss.item() == 0
    assert h.grad is not None


@pytest.mark.parametrize("kernel", ["reference", "native"])
def test_huge_scores_do_not_overflow(kernel: str) -> None:
    h, weight = torch.ones(2, 1, requires_grad=True), torch.tensor([[1e4], [-1e4]])
    loss = linear_cross_entropy(h, weight, torch.tensor([0, 1]), kernel=kernel)
    (gradient,) = torch.autograd.grad(loss, h)
    assert loss.item() == pytest.approx(1e4)
    torch.testing.assert_close(gradient, torch.tensor([[0.0], [1e4]]))


@pytest.mark.parametrize("kernel", ["reference", "native"])
def test_what_is_not_a_number_shows(kernel: str) -> None:
    h = torch.tensor([[1.0], [math.nan]])
    loss = linear_cross_entropy(h, torch.ones(3, 1), torch.tensor([0, 1]), kernel=kernel)
    assert math.isnan(loss.item())
    losses = linear_cross_entropy(h, torch.ones(3, 1), torch.tensor([0, 1]), reduction="none", kernel=kernel)
    assert losses.isnan().tolist() == [False, True]
    ignored = linear_cross_entropy(h, torch.ones(3, 1), torch.tensor([0, -1]), kernel=kernel)
    assert ignored.item() == pytest.approx(math.log(3))


def test_a_candidate_that_is_every_positions_target_is_no_rival() -> None:
    h, own, rivals = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0)).unbind()
    targets, ids = torch.full((4,), 7), torch.full((4,), 7)
    for kernel in ("reference", "native"):
        assert shared_cross_entropy(h, own, rivals, targets, ids, kernel=kernel).item() == pytest.approx(0)


def test_half_precision_on_a_cpu_is_multiplied_in_float32() -> None:
    case = catalogue(40, 30, 16)
    h, weight, _ = case.leaves
    assert h is not None
    rounded = case._replace(leaves=[h.bfloat16().double(), weight, None])
    found, expected = run(rounded, "native", torch.bfloat16), run(rounded, "reference")
    assert max(errors(found[:1] + found[2:], expected[:1] + expected[2:])) < 1e-5
    assert errors(found, expected)[1] < 5e-3  # of h, in its own precision


def test_a_backward_pass_can_be_repeated() -> None:
    case = catalogue(20, 10, 4)
    h = case.leaves[0]
    assert h is not None
    loss = linear_cross_entropy(h.requires_grad_(), torch.ones(10, 4).double().cumsum(0), case.targets)
    first = torch.autograd.grad(loss, h, retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(loss, h)[0])


def test_native_never_holds_the_matrix_of_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "BLOCK", 64 * 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            found = func(*args, **(kwargs or {}))
            if isinstance(found, Tensor):
                largest = max(largest, found.numel())
            return found

    with Watch():
        h, weight = torch.randn(1000, 8, requires_grad=True), torch.randn(100, 8, requires_grad=True)
        linear_cross_entropy(h, weight, torch.arange(1000) % 100).backward()
    assert largest == max(1000 * 8, 64 * 100)


@pytest.mark.parametrize("kernel", ["fused", ""])
def test_unknown_kernels_are_refused(kernel: str) -> None:
    with pytest.raises(ConfigError, match="native"):
        linear_cross_entropy(torch.ones(1, 16), torch.ones(2, 16), torch.zeros(1, dtype=torch.int64), kernel=kernel)


@pytest.mark.parametrize(("width", "dtype"), [(257, torch.float32), (129, torch.float32), (16, torch.float64)])
def test_triton_refuses_what_it_cannot_hold(width: int, dtype: torch.dtype) -> None:
    h = torch.ones(1, width, dtype=dtype)
    with pytest.raises(ConfigError, match=f"256 in 16 bits and 128 in 32, not {width} in"):
        linear_cross_entropy(h, h, torch.zeros(1, dtype=torch.int64), kernel="triton")


def test_triton_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    h = torch.ones(1, 16)
    with pytest.raises(ConfigError, match="runs on a GPU, not on cpu"):
        linear_cross_entropy(h, h, torch.zeros(1, dtype=torch.int64), kernel="triton")


def test_a_traced_graph_runs_the_reference() -> None:
    case = catalogue(12, 9, 4, cosine=True)
    h, weight, _ = case.leaves
    traced = torch.compile(
        lambda h, weight: linear_cross_entropy(h, weight, case.targets, cosine=True), backend="eager", fullgraph=True
    )
    assert traced(h, weight).item() == pytest.approx(slow(case))
