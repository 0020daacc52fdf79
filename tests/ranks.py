"""Functions on several processes that talk to each other as those of torchrun do, forked from one that is warm."""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from commands import _server
from seqrec.distributed import Ranks, join


def on_ranks(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(ranks, *arguments)` returns on each rank; an exception counts as what it returns."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(size):
        here, there = _server.Pipe()
        process = _server.Process(target=_run, args=(there, rank, size, port, function, arguments), daemon=True)
        process.start()
        there.close()
        started.append((process, here))
    found = []
    for process, here in started:
        assert here.poll(60), "a rank says nothing"
        try:
            found.append(pickle.loads(here.recv_bytes()))
        except EOFError:
            found.append(None)  # it died
        process.join(10)
    return found


def _run(
    there: Connection, rank: int, size: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    try:
        with join("cpu") as ranks:
            found = function(ranks, *arguments)
    except BaseException as error:
        traceback.print_exc()
        found = error
    there.send_bytes(pickle.dumps(found))


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What one process makes of it."""
    return function(Ranks(), *arguments)
