"""The most similar rows of every row, found block by block: memory is rows x k, never rows x rows.

Shapes: R rows, A rows of a block, K neighbours, E pairs (row, neighbour).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from seqrec.errors import DataError
from seqrec.models.interaction_matrix import scipy_sparse
from seqrec.models.similarities import Floats, Sparse

#: Cells (row, other row) that are compared at once: 0.2 GB at most with what the measures need beside them.
BLOCK_CELLS = 1 << 21
#: Comparisons that take about an hour; more are refused.
MOST_PAIRS = 10**11

#: From rows `first` to `last` - 1: their similarity to all rows (A, R), and what they share with each (A, R).
Compare: TypeAlias = Callable[[int, int], tuple[Floats, Floats]]


class Neighbours(NamedTuple):
    """Sparse rows: row r has the neighbours others[offsets[r]:offsets[r + 1]], in order of their numbers.

    Attributes:
        offsets: (R + 1,) int64.
        others: (E,) int32 rows.
        similarities: (E,) float32.
    """

    offsets: Tensor
    others: Tensor
    similarities: Tensor

    @classmethod
    def none(cls, rows: int) -> Neighbours:
        """Nobody is a neighbour of anybody."""
        return cls(torch.zeros(rows + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int32), torch.zeros(0))

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Neighbours:
        """What `_asdict` gave."""
        return cls(*(state[name] for name in cls._fields))

    def matrix(self, columns: int) -> Sparse:
        """scipy.sparse.csr_matrix (R, columns) of float32."""
        parts = (self.similarities.numpy(), self.others.numpy(), self.offsets.numpy())
        return scipy_sparse().csr_matrix(parts, shape=(len(self.offsets) - 1, columns))


def nearest(compare: Compare, rows: int, k: int, shrink: float = 0.0) -> Neighbours:
    """The `k` most similar of all rows to each row.

    Rows that share nothing are no neighbours, whatever a distance says about them, nor are rows whose similarity is
    not above 0. Equals go by number.

    Args:
        compare: see `Compare`.
        shrink: a similarity that rests on n shared things is multiplied by n / (n + shrink): Herlocker, Konstan,
            Borchers & Riedl, SIGIR 1999; Koren, KDD 2008.

    Raises:
        DataError: there are too many pairs.
    """
    if rows * rows > MOST_PAIRS:
        raise DataError(
            f"{rows:,} items make {rows * rows:,} pairs to compare, more than {MOST_PAIRS:,}. Keep fewer items "
            "(data.min_item_count), or choose a model that does not compare all pairs, such as markov or ease."
        )
    # Allocated at once: small pieces between the large arrays of each block would keep the allocator from reusing them.
    counts = np.zeros(rows + 1, dtype=np.int64)
    others, similarities = (np.empty(rows * min(k, rows), dtype) for dtype in (np.int32, np.float32))
    end = 0
    for first, last in blocks(rows, rows):
        counts[first + 1 : last + 1], columns, values = top(shrunk(*compare(first, last), shrink), k)
        others[end : end + len(columns)], similarities[end : end + len(columns)] = columns, values
        end += len(columns)
    found = (torch.from_numpy(array[:end].copy()) for array in (others, similarities))
    return Neighbours(torch.from_numpy(counts.cumsum()), *found)


def blocks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows with `BLOCK_CELLS` cells at most, or of one row."""
    size = max(BLOCK_CELLS // max(columns, 1), 1)
    for first in range(0, rows, size):
        yield first, min(first + size, rows)


def others_only(similarity_AR: Floats, first: int) -> Floats:
    """The similarities of rows `first`, `first` + 1, ... without that of each row to itself, in place."""
    rows = np.arange(len(similarity_AR))
    similarity_AR[rows, first + rows] = 0
    return similarity_AR


def shrunk(similarity_AR: Floats, shared_AR: Floats, shrink: float) -> Floats:
    """Similarities that rest on little made smaller, and 0 where nothing is shared."""
    return np.where(shared_AR > 0, similarity_AR * shared_AR / np.maximum(shared_AR + shrink, 1e-300), 0)


def top(similarity_AR: Floats, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `k` largest positive entries of each row: how many there are (A,), columns (E,) and values (E,).

    Entries come by column. Of equals at the end the first columns are kept, so a row's neighbours depend on nothing
    but the row.
    """
    cells = torch.from_numpy(similarity_AR.astype(np.float32))
    least_A1 = cells.topk(min(k, cells.shape[1]), sorted=True).values[:, -1:].clamp(min=0)
    above, equal = cells > least_A1, (cells == least_A1) & (cells > 0)
    room_A1 = k - above.sum(1, keepdim=True)
    kept = above | (equal & (equal.cumsum(1) <= room_A1))
    return kept.sum(1).numpy(), kept.nonzero()[:, 1].int().numpy(), cells[kept].numpy()
