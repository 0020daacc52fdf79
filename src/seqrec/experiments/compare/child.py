"""A single run in a process of its own: `python -m seqrec.experiments.compare.child JOB.json`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO

import torch

from seqrec.data.prepared import PreparedData
from seqrec.errors import SeqrecError
from seqrec.experiments.combine import combine
from seqrec.experiments.config import RunConfig
from seqrec.experiments.fit import fit
from seqrec.experiments.run import Run
from seqrec.files import read_json


def main() -> None:
    """Make the run that the job file describes; an error of ours is one line."""
    path = Path(sys.argv[1])
    job = read_json(path)
    sys.path.append(os.getcwd())  # so that my_module:MyModel is found beside the user
    threading.Thread(target=_follow, args=(job["parent"],), daemon=True).start()
    lock = path.with_suffix(".lock").open("w")  # until this process ends
    _wait_for(lock)
    try:
        out = Path(job["out"])
        if (out / "results.json").exists():
            return  # somebody else has made it meanwhile
        if job["device"].startswith("cuda"):
            torch.cuda.set_device(job["device"])  # or every run would also take memory on the first GPU
        if job["config"] is None:
            combine([Run(path) for path in job["members"]], out, job["fusion"], job["device"])
        else:
            config = RunConfig.from_dict(job["config"])
            fit(config, PreparedData.load(Path(job["data"])), out, device=job["device"])
    except SeqrecError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _wait_for(lock: IO[str]) -> None:
    """Where a killed comparison is taken up at once, its run may still be stopping."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    fcntl.flock(lock, fcntl.LOCK_EX)


def _follow(parent: int) -> None:
    """Stop where the comparison was killed: nobody would wait for this run, and a resumed comparison makes it again."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
