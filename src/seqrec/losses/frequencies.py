"""How often items are targets in training.

Shapes: N items, T positions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from seqrec.data.sequences import Sequences

#: Targets weigh at most so many times what one of average frequency does, before weights are brought to a mean of 1.
MOST = 10.0


def target_counts(train: Sequences) -> Tensor:
    """(N,) float64: how often each item has an event before it. Only histories' first events have none."""
    first = train.items[train.starts[train.lengths > 0]]
    return torch.from_numpy(train.counts() - np.bincount(first, minlength=train.num_items + 1)[1:]).double()


def popularity_weights(train: Sequences, gamma: float) -> Tensor:
    """(N,) float32: frequency^-gamma, at most `MOST` times that of an average item; their mean over targets is 1.

    Inverse propensity weights: Schnabel et al., "Recommendations as Treatments", ICML 2016.
    """
    counts_N = target_counts(train)
    relative_N = counts_N.clamp(min=1) / counts_N.mean().clamp(min=1e-9)
    weights_N = (relative_N**-gamma).clamp(max=MOST)
    return (weights_N * counts_N.sum().clamp(min=1) / (weights_N @ counts_N).clamp(min=1e-9)).float()


def log_popularity(train: Sequences) -> Tensor:
    """(N,) float32 logarithms of each item's share of training targets; one that is none counts as if it were once."""
    counts_N = target_counts(train).clamp(min=1)
    return (counts_N / counts_N.sum()).log().float()
