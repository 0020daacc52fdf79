"""What similarities are computed from: ratings, ratings less a mean, vectors, and whether that is affordable.

Shapes: U users, N items (column j is item j + 1), R rows, C columns, D width of a vector, E events.
"""

from __future__ import annotations

import numpy as np

from seqrec.data.sequences import Sequences
from seqrec.errors import DataError, MissingExtraError
from seqrec.models.interaction_matrix import scipy_sparse
from seqrec.models.neighbours import MOST_PAIRS
from seqrec.models.similarities import Floats, Rows, Sparse

#: A deviation from the mean below this is rounding: the user gives everything the same rating.
ROUNDING = 1e-9


def rating_matrix(train: Sequences, needed_by: str) -> Sparse:
    """Ratings of the training events: scipy.sparse.csr_matrix (U, N) of float64, the last one of each pair.

    Events without a rating are left out.

    Raises:
        DataError: there are no ratings at all; the message names what `needed_by` stands for.
        MissingExtraError: scipy is not installed.
    """
    lengths = train.lengths
    row_E = np.repeat(np.arange(len(train)), lengths)
    position_E = np.arange(len(row_E)) - np.repeat(np.cumsum(lengths) - lengths - train.starts, lengths)
    values_E = None if train.values is None else np.asarray(train.values[position_E], dtype=np.float64)
    if values_E is None or np.isnan(values_E).all():
        raise DataError(
            f"{needed_by} compares ratings, and this log has none. Choose a similarity that looks at who met what, "
            "such as cosine or jaccard, and leave `ratings` off."
        )
    rated_E = ~np.isnan(values_E)
    key_E = row_E[rated_E] * train.num_items + train.items[position_E[rated_E]] - 1
    key, newest = np.unique(key_E[::-1], return_index=True)
    pairs = (values_E[rated_E][::-1][newest], (key // train.num_items, key % train.num_items))
    return scipy_sparse().csr_matrix(pairs, shape=(len(train), train.num_items))


def centred(matrix: Sparse) -> Sparse:
    """Every entry (R, C) less the mean of the entries of its row; entries that become 0 stay entries."""
    counts = np.diff(matrix.indptr)
    means = np.asarray(matrix.sum(1)).ravel() / np.maximum(counts, 1)
    kept = matrix.copy()
    kept.data = matrix.data - np.repeat(means, counts)
    kept.data[np.abs(kept.data) < ROUNDING] = 0
    return kept


def svd_vectors(matrix: Sparse, width: int) -> tuple[Floats, Floats]:
    """Vectors U S (R, D) and V (C, D) of the truncated singular value decomposition matrix ~ U S V'.

    D is `width`, or fewer where the matrix has fewer rows or columns. The projections start from fixed numbers:
    the same matrix gives the same vectors. Halko, Martinsson & Tropp, SIAM Review 2011.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.utils.extmath import randomized_svd
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "classical") from error
    width = min(width, *matrix.shape)
    left, sizes, right = randomized_svd(matrix.astype(np.float64), width, n_iter=4, random_state=0)
    return left * sizes, right.T


def require_few_products(rows: Rows) -> None:
    """Refuse rows whose comparison would take hours: the sum over columns of (entries in the column)².

    Raises:
        DataError: there are too many.
    """
    per_column = np.diff(rows.columns.indptr).astype(np.float64)
    products = float((per_column**2).sum())
    if products > MOST_PAIRS:
        raise DataError(
            f"Comparing all items takes {products:.2g} products, more than {MOST_PAIRS:,}: the longest history has "
            f"{int(per_column.max()):,} items. Sample the log, keep fewer items, or choose similarity: sequence."
        )
