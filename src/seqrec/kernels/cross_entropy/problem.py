"""What every form of the cross-entropy is given.

Shapes: T positions, N items (or candidates drawn for all positions), D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Problem(NamedTuple):
    """Tensors. Of catalogues, targets are rows of `weight`.

    Of candidates they are ids, the target's vector is given for each position, and a candidate whose id is the
    position's target is none of its rivals.

    Attributes:
        h: (T, D). weight: (N, D). bias: (N,) or None. targets: (T,) int64.
        own: (T, D), vectors of the targets. own_bias: (T,) or None. ids: (N,) int64, of the candidates.
    """

    h: Tensor
    weight: Tensor
    bias: Tensor | None
    targets: Tensor
    own: Tensor | None = None
    own_bias: Tensor | None = None
    ids: Tensor | None = None


class Options(NamedTuple):
    """What is no tensor. `dtype` is the precision of the products; `each`: a loss for every position, no mean."""

    label_smoothing: float
    ignore_index: int
    cosine: bool
    dtype: torch.dtype
    each: bool = False

    @property
    def exact(self) -> torch.dtype:
        """The precision of sums and of the loss."""
        return torch.promote_types(self.dtype, torch.float32)


#: As in `F.normalize`.
SHORTEST = 1e-12
