"""The mLSTM kernel alone on a CPU, forward and backward, beside every native form of `mlstm_kernels`, in one process.

    python bench/mlstm_cpu.py

Ours is what `auto` chooses, on q, k, v as models make them, (B, L, H, K) in memory seen as (B, H, L, K). The peer gets
them contiguous and filled up to whole chunks before the clock starts. Each of its forms runs once at each of its chunk
sizes; the fastest few then take turns with ours, so that whatever else runs slows all alike, and the least time counts.

Shapes: B rows, H heads, L positions, K width of a head.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from record import Row, record
from torch import Tensor

from seqrec.errors import MissingExtraError
from seqrec.kernels.mlstm import mlstm

BATCH, WIDTH = 128, 64
LENGTHS, HEADS, THREADS = (50, 200, 1000), (2, 4), (1, 2)
CHUNKS = (16, 32, 64, 128, 256)
#: Longest sequence at which the parallel forms of the peer, quadratic in length, are tried.
QUADRATIC = 256
#: Forms of the peer that take turns with ours.
FINALISTS = 3

Inputs = tuple[Tensor, ...]
Run = Callable[[], float]


def inputs(length: int, heads: int) -> Inputs:
    """q, k, v, i, f with gradients, laid out in memory as models lay them out."""
    torch.manual_seed(0)
    wide = [torch.randn(BATCH, length, heads, WIDTH).transpose(1, 2) for _ in range(3)]
    i, f = torch.randn(BATCH, length, 2 * heads).mT.chunk(2, 1)
    return tuple(x.detach().requires_grad_() for x in (*wide, i, f + 4))


def filled(x: Inputs, multiple: int) -> Inputs:
    """Contiguous, and as long as whole chunks are."""
    fill = -x[0].shape[2] % multiple
    padded = (F.pad(part.detach(), (0, 0, 0, fill) if part.dim() == 4 else (0, fill)) for part in x)
    return tuple(part.contiguous().requires_grad_() for part in padded)


def seconds(form: Callable[..., Tensor], x: Inputs, direction: Tensor) -> float:
    """Of one pass forward and back."""
    began = time.perf_counter()
    torch.autograd.grad(form(*x), x, direction)
    return time.perf_counter() - began


def peer_forms(x: Inputs) -> dict[str, Run]:
    """Every native form at every chunk size that is not more than twice the length."""
    try:
        from mlstm_kernels.torch import get_mlstm_kernel
    except ImportError as missing:
        raise MissingExtraError("mlstm_kernels (NXAI Community License, not open source)", "nxai") from missing
    length, forms = x[0].shape[2], {}
    choices = [("chunkwise--native_autograd", c) for c in CHUNKS] + [("chunkwise--native_custbw", c) for c in CHUNKS]
    if length <= QUADRATIC:
        kinds = ("native_autograd", "native_custbw", "native_stablef_autograd", "native_stablef_custbw")
        choices += [(f"parallel--{kind}", 1) for kind in kinds]
    expected = mlstm(*x).detach()
    for name, chunk in choices:
        if chunk > 2 * length:
            continue
        whole = filled(x, chunk)
        form = partial(get_mlstm_kernel(name), chunk_size=chunk)
        with torch.no_grad():
            torch.testing.assert_close(form(*whole)[:, :, :length], expected, rtol=1e-2, atol=1e-2)
        label = name if chunk == 1 else f"{name}, chunk {chunk}"
        forms[label] = partial(seconds, form, whole, torch.randn_like(whole[2].detach()))
    return forms


def compare(length: int, heads: int, repeats: int) -> list[Row]:
    x = inputs(length, heads)
    ours: Run = partial(seconds, mlstm, x, torch.randn_like(x[2].detach()))
    torch.set_num_threads(max(THREADS))
    forms, rows = peer_forms(x), []
    tried = {label: run() for label, run in forms.items()}
    runs = {"ours": ours} | {label: forms[label] for label in sorted(tried, key=tried.__getitem__)[:FINALISTS]}
    for threads in THREADS:
        torch.set_num_threads(threads)
        best = {label: min(taken) for label, taken in zip(runs, take_turns(runs, repeats), strict=True)}
        mine, (peer, theirs) = best.pop("ours"), min(best.items(), key=lambda item: item[1])
        what = f"mLSTM, length {length}, {heads} heads of {WIDTH}, {threads} thread{'s' * (threads > 1)}"
        rows.append(Row(f"{what}: ours", f"{1000 * mine:.1f}", "ms", f"<= {1000 * theirs:.1f}"))
        print(rows[-1], flush=True)
        rows.append(Row(f"{what}: mlstm_kernels ({peer})", f"{1000 * theirs:.1f}", "ms"))
    return rows


def take_turns(runs: dict[str, Run], repeats: int) -> list[tuple[float, ...]]:
    return list(zip(*([run() for run in runs.values()] for _ in range(repeats)), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="passes of each form that takes turns")
    repeats = parser.parse_args().repeats
    rows = [row for length in LENGTHS for heads in HEADS for row in compare(length, heads, repeats)]
    protocol = (
        f"Forward and backward of the kernel alone, batch {BATCH}, float32; ours picks its form itself, of "
        f"mlstm_kernels the fastest native form and chunk size; one process, in turns, least of {repeats} passes."
    )
    record("mlstm-cpu", rows, protocol, device="cpu")


if __name__ == "__main__":
    main()
