"""How the work of the cross-entropy is cut for a GPU.

Shapes: T positions, N items, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pass(NamedTuple):
    """Tiles of one kernel: rows that a program owns, rows it meets at a time; and programs that an SM runs at once."""

    own: int
    met: int
    warps: int
    stages: int
    together: int


class Tiles(NamedTuple):
    """`forward`: positions meet items; `backward`: items meet positions."""

    forward: Pass
    backward: Pass


#: By the largest width they are for; the fastest of ten on an H100.
TILES_16_BIT = {
    128: Tiles(Pass(128, 128, 8, 3, 1), Pass(64, 64, 4, 3, 2)),
    256: Tiles(Pass(128, 64, 8, 3, 1), Pass(128, 64, 8, 3, 1)),
}
#: Rows of 256 where an SM has less than `ROOM` bytes of shared memory, as in most GPUs that are not a server's.
TILES_SMALL, ROOM = Tiles(Pass(64, 64, 4, 2, 1), Pass(64, 64, 4, 2, 1)), 150_000
TILES_32_BIT = Tiles(Pass(64, 32, 4, 2, 1), Pass(64, 32, 4, 2, 1))
#: What starting and ending a program costs, in tiles that it meets.
OVERHEAD = 4
#: Most parts, and numbers that all of them hold at most: each is a float32 matrix of sums.
MOST, NUMBERS = 8, 1 << 26
#: SMs and their shared memory where no GPU is asked: Triton's interpreter.
SMS, SHARED = 132, 233_472


def tiles(rows: Tensor) -> Tiles:
    """For rows like these, whose width is a power of two."""
    if rows.dtype == torch.float32:
        return TILES_32_BIT
    width = rows.shape[1]
    if width == 256 and shared_memory(rows.device) < ROOM:
        return TILES_SMALL
    return next(found for widest, found in TILES_16_BIT.items() if width <= widest)


def shared_memory(device: torch.device) -> int:
    """Bytes of an SM, of which one program may have nearly all."""
    if device.type != "cuda":
        return SHARED
    return torch.cuda.get_device_properties(device).shared_memory_per_multiprocessor


def parts(rows: int, others: int, cut: Pass, like: Tensor) -> tuple[int, int]:
    """In how many parts the others are cut, so that programs fill the GPU to the end, and tiles in each."""
    blocks, count = -(-rows // cut.own), -(-others // cut.met)
    sms = torch.cuda.get_device_properties(like.device).multi_processor_count if like.is_cuda else SMS

    def rounds(number: int) -> int:
        return -(-blocks * number // (sms * cut.together)) * (-(-count // number) + OVERHEAD)

    most = max(1, min(count, MOST, NUMBERS // (rows * like.shape[-1])))
    best = min(range(1, most + 1), key=rounds)
    share = -(-count // best)
    return -(-count // share), share
