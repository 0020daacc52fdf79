"""The matrix products of one training step, counted, and timed alone: what a step would take if it were nothing else.

Counted are the products of layers and of scores, forward and backward. Attention, cells and everything elementwise are
left out, so a utilisation that rests on them is on the low side.

Shapes: T positions of a batch, D width, N items that are scored.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seqrec.data.batches import Batch
from seqrec.models.base import SequenceModel

#: (m, k, n): an m x k matrix times a k x n one.
Product = tuple[int, int, int]
#: Side of the square product that a device's peak is measured with.
PEAK_SIDE = {"cuda": 8192, "cpu": 2048}


class _Seen(TorchDispatchMode):
    """Counts the plain matrix products that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            first = 0 if func.overloadpacket is torch.ops.aten.mm else 1  # behind what is added
            a, b = args[first : first + 2]
            self.products[a.shape[0], a.shape[1], b.shape[1]] += 1
        return func(*args, **(kwargs or {}))


def products_of(model: SequenceModel, batch: Batch, bfloat16: bool, scored: int) -> Counter[Product]:
    """Every product of a step on this batch, the loss's too.

    The model has no gradients afterwards.

    Args:
        scored: items (N) that the loss compares each position with.
    """
    inputs, _ = model.training_batch(batch)
    with _Seen() as seen:
        with torch.autocast(batch.items.device.type, torch.bfloat16, enabled=bfloat16):
            h_TD = model.encode(inputs).flatten(0, 1)
        h_TD.sum().backward()
    model.zero_grad(set_to_none=True)
    (T, D), N = h_TD.shape, scored
    return seen.products + Counter([(T, D, N), (T, N, D), (N, T, D)])


def flops(products: Counter[Product]) -> float:
    """Floating point operations: two for each multiplication with its addition."""
    return float(sum(2 * m * k * n * count for (m, k, n), count in products.items()))


def seconds_alone(products: Counter[Product], device: torch.device, dtype: torch.dtype) -> float:
    """Seconds that the products take one by one, each the median of several runs on random numbers."""
    return sum(_seconds(product, device, dtype) * count for product, count in products.items())


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large square product: what this device reaches at best."""
    side = PEAK_SIDE[device.type]
    return 2 * side**3 / _seconds((side, side, side), device, dtype)


def _seconds(product: Product, device: torch.device, dtype: torch.dtype, runs: int = 7) -> float:
    m, k, n = product
    a, b = torch.randn(m, k, device=device, dtype=dtype), torch.randn(k, n, device=device, dtype=dtype)
    timed = _on_gpu if device.type == "cuda" else _on_cpu
    timed(lambda: a @ b)  # libraries choose their kernels
    return sorted(timed(lambda: a @ b) for _ in range(runs))[runs // 2]


def _on_gpu(run: Callable[[], Tensor]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(100_000)  # so that the launch lies behind the first event, not between the two
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def _on_cpu(run: Callable[[], Tensor]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
