"""Dropout that costs little on a CPU, where torch draws 64 random bits for each number: 16 are enough.

On two cores of an EPYC forward and backward take 3 ns a number instead of 13.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: What 16 bits can say.
VALUES = 1 << 16


def dropout(x: Tensor, share: float) -> Tensor:
    """`x` (...) with a share of its entries set to zero and the others divided by what is left, as F.dropout.

    On a CPU the share is rounded to a 65,536th, which what is left is divided by too. Draws are of torch's generator.
    """
    dropped = round(share * VALUES)
    if dropped == 0:
        return x
    if x.device.type != "cpu" or dropped == VALUES or torch.compiler.is_compiling():
        return F.dropout(x, share)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = bits[: x.numel()].view(x.shape) >= dropped - VALUES // 2
    return x * kept.to(x.dtype).mul_(VALUES / (VALUES - dropped))
