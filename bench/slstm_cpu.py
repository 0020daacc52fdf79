"""The sLSTM kernel on a CPU: forward and backward of the native form and of autograd through a loop over events.

python bench/slstm_cpu.py
"""

from __future__ import annotations

import time

import torch
from record import Row, record
from torch import Tensor

from seqrec.kernels.slstm import slstm

BATCH, WIDTH, HEADS = 128, 256, 4
LENGTHS, THREADS, REPEATS = (50, 200), (1, 2), 5
FORMS = {"native": "native", "autograd through events": "recurrent"}


def seconds(x: Tensor, r: Tensor, kernel: str) -> float:
    """Of one pass forward and back."""
    began = time.perf_counter()
    h = slstm(x, r, kernel=kernel)
    torch.autograd.grad(h, (x, r), torch.ones_like(h))
    return time.perf_counter() - began


def main() -> None:
    """Take turns, so that whatever else runs slows all alike; the least time counts."""
    generator = torch.Generator().manual_seed(0)
    head = WIDTH // HEADS
    r = (torch.randn(4, HEADS, head, head, generator=generator) * head**-0.5).requires_grad_()
    best: dict[tuple[int, int, str], float] = {}
    for _ in range(REPEATS):
        for length in LENGTHS:
            x = torch.randn(BATCH, length, 4, HEADS, head, generator=generator).requires_grad_()
            for threads in THREADS:
                torch.set_num_threads(threads)
                for form, kernel in FORMS.items():
                    key = (length, threads, form)
                    best[key] = min(best.get(key, float("inf")), seconds(x, r, kernel))
    rows = [
        Row(f"sLSTM, length {length}, {threads} thread{'s' * (threads > 1)}: {form}", f"{1000 * found:.1f}", "ms")
        for (length, threads, form), found in sorted(best.items(), key=lambda item: item[0][:2])
    ]
    protocol = f"Batch {BATCH}, width {WIDTH}, {HEADS} heads, float32; least of {REPEATS} passes forward and back."
    record("slstm-cpu", rows, protocol, device="cpu")


if __name__ == "__main__":
    main()
