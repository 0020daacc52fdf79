"""NVIDIA's Multi-Process Service: kernels of several processes run on one GPU at the same time, not in turns.

One daemon serves all studies of a user: the first starts it and the last stops it. Where it does not work, processes
share the GPU in turns, which is slower and as correct.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
#: Seconds that the daemon has for an answer.
PATIENCE = 60
#: Makes a CUDA context, as a worker is going to.
PROBE = """
import ctypes, sys
cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
sys.exit(cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
"""


@contextmanager
def shared_gpus(wanted: bool, report: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """Environment variables with which processes share GPUs in the block.

    Args:
        wanted: whether several processes share a GPU; else, where there is no daemon to start, and where the user has
            one already, nothing is done.
        report: is told, in a line, where it was tried and does not work.
    """
    if not wanted or shutil.which(CONTROL) is None or "CUDA_MPS_PIPE_DIRECTORY" in os.environ:
        yield {}
        return
    import fcntl  # where there is such a daemon there is this

    folder = Path(tempfile.gettempdir()) / f"seqrec-mps-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    environment = {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
    with (folder / "users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # a kill lets go of it
        works = _starts(environment)
        if not works:
            report("Processes take turns on the GPU: NVIDIA's Multi-Process Service does not start here.")
        try:
            yield environment if works else {}
        finally:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _control(environment, "quit\n")
            except BlockingIOError:  # somebody else goes on using it
                pass


def _starts(environment: dict[str, str]) -> bool:
    if not _control(environment, "get_server_list\n"):
        _control(environment, None)
    return _control(environment, "get_server_list\n") and _run([sys.executable, "-c", PROBE], environment)


def _control(environment: dict[str, str], order: str | None) -> bool:
    """Start the daemon, or give it an order; whether that worked."""
    return _run([CONTROL, *([] if order else ["-d"])], environment, order)


def _run(command: list[str], environment: dict[str, str], order: str | None = None) -> bool:
    # The daemon serves all GPUs, whichever this process sees: each worker chooses among all of them.
    whole = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"} | environment
    try:
        # No pipes: a daemon that keeps its end of one would be waited for.
        done = subprocess.run(
            command,
            input=order,
            env=whole,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
