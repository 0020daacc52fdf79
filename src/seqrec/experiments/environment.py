"""On what a run ran: versions, processor, GPU."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqrec.errors import ConfigError
from seqrec.version import VERSION

#: What Linux tells a process about itself.
STATUS = Path("/proc/self/status")


def choose_device(name: str = "auto") -> torch.device:
    """The named device; `auto` is the first GPU where there is one. A GPU becomes torch's current one.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device {name}: choose auto, cpu, cuda or cuda:NUMBER.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device {name}: this torch sees {torch.cuda.device_count()} GPUs. See `seqrec doctor`.")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # Triton's kernels and recorded steps run there, wherever their tensors lie
    return device


def environment(device: torch.device) -> dict[str, Any]:
    """Facts that a number cannot be read without."""
    return {
        "seqrec": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "cuda": torch.version.cuda,
    }


def peak_memory_mib(device: torch.device) -> float:
    """Most memory in use so far: allocated on the GPU, or by this process on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else process_peak_mib()


def process_peak_mib() -> float:
    """Most memory that this process itself has held, in MiB; 0 where nobody counts."""
    try:
        with STATUS.open(encoding="utf-8", errors="replace") as lines:
            return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return _resource_peak_mib()


def _resource_peak_mib() -> float:
    """The same by another count, which on Linux starts at the size of the process that started this one."""
    try:
        import resource
    except ImportError:  # Windows does not count it
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
