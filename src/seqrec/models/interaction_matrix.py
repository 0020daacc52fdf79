"""Who met what, as a matrix: what models share that look at histories as weighted sets of items.

Shapes: U users, B rows, L positions, N items (column j is item j + 1), E events.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.data.sequences import Sequences
from seqrec.errors import MissingExtraError


def interaction_matrix(sequences: Sequences, decay: float = 1.0) -> Any:
    """Histories as a sparse matrix: an item weighs decay^(number of events after it), so the newest weighs 1.

    Of an item that occurs several times the latest occurrence counts; with decay 1 the matrix is binary.

    Returns:
        scipy.sparse.csr_matrix (U, N) of float32 with sorted indices; memory in proportion to events. Weights
        too small for a float32 are left out.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    sparse = scipy_sparse()
    columns, weights = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    counts = np.zeros(len(sequences), dtype=np.int64)
    for users, _ in sequences.blocks():
        rows, ages, events = _events(sequences.starts[users], sequences.ends[users])
        keys = rows * sequences.num_items + sequences.items[events] - 1
        # Newest events first: the first of equal keys is the latest occurrence.
        keys, first = np.unique(keys[::-1], return_index=True)
        weight = np.power(decay, ages[::-1][first], dtype=np.float64).astype(np.float32)
        keys, weight = keys[weight > 0], weight[weight > 0]
        counts[users] = np.bincount(keys // sequences.num_items, minlength=users.stop - users.start)
        columns.append((keys % sequences.num_items).astype(np.int32))
        weights.append(weight)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    shape = (len(sequences), sequences.num_items)
    return sparse.csr_matrix((np.concatenate(weights), np.concatenate(columns), offsets), shape=shape)


def history_matrix(batch: Batch, num_items: int, decay: float = 1.0) -> Tensor:
    """The rows that `interaction_matrix` gives for the histories of a batch: (B, N) float32, dense, on their device."""
    items_BL = batch.items
    ages_BL = batch.lengths[:, None] - 1 - torch.arange(items_BL.shape[1], device=items_BL.device)
    weights_BL = (decay ** ages_BL.clamp(min=0).double()).float() * batch.valid
    rows_BN = weights_BL.new_zeros(len(batch), num_items + 1)
    return rows_BN.scatter_reduce_(1, items_BL, weights_BL, "amax")[:, 1:]


def scipy_sparse() -> Any:
    """The module `scipy.sparse`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import scipy.sparse
    except ImportError as error:
        raise MissingExtraError("scipy", "classical") from error
    return scipy.sparse


def _events(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row (E,), number of events after it in its row (E,) and position (E,) of every event of some histories."""
    lengths = ends - starts
    rows = np.repeat(np.arange(len(starts)), lengths)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows, lengths[rows] - 1 - place, starts[rows] + place
