"""Losses of positions, some positions at a time, so that memory does not grow with their number.

Shapes: T positions, R positions of a piece.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

#: Numbers that a piece holds in one tensor: 512 MiB of float32.
NUMBERS = 1 << 27


def in_pieces(compute: Callable[..., Tensor], numbers: int, *rows: Tensor) -> Tensor:
    """`compute(*rows)` (T,), piece by piece where `numbers` per position make too much of all.

    Pieces are computed again in the backward pass, so that one at a time is held; nothing may be drawn in them.

    Args:
        compute: from some rows of each tensor (R, ...) to (R,); it sees no autocast.
        rows: tensors (T, ...).
    """
    size = max(1, NUMBERS // max(1, numbers))
    with torch.autocast(rows[0].device.type, enabled=False):
        if size >= len(rows[0]):
            return compute(*rows)
        pieces = zip(*(part.split(size) for part in rows), strict=True)
        # Looking after the generator would wait for the device.
        told = [checkpoint(compute, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
    return torch.cat(told)
