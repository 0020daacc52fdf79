"""How much of a budget is used: wall time by the number of GPUs, over restarts."""

from __future__ import annotations

import time
from pathlib import Path

from seqrec.files import read_json, write_json

#: Seconds between writings, which a kill may lose.
WRITE_EVERY = 2.0


class Clock:
    """Counts from its making on, and from what was written before."""

    def __init__(self, path: Path, gpus: int) -> None:
        self._path = path
        self._gpus = gpus
        self._before: float = read_json(path)["gpu_seconds"] if path.exists() else 0.0
        self._began = self._written = time.monotonic()

    @property
    def used(self) -> float:
        """GPU-seconds."""
        return self._before + (time.monotonic() - self._began) * self._gpus

    def tick(self) -> None:
        """Write it down now and then."""
        if time.monotonic() - self._written >= WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Write it down."""
        self._written = time.monotonic()
        write_json(self._path, {"gpu_seconds": round(self.used, 3)})
