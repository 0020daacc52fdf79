"""Sums of columns: the last act of gradients that every row adds to. Torch's own take several times as long as memory.

Shapes: T rows, C columns.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Rows and columns that a program reads at a time, and rows that one program adds up where there are many.
ROWS, COLUMNS, SHARE = 32, 64, 256


@triton.jit(do_not_specialize=["T"])
def add_columns(x, total, T, C, share, R: tl.constexpr, W: tl.constexpr):
    """One program per W columns and `share` rows, always in the same order."""
    column_W = tl.program_id(0) * W + tl.arange(0, W)
    first = tl.program_id(1).to(tl.int64) * share
    last = tl.minimum(first + share, T)
    sum_RW = tl.zeros((R, W), tl.float32)
    for start in range(first, last, R):
        row_R = start + tl.arange(0, R)
        inside_RW = (row_R < last)[:, None] & (column_W < C)[None, :]
        sum_RW += tl.load(x + row_R[:, None] * C + column_W[None, :], mask=inside_RW, other=0.0).to(tl.float32)
    tl.store(total + tl.program_id(1) * C + column_W, tl.sum(sum_RW, 0), mask=column_W < C)


def column_sums(x_TC: Tensor) -> Tensor:
    """(C,) float32, of (T, C) without gaps."""
    T, C = x_TC.shape
    share = T if T <= 4 * SHARE else SHARE
    parts = torch.empty(triton.cdiv(T, share), C, device=x_TC.device)
    add_columns[(triton.cdiv(C, COLUMNS), len(parts))](x_TC, parts, T, C, share, R=ROWS, W=COLUMNS, num_warps=4)
    return parts[0] if len(parts) == 1 else column_sums(parts)
