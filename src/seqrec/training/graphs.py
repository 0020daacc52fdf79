"""Steps as CUDA graphs. A step is a few hundred small kernels, which take longer to launch than to run; a graph of them
is launched at once, and runs the same kernels on the same numbers.

Shapes: B rows, T numbers that a step tells.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: How torch begins to say that an operation waits for the device.
WAITS = "called a synchronizing"


class Recording(NamedTuple):
    """A step of one shape: where it reads its rows (3, B), and where it leaves what it tells (T,)."""

    graph: torch.cuda.CUDAGraph
    rows: Tensor
    told: Tensor


class Recorder:
    """Runs the first step of each shape as it stands, records the second, and replays it from then on.

    The first run lets libraries set themselves up and kernels be compiled, which may not happen in a recording. It
    also shows whether the step waits for the device: such a step cannot be recorded, and goes on as it stands.

    Args:
        update: from rows (3, B) on the device and a width to what the step tells (T,). Whatever else changes from
            step to step has to lie on the device.
    """

    def __init__(self, update: Callable[[Tensor, int], Tensor]) -> None:
        self._update = update
        self._met: set[tuple[int, int]] = set()
        self._recordings: dict[tuple[int, int], Recording] = {}
        self._pool: Any = None  # of memory, as torch names it
        self._waits = False

    def __call__(self, rows_3B: Tensor, width: int) -> Tensor:
        shape = rows_3B.shape[1], width
        if self._waits:
            return self._update(rows_3B, width)
        if shape not in self._met:
            self._met.add(shape)
            return self._watched(rows_3B, width)
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

    def _watched(self, rows_3B: Tensor, width: int) -> Tensor:
        """The step as it stands; afterwards it is known whether it waits for the device."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                told = self._update(rows_3B, width)
            finally:
                torch.cuda.set_sync_debug_mode(before)
        for warning in caught:
            told_by_torch = str(warning.message)
            if WAITS in told_by_torch:
                self._waits = True
            elif not told_by_torch.startswith("Synchronization debug mode"):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        if self._waits:
            warnings.warn("A step of this model waits for the GPU, so steps are not recorded as graphs.", stacklevel=2)
        return told
