"""Steps as CUDA graphs. A step is a few hundred small kernels, which take longer to launch than to run; a graph of them
is launched at once, and runs the same kernels on the same numbers.

Shapes: B rows, T numbers that a step tells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Recording(NamedTuple):
    """A step of one shape: where it reads its rows (3, B), and where it leaves what it tells (T,)."""

    graph: torch.cuda.CUDAGraph
    rows: Tensor
    told: Tensor


class Recorder:
    """Runs the first step of each shape as it stands, records the second, and replays it from then on.

    The first run lets libraries set themselves up and kernels be compiled, which may not happen in a recording.

    Args:
        update: from rows (3, B) on the device and a width to what the step tells (T,). Whatever else changes from
            step to step has to lie on the device.
    """

    def __init__(self, update: Callable[[Tensor, int], Tensor]) -> None:
        self._update = update
        self._met: set[tuple[int, int]] = set()
        self._recordings: dict[tuple[int, int], Recording] = {}
        self._pool: Any = None  # of memory, as torch names it

    def __call__(self, rows_3B: Tensor, width: int) -> Tensor:
        shape = rows_3B.shape[1], width
        if shape not in self._met:
            self._met.add(shape)
            return self._update(rows_3B, width)
        if shape not in self._recordings:
            self._recordings[shape] = self._record(rows_3B, width)
        recording = self._recordings[shape]
        recording.rows.copy_(rows_3B)
        recording.graph.replay()
        return recording.told.clone()  # the next replay writes there again

    def _record(self, rows_3B: Tensor, width: int) -> Recording:
        graph, rows = torch.cuda.CUDAGraph(), rows_3B.clone()
        with torch.cuda.graph(graph, pool=self._pool):
            told = self._update(rows, width)
        self._pool = self._pool or graph.pool()  # one pool for all: only one graph runs at a time
        return Recording(graph, rows, told)
