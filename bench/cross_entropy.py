"""Cross-entropy over a catalogue, loss and gradients, on one GPU: beside cut-cross-entropy and Liger, in one table.

    SEQREC_BENCH_RESULTS=OUT python bench/cross_entropy.py

Everybody gets the same hidden states in bfloat16 and the same table of item vectors in float32, under autocast to
bfloat16, and gives the gradients of both. Hidden states are directions over a temperature of 0.07, as models make them;
one position in ten has no target. A figure is the median of several runs; runs wait behind a sleeping GPU until their
kernels are queued, where nothing in them waits for the GPU itself. Peak memory is what a run allocates beyond its
inputs, the gradient of the table included. Errors are ||x - ref|| / ||ref|| against float64 on the same numbers, on a
smaller sample. Contenders that are not installed, or fail, print why, and the others go on.

Shapes: T positions, N items, D width.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from record import Row, record
from torch import Tensor

from seqrec.kernels.cross_entropy import linear_cross_entropy

IGNORED, TEMPERATURE = -1, 0.07
OURS, COSINE, NATIVE, PLAIN = "ours", "ours, cosine", "ours in torch", "F.linear, F.cross_entropy"
CCE, EXACT, LIGER = "cut-cross-entropy", "cut-cross-entropy, exact", "Liger"
#: Milliseconds that a contender is timed for, about; and cycles for which the GPU sleeps before a run (about 0.5 ms).
LONG, SLEEP = 400, 1_000_000
#: Bytes of a matrix of scores in float32 above which the plain way is left out.
LARGEST = 8 * 2**30

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class Shape(NamedTuple):
    """The catalogue it is like, and its sizes."""

    name: str
    T: int
    N: int
    D: int

    def __str__(self) -> str:
        return f"{self.N:,} items, {self.T:,} positions, width {self.D}"


SHAPES = {
    "cuda": [
        Shape("a million items", 25_600, 1_000_000, 128),
        Shape("ML-20M", 25_600, 26_744, 256),
        Shape("ML-1M", 14_600, 3_416, 256),
    ],
    "cpu": [Shape("ML-100K", 2_560, 1_349, 64)],
}
SAMPLE = {"cuda": Shape("sample", 2_000, 20_000, 128), "cpu": Shape("sample", 200, 500, 64)}


class Found(NamedTuple):
    """Milliseconds and MiB."""

    ms: float
    peak: float


def inputs(shape: Shape, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states (T, D), the table (N, D) and targets (T,)."""
    generator = torch.Generator(device).manual_seed(0)
    h = torch.randn(shape.T, shape.D, device=device, generator=generator)
    h = (F.normalize(h, dim=-1) / TEMPERATURE).to(torch.bfloat16 if device == "cuda" else torch.float32)
    weight = torch.randn(shape.N, shape.D, device=device, generator=generator) * shape.D**-0.5
    targets = torch.randint(shape.N, (shape.T,), device=device, generator=generator)
    without = torch.rand(shape.T, device=device, generator=generator) < 0.1
    return h.requires_grad_(), weight.requires_grad_(), targets.masked_fill(without, IGNORED)


def ours(kernel: str, cosine: bool = False) -> Loss:
    def loss(h: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return linear_cross_entropy(h, weight, targets, ignore_index=IGNORED, cosine=cosine, kernel=kernel)

    return loss


def plain(h: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(h, weight).float(), targets, ignore_index=IGNORED)


def cut(preset: str) -> Loss:
    def loss(h: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        from cut_cross_entropy import linear_cross_entropy as theirs

        return theirs(h, weight, targets, ignore_index=IGNORED, impl=preset)

    return loss


def liger(h: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss(ignore_index=IGNORED)(weight, h, targets)


def contenders(shape: Shape, device: str) -> dict[str, Loss]:
    found = {OURS: ours("auto"), COSINE: ours("auto", cosine=True)}
    if 4 * shape.T * shape.N <= LARGEST:
        found[PLAIN] = plain
    if device == "cuda":
        found |= {NATIVE: ours("native"), EXACT: cut("cce_exact"), CCE: cut("cce"), LIGER: liger}
    return found


def step(loss: Loss, h: Tensor, weight: Tensor, targets: Tensor) -> list[Tensor]:
    """The loss and the gradients of h and weight."""
    with torch.autocast(h.device.type, torch.bfloat16, enabled=h.is_cuda):
        value = loss(h, weight, targets)
    return [value.detach(), *torch.autograd.grad(value, (h, weight))]


def measure(loss: Loss, shape: Shape, device: str) -> Found:
    given = inputs(shape, device)
    if device == "cpu":
        return Found(min(_seconds(loss, given) for _ in range(5)) * 1e3, float("nan"))
    step(loss, *given)  # compiles
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    once = _seconds(loss, given)
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    pairs = []
    for _ in range(max(3, min(30, int(LONG / 1e3 / once)))):
        pairs.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
        torch.cuda._sleep(SLEEP)
        pairs[-1][0].record()
        step(loss, *given)
        pairs[-1][1].record()
    torch.cuda.synchronize()
    return Found(statistics.median(begin.elapsed_time(end) for begin, end in pairs), peak)


def _seconds(loss: Loss, given: tuple[Tensor, Tensor, Tensor]) -> float:
    start = time.perf_counter()
    step(loss, *given)
    if given[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def exact(shape: Shape, device: str, cosine: bool) -> list[Tensor]:
    """Loss and gradients in float64."""
    h, weight, targets = inputs(shape, device)
    wide = [x.detach().double().requires_grad_() for x in (h, weight)]
    return step(ours("reference", cosine), *wide, targets)


def errors(loss: Loss, shape: Shape, device: str, expected: list[Tensor]) -> list[float]:
    found = step(loss, *inputs(shape, device))
    return [float((x.double() - ref).norm() / ref.norm()) for x, ref in zip(found, expected, strict=True)]


def tolerant(what: str, run: Callable[[], object]) -> object:
    """What `run` gives, or None and a line that says why not."""
    try:
        return run()
    except Exception as error:
        print(f"    {what} failed: {type(error).__name__}: {str(error).strip()[:300]}", flush=True)
        return None
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def race(shape: Shape, device: str) -> list[Row]:
    """Times and memory of all at one shape."""
    rows, found = [], {}
    for name, loss in contenders(shape, device).items():
        result = tolerant(f"{name} at {shape}", lambda loss=loss: measure(loss, shape, device))  # type: ignore[misc]
        if not isinstance(result, Found):
            rows.append(Row(f"{shape}: {name}", "failed", "ms"))
            continue
        found[name] = result
        flops = 8 * shape.T * shape.N * shape.D / result.ms / 1e9
        print(
            f"  {shape.name:<16} {name:<26} {result.ms:9.3f} ms {result.peak:8.0f} MiB {flops:6.0f} TFLOP/s", flush=True
        )
        rows.append(Row(f"{shape}: {name}", f"{result.ms:.3f}", "ms"))
        goal = "<= 2048" if name == OURS and shape.N >= 1_000_000 else ""
        rows.append(Row(f"{shape}: {name}, peak above inputs", f"{result.peak:.0f}", "MiB", goal))
    for rival in (EXACT, CCE, LIGER):
        if OURS in found and rival in found:
            goal = "< 1" if rival == EXACT else ""
            rows.append(Row(f"{shape}: ours / {rival}", f"{found[OURS].ms / found[rival].ms:.2f}", "x", goal))
    return rows


def accuracy(device: str) -> list[Row]:
    """Errors of the loss, of the gradient of h and of the table's."""
    rows, shape = [], SAMPLE[device]
    expected = {cosine: exact(shape, device, cosine) for cosine in (False, True)}
    for name, loss in contenders(shape, device).items():
        wanted = expected[name == COSINE]
        found = tolerant(name, lambda loss=loss, wanted=wanted: errors(loss, shape, device, wanted))  # type: ignore[misc]
        value = "; ".join(f"{error:.1e}" for error in found) if isinstance(found, list) else "failed"
        rows.append(Row(f"error of loss; d hidden; d table: {name}", value, ""))
    return rows


def met(row: Row) -> bool:
    """Whether the goal of a row is reached; failures reach none."""
    if not row.goal:
        return True
    sign, bound = row.goal.split()
    try:
        value = float(row.value)
    except ValueError:
        return False
    return value <= float(bound) if sign == "<=" else value < float(bound)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu tries the script out")
    device = parser.parse_args().device
    if "OUT" in os.environ:
        os.environ.setdefault("SEQREC_BENCH_RESULTS", os.environ["OUT"])
    rows = accuracy(device)
    for shape in SHAPES[device]:
        rows += race(shape, device)
    protocol = (
        "Loss and gradients of hidden states (bfloat16) and item vectors (a float32 table), autocast to bfloat16, one "
        "position in ten without a target; median. Peak: beyond inputs, the table's gradient included. Errors: "
        f"||x - ref|| / ||ref|| to float64, {SAMPLE[device]}."
    )
    record("cross-entropy", rows, protocol, device=device)
    missed = [row for row in rows if not met(row)]
    for row in missed:
        print(f"missed: {row.metric} is {row.value}, goal {row.goal}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
