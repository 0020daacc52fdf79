"""How often one item comes within a few events after another: a similarity of items that knows their order.

Shapes: N items, A items of a block, E events.
"""

from __future__ import annotations

import numpy as np

from seqrec.data.sequences import Sequences
from seqrec.models.similarities import Floats


class Successions:
    """Counts of (item, item that follows within `window` events), a pair d events apart counting 1 / d.

    s(i, j) = sum over occurrences of i, with j d events later, of 1 / d, over sqrt(|i| |j|), |i| being how often i
    occurs. With window 1 it is a Markov chain whose followers are held against their popularity; the weights 1 / d
    are those of "SR" in Ludewig & Jannach, "Evaluation of session-based recommendation algorithms", UMUAI 2018.
    """

    def __init__(self, sequences: Sequences, window: int) -> None:
        self.items_E = sequences.items
        self.window = window
        self.num_items = sequences.num_items
        self.counts_N = sequences.counts().astype(np.float64)
        lengths = sequences.lengths
        places = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        positions = np.repeat(sequences.starts, lengths) + places
        order = np.argsort(self.items_E[positions], kind="stable")
        #: Positions of events, item by item, and how many events follow in the same history.
        self.positions = positions[order]
        self.after = (np.repeat(lengths, lengths) - 1 - places)[order]
        self.bounds = np.concatenate([[0], np.cumsum(self.counts_N)]).astype(np.int64)

    def compare(self, first: int, last: int) -> tuple[Floats, Floats]:
        """Similarity (A, N) of items `first` + 1 to `last` to what follows them, and how often it does (A, N)."""
        mine = slice(self.bounds[first], self.bounds[last])
        shape = (last - first, self.num_items)
        positions, after = self.positions[mine], self.after[mine]
        row = (self.items_E[positions].astype(np.int64) - 1 - first) * self.num_items - 1
        cells, weights = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
        for distance in range(1, self.window + 1):
            follows = after >= distance
            cells.append(row[follows] + self.items_E[positions[follows] + distance])
            weights.append(np.full(len(cells[-1]), 1 / distance))
        cell = np.concatenate(cells)
        weighted, counted = (
            np.bincount(cell, weight, shape[0] * shape[1]).reshape(shape) for weight in (np.concatenate(weights), None)
        )
        size = np.sqrt(np.outer(self.counts_N[first:last], self.counts_N))
        return np.divide(weighted, size, out=np.zeros(shape), where=size > 0), counted.astype(np.float64)
