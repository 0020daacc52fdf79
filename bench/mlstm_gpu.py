"""The mLSTM kernel alone on one GPU, forward and backward, beside `mlstm_kernels` and attention, in one table.

    SEQREC_BENCH_RESULTS=OUT python bench/mlstm_gpu.py

The same tokens, width and heads at every length, in bfloat16 with gates in float32. Ours and attention get q, k, v as
models make them, (B, L, H, K) in memory seen as (B, H, L, K); mlstm_kernels gets them contiguous and filled up to the
lengths it takes, before the clock starts. Of mlstm_kernels the fastest of its Triton kernels at that length counts.
Each figure is the median of many runs with a cold L2 cache; runs wait behind a sleeping GPU until all their kernels
are queued, so that launches are not measured. Before timing, ours is held against float64; NaN passes nothing.

Shapes: B rows, H heads, L positions, K width of a head.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from record import Row, record
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from seqrec.kernels.mlstm import mlstm
from seqrec.kernels.mlstm.nxai import KEPT, cuda_chunk
from seqrec.kernels.mlstm.reference import parallel
from seqrec.kernels.mlstm.state import CLOSED

LENGTHS, TOKENS, HEADS, WIDTH = (50, 200, 1024, 4096, 16384), 102_400, 4, 64
OURS, PEER, FLASH, CUDNN, SLSTM = "ours", "mlstm_kernels", "SDPA flash", "SDPA cuDNN", "our sLSTM"
#: Most runs per figure, and cycles for which the GPU sleeps while a run is being queued (about 2 ms).
RUNS, SLEEP = 50, 4_000_000
TOLERANCES = {torch.bfloat16: 2e-2, torch.float32: 1e-5}

Inputs = tuple[Tensor, ...]


class Times(NamedTuple):
    """Milliseconds; both is forward and backward together."""

    forward: float
    backward: float
    both: float
    note: str = ""


def inputs(batch: int, length: int, heads: int, device: str, dtype: torch.dtype) -> Inputs:
    """q, k, v, i, f with gradients, laid out in memory as models lay them out."""
    wide = [torch.randn(batch, length, heads, WIDTH, device=device).to(dtype).transpose(1, 2) for _ in range(3)]
    i, f = torch.randn(batch, length, 2 * heads, device=device).mT.chunk(2, 1)
    return tuple(x.detach().requires_grad_() for x in (*wide, i, f + 4))


def filled(x: Inputs, multiple: int) -> Inputs:
    """Contiguous, and with closed positions behind, up to a multiple of that many."""
    fill = -x[0].shape[2] % multiple
    wide = [F.pad(part, (0, 0, 0, fill)) for part in x[:3]]
    gates = F.pad(x[3], (0, fill), value=CLOSED), F.pad(x[4], (0, fill), value=KEPT)
    return tuple(part.contiguous().detach().requires_grad_() for part in (*wide, *gates))


def attention(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def measure(run: Callable[..., Tensor], x: Inputs) -> Times:
    """Times of `run(*x)`, of its backward pass, and of both."""
    h = run(*x)
    # The gradient has the layout of h as models read it; of mlstm_kernels, whose q is contiguous, its own.
    like = h if x[0].is_contiguous() else h.transpose(1, 2).contiguous().transpose(1, 2)
    gradient = torch.randn_like(like)
    backward = partial(torch.autograd.grad, h, x, gradient, retain_graph=True)
    clock = _cuda_ms if h.is_cuda else _cpu_ms
    return Times(clock(lambda: run(*x)), clock(backward), clock(lambda: torch.autograd.grad(run(*x), x, gradient)))


def _cuda_ms(run: Callable[[], object]) -> float:
    cache = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")
    run()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    once = 1e3 * (time.perf_counter() - start) / 3
    pairs = []
    for _ in range(max(15, min(RUNS, int(60 / once)))):
        cache.zero_()
        torch.cuda._sleep(SLEEP)
        pairs.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
        pairs[-1][0].record()
        run()
        pairs[-1][1].record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in pairs)


def _cpu_ms(run: Callable[[], object]) -> float:
    found = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        found.append(1e3 * (time.perf_counter() - start))
    return min(found)


def peer_candidates(length: int, device: str) -> list[tuple[str, int, int]]:
    """Kernel of mlstm_kernels, chunk size, and the multiple its length has to be."""
    if device == "cpu":
        return [("chunkwise--native_custbw", 16, 16), ("parallel--native_custbw", 0, 1)]
    least = cuda_chunk(length)
    chunks = [least] if least < 128 else [64, 128, 256]
    found = [("chunkwise--triton_xl_chunk", chunk, max(chunk, 128) if length > 64 else chunk) for chunk in chunks]
    found += [("chunkwise--triton_limit_chunk", chunk, chunk) for chunk in (32, 64) if chunk < 2 * length]
    return found + ([("parallel--triton_limit_headdim", 0, 64)] if length <= 1024 else [])


def peer(length: int, batch: int, device: str) -> Times:
    """The fastest of its kernels, forward and backward together, among those that are right on the first head."""
    from mlstm_kernels.torch import get_mlstm_kernel

    x = inputs(batch, length, HEADS, device, timed_dtype(device))
    expected = parallel(*(part[:1, :1].detach().float() for part in x))
    found: list[Times] = []
    for name, chunk, multiple in peer_candidates(length, device):
        run = partial(get_mlstm_kernel(name), **({"chunk_size": chunk} if chunk else {}))
        with Tolerant(f"{name} {chunk} at {length}"):
            fitting = filled(x, multiple)
            off = distance(run(*fitting)[:1, :1, :length], expected)
            if not off <= 0.1:
                raise ArithmeticError(f"hidden states are off by {off:.1e}")
            times = measure(run, fitting)
            print(f"    {name} {chunk}: {times.both:.3f} ms", flush=True)
            found.append(times._replace(note=f"{name.split('--')[1]}{f', chunks of {chunk}' if chunk else ''}"))
    return min(found, key=lambda times: times.both)


def slstm_times(batch: int, length: int, device: str) -> Times:
    from seqrec.kernels.slstm import slstm

    x, r = slstm_inputs(batch, length, HEADS, device, timed_dtype(device))
    return measure(partial(slstm, kernel=form(device)), (x, r))


def slstm_inputs(batch: int, length: int, heads: int, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = torch.randn(batch, length, 4, heads, WIDTH, device=device)
    r = torch.randn(4, heads, WIDTH, WIDTH, device=device) * WIDTH**-0.5
    return x.to(dtype).requires_grad_(), r.to(dtype).requires_grad_()


class Tolerant:
    """A contender that fails prints why, and the others go on."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, Exception):
            print(f"    {self.what} failed: {type(error).__name__}: {str(error).strip()[:400]}", flush=True)
            return True
        return False


def timed_dtype(device: str) -> torch.dtype:
    return torch.bfloat16 if device == "cuda" else torch.float32


def form(device: str) -> str:
    return "triton" if device == "cuda" else "native"


def contenders(length: int, batch: int, device: str) -> dict[str, Callable[[], Times]]:
    """All but mlstm_kernels."""
    x = inputs(batch, length, HEADS, device, timed_dtype(device))
    found = {
        OURS: lambda: measure(partial(mlstm, kernel=form(device)), x),
        FLASH: lambda: measure(partial(attention, SDPBackend.FLASH_ATTENTION), x[:3]),
    }
    if device == "cuda":
        found[CUDNN] = lambda: measure(partial(attention, SDPBackend.CUDNN_ATTENTION), x[:3])
    if length == 200:
        found[SLSTM] = lambda: slstm_times(batch, length, device)
    return found


def race(lengths: list[int], tokens: int, device: str) -> dict[int, dict[str, Times]]:
    """Every contender at every length, in one process, one after the other. mlstm_kernels comes last: what it might
    do to the process harms nobody then."""
    found: dict[int, dict[str, Times]] = {length: {} for length in lengths}

    def take(length: int, name: str, run: Callable[[], Times]) -> None:
        with Tolerant(f"{name} at {length}"):
            found[length][name] = run()
            print(f"  {length:>6} {name:<14} {' '.join(f'{ms:8.3f}' for ms in found[length][name][:3])} ms", flush=True)

    batches = {length: max(1, tokens // length) for length in lengths}
    for length, batch in batches.items():
        for name, run in contenders(length, batch, device).items():
            take(length, name, run)
    for length, batch in batches.items():
        take(length, PEER, partial(peer, length, batch, device))
    return found


def timing_rows(length: int, found: dict[str, Times]) -> list[Row]:
    rows = []
    for name, times in found.items():
        note = f" ({times.note})" if times.note else ""
        rows.append(Row(f"L {length}: {name}{note}", f"{times.both:.3f}", "ms"))
        rows.append(Row(f"L {length}: {name}, forward; backward", f"{times.forward:.3f}; {times.backward:.3f}", "ms"))
    short = length <= 200
    ratios = [(OURS, FLASH, "<= 1.25" if short else "< 1" if length >= 4096 else "")]
    ratios += [(PEER, OURS, ">= 2")] if short else [(OURS, PEER, "<= 1.2" if length >= 4096 else "")]
    ratios += [(SLSTM, OURS, "<= 8")] if length == 200 else []
    for above, below, goal in ratios:
        ratio = f"{found[above].both / found[below].both:.2f}" if above in found and below in found else "failed"
        rows.append(Row(f"L {length}: {above} / {below}", ratio, "x", goal))
    return rows


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().double() - expected.detach()).norm() / expected.detach().norm())


def errors(run: Callable[..., Tensor], reference: Callable[..., Tensor], x: Inputs) -> list[float]:
    """||x - ref|| / ||ref|| of h and of every gradient, against `reference` in float64 on the same numbers."""
    exact = tuple(part.detach().double().requires_grad_() for part in x)
    expected = reference(*exact)
    gradient = torch.randn_like(expected).to(x[0].dtype)
    expected_gradients = torch.autograd.grad(expected, exact, gradient.double())
    found = run(*x)
    pairs = zip(torch.autograd.grad(found, x, gradient), expected_gradients, strict=True)
    return [distance(found, expected), *(distance(ours, theirs) for ours, theirs in pairs)]


def accuracy_rows(lengths: list[int], device: str) -> list[Row]:
    """Ours against the quadratic form in float64, with few rows."""
    rows = []
    for dtype in TOLERANCES:
        for length in (length for length in lengths if length <= 1024):
            x = inputs(2, length, HEADS, device, dtype)
            rows.append(accuracy_row(f"mLSTM, L {length}", partial(mlstm, kernel=form(device)), parallel, x))
        with Tolerant("sLSTM accuracy"):
            from seqrec.kernels.slstm import slstm

            x = slstm_inputs(16, 50, HEADS, device, dtype)
            rows.append(accuracy_row("sLSTM, L 50", partial(slstm, kernel=form(device)), slstm_reference, x))
    return rows


def slstm_reference(x: Tensor, r: Tensor) -> Tensor:
    from seqrec.kernels.slstm import slstm

    return slstm(x, r, kernel="recurrent")


def accuracy_row(what: str, run: Callable[..., Tensor], reference: Callable[..., Tensor], x: Inputs) -> Row:
    """The worst of `errors`, NaN where any is; meant to be no more than the plain form's in the same precision."""
    worst, dtype, goal = "failed", str(x[0].dtype).removeprefix("torch."), TOLERANCES[x[0].dtype]
    with Tolerant(f"{what} in {dtype}"):
        found, plain = errors(run, reference, x), errors(reference, reference, x)
        print(f"  {what} {dtype}: h and gradients off by {' '.join(f'{error:.1e}' for error in found)}", flush=True)
        worst = f"{torch.tensor(found).max():.1e}"  # unlike Python's max, NaN if there is one
        goal = max(goal, float(torch.tensor(plain).nan_to_num(posinf=0.0).max()))
    return Row(f"{what}, {dtype}: worst error of h and gradients", worst, "", f"<= {goal:.1e}")


def met(row: Row) -> bool:
    """Whether the goal of a row is reached; NaN and failures reach none."""
    if not row.goal:
        return True
    sign, bound = row.goal.split()
    try:
        value = float(row.value)
    except ValueError:
        return False
    return {"<=": value <= float(bound), "<": value < float(bound), ">=": value >= float(bound)}[sign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu tries the script out")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    arguments = parser.parse_args()
    if "OUT" in os.environ:
        os.environ.setdefault("SEQREC_BENCH_RESULTS", os.environ["OUT"])
    torch.manual_seed(0)
    rows = accuracy_rows(arguments.lengths, arguments.device)
    for length, found in race(arguments.lengths, arguments.tokens, arguments.device).items():
        rows += timing_rows(length, found)
    protocol = (
        f"The kernel alone (q, k, v, gates -> h), forward and backward, bfloat16, {arguments.tokens:,} tokens (rows "
        f"rounded down), {HEADS} heads of {WIDTH}; median, cold L2 cache, launches not counted. mlstm_kernels: the "
        "fastest of its Triton kernels and chunk sizes, padding as it needs. Errors: ||x - ref|| / ||ref|| to float64."
    )
    record("mlstm-gpu", rows, protocol, device=arguments.device)
    missed = [row for row in rows if not met(row)]
    for row in missed:
        print(f"missed: {row.metric} is {row.value}, goal {row.goal}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
