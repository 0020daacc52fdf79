"""What the GPU is doing, through NVIDIA's management library; silent where there is none."""

from __future__ import annotations

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
        """Utilisation in percent, memory in MiB, temperature in degrees Celsius, power in watts."""
        nvml, handle = self._library, self._handle
        return {
            "utilisation_percent": float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "memory_mib": nvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20,
            "temperature_c": float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            "power_w": nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        }
