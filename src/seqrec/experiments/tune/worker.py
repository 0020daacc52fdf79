"""A process that trains one trial after another, so that imports and kernels are paid for once.

It is told what to do, and tells what came of it, in lines of JSON:

    in    {"trial": 3, "settings": {...}, "out": "...", "device": "cuda"}, then after every epoch that was evaluated
          {"go": true} or {"stop": "why"}; the latter may come at any time
    out   {"ready": true}, {"epoch": 4, "value": 0.11}, and at last {"end": "finished", ...}

Where its parent is gone, training is saved and ends.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError, SeqrecError
from seqrec.experiments.config import RunConfig
from seqrec.experiments.fit import fit, is_of
from seqrec.experiments.run import Run
from seqrec.files import DiskError
from seqrec.run_folder import RunFolder
from seqrec.training.tracking import Progress, StopTraining
from seqrec.training.trainer import TrainingInterrupted

#: Exit code of a worker whose process should not be used any longer, after it has told how the trial failed.
SPENT = 3


@dataclass
class Line:
    """The connection with the parent."""

    out: TextIO
    orders: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    #: Why training is to end, once that was said.
    stop: str | None = None

    def say(self, **message: Any) -> None:
        self.out.write(json.dumps(message) + "\n")
        self.out.flush()

    def listen(self, lines: TextIO) -> None:
        """Take in what the parent says until it is gone, as a thread."""
        for line in lines:
            message = json.loads(line)
            self.stop = None if "trial" in message else message.get("stop", self.stop)
            self.orders.put(message)
        os.kill(os.getpid(), signal.SIGTERM)
        self.orders.put({"go": True})  # who waits for an answer comes to where it stops


class Reporter:
    """Tells validation, and ends training when that is asked, but not before something was evaluated."""

    def __init__(self, line: Line, metric: str, epochs: int) -> None:
        self._line = line
        self._metric = metric
        self._epochs = epochs
        self._evaluated = False
        #: Whether training was ended here.
        self.stopped = False

    def started(self, facts: Mapping[str, Any]) -> None:
        self._evaluated = facts["epochs_done"] > 0

    def progressed(self, progress: Progress) -> None:
        pass

    def epoch_ended(self, record: Mapping[str, Any]) -> None:
        if "validation" in record:
            self._evaluated = True
            self._line.say(epoch=record["epoch"], value=record["validation"][self._metric])
            self._line.orders.get()
        if self._evaluated and self._line.stop and record["epoch"] < self._epochs:
            self.stopped = True
            raise StopTraining(self._line.stop)

    def ended(self, facts: Mapping[str, Any]) -> None:
        pass


def _train(order: Mapping[str, Any], data: PreparedData, line: Line) -> dict[str, Any]:
    """One trial; what is said about it at its end. The test stays in the run's folder."""
    began, out = time.monotonic(), Path(order["out"])
    try:
        config = RunConfig.from_dict(order["settings"])
        reporter = Reporter(line, config.training.metric, config.training.epochs)
        folder = RunFolder(out)
        if folder.results() is None or not is_of(folder, config):  # a run of other settings is refused
            fit(config, data, out, [reporter], order["device"])
    except ConfigError as error:
        return {"end": "invalid", "error": str(error)}
    except TrainingInterrupted:
        raise
    except DiskError as error:  # not this trial's fault: it goes on when there is room again
        return {"end": "no room", "error": str(error)}
    except SeqrecError as error:
        return {"end": "failed", "error": str(error), "seconds": time.monotonic() - began}
    except Exception as error:  # out of memory, or a kernel that failed: this trial's, not the study's
        failed = {"end": "failed", "error": f"{type(error).__name__}: {error}", "spent": True}
        return failed | {"seconds": time.monotonic() - began}
    run = Run(out)
    training = run.results["training"]
    return {
        "end": "stopped early" if reporter.stopped else "finished",
        "value": run.validation[config.training.metric],
        "epochs": training["epochs"],
        "best_epoch": training["best_epoch"],
        "seconds": training["seconds"],
        "parameters": training["parameters"],
    }


def main(folder: str) -> None:
    """Serve the parent at the other end of standard input and output; the data are the prepared folder's."""
    line = Line(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)  # what a library prints is no message
    threading.Thread(target=line.listen, args=(sys.stdin,), daemon=True).start()
    data = PreparedData.load(Path(folder))
    line.say(ready=True)
    while True:
        order = line.orders.get()
        if "trial" not in order:  # said to a trial that had ended meanwhile
            continue
        try:
            told = _train(order, data, line)
        except TrainingInterrupted:
            os._exit(TrainingInterrupted.exit_code)  # without waiting for the thread that listens
        line.say(**told)
        if told.get("spent"):
            os._exit(SPENT)
        _release()


def _release() -> None:
    """Give back the memory of the last trial, which others on this GPU need."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(sys.argv[1])
