"""Command lines in processes of their own, forked from one that has imported everything: 0.1 s each instead of 3 s."""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    ["pytest", "torch", "torch._dynamo", "seqrec.cli", "seqrec.cli.show", "seqrec.experiments.door"]
)


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int | None
    out: str
    err: str


class Command:
    """`seqrec ARGUMENTS` in folder `cwd`, started; its cache and its output are kept under `cwd`."""

    def __init__(self, *arguments: object, cwd: Path) -> None:
        self.cwd = cwd
        words = [str(argument) for argument in arguments]
        self.process: ForkServerProcess = _server.Process(target=_seqrec, args=(words, cwd), daemon=True)
        self.process.start()

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self, seconds: float = 120) -> Finished:
        """Wait for the end; a command that hangs is killed."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(f"still running; it said: {(self.cwd / '.err').read_text()}")
        return Finished(self.process.exitcode, (self.cwd / ".out").read_text(), (self.cwd / ".err").read_text())


def seqrec(*arguments: object, cwd: Path) -> Finished:
    """Run `seqrec ARGUMENTS` to its end."""
    return Command(*arguments, cwd=cwd).wait()


def _seqrec(arguments: list[str], cwd: Path) -> None:
    for number, name in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(cwd / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.chdir(cwd)
    os.environ["SEQREC_CACHE"] = str(cwd / "cache")
    sys.argv = ["seqrec", *arguments]
    from seqrec.cli import main

    main()
