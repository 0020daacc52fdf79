"""Which GPUs the Triton kernels are for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from seqrec.errors import ConfigError
from seqrec.kernels import gpu


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    gpu.is_new_enough.cache_clear()
    yield
    gpu.is_new_enough.cache_clear()


@pytest.mark.parametrize(
    ("capability", "cuda", "able"), [((7, 5), "13.0", False), ((8, 0), "13.0", True), ((9, 0), None, False)]
)
def test_old_gpus_and_those_of_others_run_torch(
    capability: tuple[int, int], cuda: str | None, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(gpu, "find_spec", lambda name: object())
    assert gpu.has_triton() is able
    if not able:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        with pytest.raises(ConfigError, match="choose native or auto"):
            gpu.require_triton(torch.ones(1), "native")
