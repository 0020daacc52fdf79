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

from seqrec.errors import TrainingError

#: A step: from rows (3, B) on the device and a width to what it tells (T,).
Update = Callable[[Tensor, int], Tensor]
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
    also shows whether the step asks the host for anything: waits for the device, or draws a number of torch's CPU
    generator, which a recording would repeat for ever. That is forgiven once (times of events are brought to the
    device, cuDNN seeds its dropout); the second time, steps of all shapes go on as they stand.
    """

    def __init__(self) -> None:
        self._met: set[tuple[int, int]] = set()
        self._recordings: dict[tuple[int, int], Recording] = {}
        self._pool: Any = None  # of memory, as torch names it
        self._asked = 0  # runs that asked the host

    def __call__(self, update: Update, rows_3B: Tensor, width: int) -> Tensor:
        """What `update` tells (T,).

        Args:
            update: the same in every call, and not kept: it belongs to who owns this recorder, and two that hold each
                other would hold the device's memory when nobody needs them. Whatever else changes from step to step
                has to lie on the device.

        Raises:
            TrainingError: the step cannot be recorded.
        """
        shape = rows_3B.shape[1], width
        if self._asked > 1:
            return update(rows_3B, width)
        if shape not in self._met:
            return self._watched(update, rows_3B, width)
        if shape not in self._recordings:
            self._recordings[shape] = self._record(update, rows_3B, width)
        recording = self._recordings[shape]
        recording.rows.copy_(rows_3B)
        recording.graph.replay()
        return recording.told.clone()  # the next replay writes there again

    def _record(self, update: Update, rows_3B: Tensor, width: int) -> Recording:
        graph, rows = torch.cuda.CUDAGraph(), rows_3B.clone()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                told = update(rows, width)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise TrainingError(
                "A step of this model cannot be recorded as a CUDA graph. Run its steps one by one: --compile off, or "
                f"training.compile=off. ({str(error).splitlines()[0][:200]})"
            ) from error
        self._pool = self._pool or graph.pool()  # one pool for all: only one graph runs at a time
        return Recording(graph, rows, told)

    def _watched(self, update: Update, rows_3B: Tensor, width: int) -> Tensor:
        """The step as it stands; afterwards it is known whether it may be recorded."""
        before, drawn = torch.cuda.get_sync_debug_mode(), torch.get_rng_state()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                told = update(rows_3B, width)
            finally:
                torch.cuda.set_sync_debug_mode(before)
        asked = not torch.equal(drawn, torch.get_rng_state())
        for warning in caught:
            told_by_torch = str(warning.message)
            if WAITS in told_by_torch:
                asked = True
            elif not told_by_torch.startswith("Synchronization debug mode"):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        if not asked:
            self._met.add((rows_3B.shape[1], width))
            return told
        self._asked += 1
        if self._asked > 1:
            self._recordings.clear()
            warnings.warn(
                "A step of this model waits for the GPU or draws on the host, so steps are not recorded as graphs.",
                stacklevel=2,
            )
        return told
