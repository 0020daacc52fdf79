"""What the GPU is doing, through NVIDIA's management library; silent where there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch


class GPUMonitor:
    """Readings of one GPU."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle

    @classmethod
    def of(cls, device: torch.device) -> GPUMonitor | None:
        """A monitor for `device`, or None: no GPU, or nvidia-ml-py is not installed."""
        if device.type != "cuda":
            return None
        try:
            import pynvml

            pynvml.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
        except Exception:  # NVML has its own exception tree, absent when the import is what failed
            return None

    def read(self) -> dict[str, float]:
        """Utilisation in percent, memory in MiB, temperature in degrees Celsius, power in watts; what a card
        does not tell (some virtual ones are silent about power) is left out."""
        nvml, handle = self._library, self._handle
        sensors: dict[str, Callable[[], float]] = {
            "utilisation_percent": lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "memory_mib": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20,
            "temperature_c": lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        }
        readings = {}
        for name, sensor in sensors.items():
            with contextlib.suppress(Exception):  # NVML's own exception tree
                readings[name] = sensor()
        return readings
