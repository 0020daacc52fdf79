"""Readings of a GPU, from a stand-in for NVIDIA's library: there is none on the machines that run the tests."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from seqrec.training.monitor import GPUMonitor


class StandIn:
    """What the monitor calls of pynvml, in pynvml's units: percent, bytes, degrees, milliwatts."""

    NVML_TEMPERATURE_GPU = 0

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        return SimpleNamespace(gpu=87, memory=12)

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(used=3 * 2**30, total=141 * 2**30)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return 61

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return 512_500


def test_no_gpu_no_monitor() -> None:
    assert GPUMonitor.of(torch.device("cpu")) is None


def test_a_gpu_without_the_library_has_no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it fails, as where it is not installed
    assert GPUMonitor.of(torch.device("cuda")) is None


def test_readings_are_in_the_units_that_they_are_named_after() -> None:
    assert GPUMonitor(StandIn(), "handle").read() == {
        "utilisation_percent": 87.0,
        "memory_mib": 3072.0,
        "temperature_c": 61.0,
        "power_w": 512.5,
    }
