"""Workers: processes that train, each on a GPU of its own or on one that it shares with others."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrec.errors import ConfigError
from seqrec.experiments.environment import choose_device

if TYPE_CHECKING:
    from optuna.trial import Trial

#: Seconds that a worker has to save its training before it is killed.
PATIENCE = 60.0


def gpus_of(device: str, gpus: Sequence[int] = ()) -> list[str]:
    """The GPUs to work on, as CUDA_VISIBLE_DEVICES names them; none for a CPU.

    Raises:
        ConfigError: there is no such device.
    """
    import torch

    where = choose_device(device)
    if where.type != "cuda":
        if gpus:
            raise ConfigError(f"--gpus {','.join(map(str, gpus))}: there is no GPU to use.")
        return []
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = [name.strip() for name in named] if named != [""] else [str(index) for index in range(count)]
    chosen = list(gpus) or ([where.index] if where.index is not None else list(range(count)))
    if wrong := [index for index in chosen if not 0 <= index < count]:
        raise ConfigError(f"--gpus {wrong[0]}: this torch sees {count} GPUs. See `seqrec doctor`.")
    return [names[index] for index in chosen]


@dataclass
class Worker:
    """A process, and the trial that it trains.

    Attributes:
        log: what it prints.
        begun: whether it has said that it is ready.
        spent: whether it is about to end, after a trial that may have left it broken.
        began: when its trial began, by the monotonic clock.
    """

    process: subprocess.Popen[str]
    log: Path
    begun: bool = False
    spent: bool = False
    trial: Trial | None = None
    began: float = 0.0

    @property
    def idle(self) -> bool:
        """Whether it can be given a trial."""
        return self.begun and not self.spent and self.trial is None

    def send(self, **message: Any) -> None:
        """Say something; a worker that died does not hear it, and its end is told by the pool."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def death(self) -> str:
        """How the process ended, for people, after it has."""
        code = self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):  # what was not said yet is not heard any more
                stream.close()
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


@dataclass
class Pool:
    """All workers, and what they say.

    Attributes:
        folder: the prepared data that they read.
        logs: folder of what they print.
        gpus: see `gpus_of`; workers are spread over them in turn.
        size: how many there may be.
    """

    folder: Path
    logs: Path
    gpus: Sequence[str]
    size: int
    environment: dict[str, str] = field(default_factory=dict)
    workers: dict[int, Worker] = field(default_factory=dict)
    #: What workers said, by place; None for the end of a process.
    inbox: queue.Queue[tuple[int, dict[str, Any] | None]] = field(default_factory=queue.Queue)

    @property
    def device(self) -> str:
        """What a worker trains on, as it sees it."""
        return "cuda" if self.gpus else "cpu"

    def start(self, place: int) -> None:
        """Start the worker of a place from 0 to `size - 1`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"worker-{place}.log"
        environment = {**os.environ, **self.environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // self.size)))
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[place % len(self.gpus)]
        command = [sys.executable, "-m", "seqrec.experiments.tune.worker", str(self.folder.resolve())]
        with log.open("a", encoding="utf-8") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the parent, which tells the workers
            )
        self.workers[place] = Worker(process, log)
        threading.Thread(target=self._listen, args=(place, process), daemon=True).start()

    def _listen(self, place: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):  # else it died in the middle of it
                self.inbox.put((place, json.loads(line)))
        self.inbox.put((place, None))

    def busy(self) -> list[Worker]:
        """Workers that train."""
        return [worker for worker in self.workers.values() if worker.trial is not None]

    def close(self, save: bool) -> None:
        """End all workers; with `save` they are given time to write down where their training stands."""
        for worker in self.workers.values():
            if save and worker.process.poll() is None:
                worker.process.terminate()
                worker.send(go=True)  # who waits for an answer
            elif not save:
                worker.process.kill()
        for worker in self.workers.values():
            try:
                worker.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                worker.process.kill()
            worker.death()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
