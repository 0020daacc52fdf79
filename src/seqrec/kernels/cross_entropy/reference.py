"""The cross-entropy as it is written in books, differentiated by autograd, with the whole matrix of scores.

Shapes: T positions, N items, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.kernels.cross_entropy.problem import SHORTEST, Options, Problem


def cross_entropy(x: Problem, options: Options) -> Tensor:
    """The mean loss of the positions that count, 0 where none does; or the loss of each (T,)."""
    weight = F.normalize(x.weight, dim=-1, eps=SHORTEST) if options.cosine else x.weight
    h = x.h.to(options.dtype)
    bias = None if x.bias is None else x.bias.to(options.dtype)
    scores_TN = F.linear(h, weight.to(options.dtype), bias).to(options.exact)
    targets, counted = x.targets, x.targets != options.ignore_index
    if x.own is not None and x.ids is not None:
        target_T = (h * x.own.to(options.dtype)).sum(-1).to(options.exact)
        target_T = target_T if x.own_bias is None else target_T + x.own_bias.to(options.exact)
        rivals_TN = scores_TN.masked_fill(x.ids == targets[:, None], -torch.inf)
        scores_TN = torch.cat([target_T[:, None], rivals_TN], 1)
        targets = torch.where(counted, 0, options.ignore_index)
    smoothing, ignored = options.label_smoothing, options.ignore_index
    how = "none" if options.each else "sum"
    loss = F.cross_entropy(scores_TN, targets, ignore_index=ignored, label_smoothing=smoothing, reduction=how)
    return loss if options.each else loss / counted.sum().clamp(min=1)
