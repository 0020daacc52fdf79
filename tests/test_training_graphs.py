"""When steps are recorded, and when they go on as they stand. `test_training_step` compares the two on a GPU."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from seqrec.errors import TrainingError
from seqrec.training.graphs import Recorder

ROWS = torch.arange(6).view(3, 2)


class Device:
    """Stands in for torch.cuda: what runs in a recording only leaves a note of what to replay."""

    def __init__(self) -> None:
        self.mode = 0
        self.recording = False
        self.run = 0

    def wait(self) -> None:
        if self.recording:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        if self.mode:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=2)


class Graph:
    def pool(self) -> str:
        return "pool"

    def replay(self) -> None:
        device.run += 1


device = Device()


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    device.__init__()  # type: ignore[misc]

    def set_mode(mode: int | str) -> None:
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2)
        device.mode = 1 if mode == "warn" else int(mode)

    @contextmanager
    def graph(*_: Any, **__: Any) -> Iterator[None]:
        device.recording = True
        try:
            yield
        finally:
            device.recording = False

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: device.mode)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)


def steps(what: Callable[[int], None], number: int = 5, width: int = 4) -> tuple[list[str], Recorder]:
    """How each of some steps ran, where the eager run 0, 1, ... also does `what`."""
    recorder, ways, eager = Recorder(), [], [0]

    def update(rows_3B: Tensor, width: int) -> Tensor:
        what(eager[0])
        eager[0] += not device.recording
        return torch.zeros(2)

    for _ in range(number):
        before, replayed = eager[0], device.run
        recorder(update, ROWS, width)
        ways.append("eager" if eager[0] > before else "replayed" if device.run > replayed else "nothing")
    assert device.mode == 0
    return ways, recorder


def test_the_second_step_of_a_shape_is_recorded_and_replayed() -> None:
    ways, recorder = steps(lambda _: None)
    assert ways == ["eager", *["replayed"] * 4]
    assert list(recorder._recordings) == [(2, 4)]


def test_a_step_that_waits_once_to_set_itself_up_is_recorded_later() -> None:
    ways, _ = steps(lambda run: device.wait() if run == 0 else None)
    assert ways == ["eager", "eager", *["replayed"] * 3]


@pytest.mark.parametrize("asks", [lambda _: device.wait(), lambda _: torch.rand(())], ids=["waits", "draws"])
def test_a_step_that_asks_the_host_is_never_recorded(asks: Callable[[int], None]) -> None:
    with pytest.warns(UserWarning, match="waits for the GPU or draws on the host"):
        ways, recorder = steps(asks)
    assert ways == ["eager"] * 5
    assert not recorder._recordings


def test_other_warnings_of_a_step_come_through() -> None:
    with pytest.warns(UserWarning, match="gradients are odd"):
        steps(lambda run: None if run else warnings.warn("gradients are odd", stacklevel=1))


def test_an_error_in_a_step_leaves_the_debug_mode_as_it_was() -> None:
    def fails(run: int) -> None:
        raise ValueError("a model's own")

    with pytest.raises(ValueError, match="own"):
        steps(fails)
    assert device.mode == 0


def test_a_step_that_cannot_be_recorded_says_what_to_do() -> None:
    with pytest.raises(TrainingError, match=r"--compile off.*\(operation not permitted when stream is capturing\)"):
        steps(lambda _: device.wait() if device.recording else None)


def test_a_recorder_and_who_owns_it_go_without_the_garbage_collector() -> None:
    class Owner:
        def __init__(self) -> None:
            self.recorder = Recorder()

        def update(self, rows_3B: Tensor, width: int) -> Tensor:
            return torch.zeros(2)

    gc.disable()
    try:
        owner = Owner()
        for _ in range(3):
            owner.recorder(owner.update, ROWS, 4)
        gone = weakref.ref(owner)
        del owner
        assert gone() is None
    finally:
        gc.enable()
