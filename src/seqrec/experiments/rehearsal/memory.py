"""The most memory that a process has held."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator


def peak_memory() -> float:
    """Most memory that this process itself has held, in MiB."""
    for line in _status():
        if line.startswith("VmHWM:"):  # what getrusage says starts at the size of the process that started this one
            return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def _status() -> Iterator[str]:
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            yield from file
    except OSError:
        return
