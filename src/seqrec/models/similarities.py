"""How alike two rows of a sparse matrix are: one function per measure, all of them from sparse products.

Rows are items over users, or users over items. A cell without an entry counts as zero. Every function takes a `Pair`
and gives (A, B) float64: each of the first rows against each of the second, exactly, whether they share a column or
not; where a measure is not defined (an empty row, a row without variance) it is 0. A distance d becomes 1 / (1 + d).

For binary rows everything follows from |a|, |b| and |a ∩ b|, so one sparse product does. Then Hamming and Manhattan are
the same number, Euclidean is the root of it, and Bhattacharyya is the cosine.

Shapes: R rows, C columns, A and B rows of the two sides of a pair, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from seqrec.errors import DataError

Floats: TypeAlias = npt.NDArray[np.float64]
#: scipy.sparse.csr_matrix, which is imported late.
Sparse: TypeAlias = Any
#: A function of entries, and the name under which its result is kept.
Mapped: TypeAlias = tuple[str, Callable[[Floats], Floats]]

#: Share of a uniform distribution that `kullback_leibler` mixes in, so that no logarithm meets zero.
SMOOTHING = 0.1
#: Manhattan and Hamming take one sparse product per distinct value; ratings have five or ten of them.
MOST_VALUES = 32
#: A difference of sums of squares below this share of them is rounding.
ROUNDING = 1e-12


class Rows:
    """Rows to compare, with what products need of them worked out once.

    Attributes:
        matrix: scipy.sparse.csr_matrix (R, C); an entry that is stored counts as there even where it is 0.
        vectors: (R, D) a vector per row, for `embedding`.
    """

    def __init__(self, matrix: Sparse, vectors: Floats | None = None) -> None:
        self.matrix = matrix.astype(np.float64)
        self.vectors = vectors
        self._mapped: dict[str, Rows] = {}

    def block(self, first: int, last: int) -> Rows:
        """Rows `first` to `last` - 1."""
        return Rows(self.matrix[first:last], None if self.vectors is None else self.vectors[first:last])

    @cached_property
    def binary(self) -> bool:
        """Whether every entry is 1."""
        return bool((self.matrix.data == 1).all())

    @cached_property
    def sizes(self) -> Floats:
        """(R,) number of entries."""
        return np.diff(self.matrix.indptr).astype(np.float64)

    @cached_property
    def sums(self) -> Floats:
        """(R,) sum of each row."""
        return np.asarray(self.matrix.sum(1), dtype=np.float64).ravel()

    @cached_property
    def squares(self) -> Floats:
        """(R,) sum of squares of each row."""
        return np.asarray(self.matrix.multiply(self.matrix).sum(1), dtype=np.float64).ravel()

    @cached_property
    def columns(self) -> Sparse:
        """The transpose (C, R), by rows: the second factor of a product."""
        return self.matrix.T.tocsr()

    @property
    def ones(self) -> Rows:
        """1 wherever there is an entry."""
        # Not kept by the property: rows that hold themselves would stay in memory until a collection of cycles.
        return self if self.binary else self.mapped("ones", np.ones_like)

    @property
    def squared(self) -> Rows:
        """The square of every entry."""
        return self if self.binary else self.mapped("squared", np.square)

    @cached_property
    def shares(self) -> Rows:
        """Every entry over the sum of its row.

        Raises:
            DataError: an entry is negative.
        """
        if (self.matrix.data < 0).any():
            raise DataError("Negative ratings are no shares of a whole: compare events, or choose cosine or pearson.")
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = self.matrix.data / np.repeat(self.sums, np.diff(self.matrix.indptr))
        return self.mapped("shares", lambda _: np.nan_to_num(shares, nan=0.0))

    @cached_property
    def values(self) -> Floats:
        """The distinct entries, ascending.

        Raises:
            DataError: there are more than `MOST_VALUES`.
        """
        values = np.unique(self.matrix.data)
        if len(values) > MOST_VALUES:
            raise DataError(
                f"Manhattan and Hamming compare value by value, and there are {len(values):,} different ratings, more "
                f"than {MOST_VALUES}. Compare events instead, or choose euclidean."
            )
        return values

    @cached_property
    def unit(self) -> Floats:
        """(R, D) the vectors scaled to length 1, or 0 where they are."""
        if self.vectors is None:
            raise ValueError("these rows have no vectors")
        lengths = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return self.vectors / np.where(lengths > 0, lengths, 1)

    def mapped(self, name: str, f: Callable[[Floats], Floats]) -> Rows:
        """The same entries with values f(value); kept under `name`, since one side stays through many pairs."""
        if name not in self._mapped:
            matrix = self.matrix.copy()
            matrix.data = f(matrix.data).astype(np.float64)
            self._mapped[name] = Rows(matrix)
        return self._mapped[name]

    def where(self, name: str, chosen: Callable[[Floats], npt.NDArray[np.bool_]]) -> Rows:
        """1 at the entries whose values are chosen, nothing elsewhere; kept under `name`."""
        if name not in self._mapped:
            self.mapped(name, lambda data: chosen(data).astype(np.float64)).matrix.eliminate_zeros()
        return self._mapped[name]


@dataclass(frozen=True)
class Pair:
    """Two sides to compare, over the same columns."""

    a: Rows
    b: Rows

    @cached_property
    def common(self) -> Floats:
        """(A, B) number of columns in which both have an entry."""
        return product(self.a.ones, self.b.ones)

    @cached_property
    def dot(self) -> Floats:
        """(A, B) inner products."""
        return self.common if self.binary else product(self.a, self.b)

    @property
    def binary(self) -> bool:
        """Whether all entries on both sides are 1."""
        return self.a.binary and self.b.binary


def product(a: Rows, b: Rows) -> Floats:
    """(A, B) inner products of rows; a row has the same result whatever stands beside it."""
    return (a.matrix @ b.columns).toarray()


def cosine(pair: Pair) -> Floats:
    """a·b / (|a| |b|): Salton & McGill, "Introduction to Modern Information Retrieval", 1983."""
    return _over(pair.dot, np.sqrt(np.outer(pair.a.squares, pair.b.squares)))


def adjusted_cosine(pair: Pair) -> Floats:
    """Cosine of ratings less each user's mean, over the users who rated both.

    sum r_ui r_uj / sqrt(sum r_ui^2 sum r_uj^2) over u in both: Sarwar, Karypis, Konstan & Riedl, "Item-based
    Collaborative Filtering Recommendation Algorithms", WWW 2001. The rows have to be centred: see `centred`.
    """
    square_a = product(pair.a.squared, pair.b.ones)
    square_b = product(pair.a.ones, pair.b.squared)
    return np.clip(_over(pair.dot, np.sqrt(square_a * square_b)), -1, 1)


def pearson(pair: Pair) -> Floats:
    """Correlation of whole rows, zeros too: for binary rows the phi coefficient (Pearson, 1900).

    (C a·b - Σa Σb) / sqrt((C Σa² - (Σa)²) (C Σb² - (Σb)²)).
    """
    width = pair.a.matrix.shape[1]
    spread_a, spread_b = (_spread(width, rows.sums, rows.squares) for rows in (pair.a, pair.b))
    covariance = width * pair.dot - np.outer(pair.a.sums, pair.b.sums)
    return np.clip(_over(covariance, np.sqrt(np.outer(spread_a, spread_b))), -1, 1)


def common_pearson(pair: Pair) -> Floats:
    """Correlation of ratings over the columns in which both have one.

    Resnick, Iacovou, Suchak, Bergstrom & Riedl, "GroupLens", CSCW 1994.
    """
    sum_a, sum_b = product(pair.a, pair.b.ones), product(pair.a.ones, pair.b)
    spread_a = _spread(pair.common, sum_a, product(pair.a.squared, pair.b.ones))
    spread_b = _spread(pair.common, sum_b, product(pair.a.ones, pair.b.squared))
    return np.clip(_over(pair.common * pair.dot - sum_a * sum_b, np.sqrt(spread_a * spread_b)), -1, 1)


def jaccard(pair: Pair) -> Floats:
    """|a ∩ b| / |a ∪ b| of the entries, whatever their values: Jaccard, "The Distribution of the Flora", 1912."""
    return _over(pair.common, np.add.outer(pair.a.sizes, pair.b.sizes) - pair.common)


def euclidean(pair: Pair) -> Floats:
    """1 / (1 + d), d² = |a|² + |b|² - 2 a·b."""
    total = np.add.outer(pair.a.squares, pair.b.squares)
    squared = total - 2 * pair.dot
    return 1 / (1 + np.sqrt(np.where(squared > ROUNDING * total, squared, 0)))


def manhattan(pair: Pair) -> Floats:
    """1 / (1 + d), d = Σ|a - b| = Σ|a| + Σ|b| - 2 Σ min(|a|, |b|) over cells of one sign.

    The sum of minima is Σ_t (v_t - v_t-1) |{a >= v_t} ∩ {b >= v_t}| over the distinct values v_1 < v_2 < ...: one
    sparse product each.

    Raises:
        DataError: there are more than `MOST_VALUES` distinct values.
    """
    size_a, size_b = (np.asarray(abs(rows.matrix).sum(1)).ravel() for rows in (pair.a, pair.b))
    return 1 / (1 + np.add.outer(size_a, size_b) - 2 * _minima(pair))


def hamming(pair: Pair) -> Floats:
    """1 / (1 + d), d the number of cells that differ: Hamming, "Error Detecting and Error Correcting Codes", 1950.

    d = |a| + |b| - |a ∩ b| - Σ_v |{a = v} ∩ {b = v}|, one sparse product per distinct value v.

    Raises:
        DataError: there are more than `MOST_VALUES` distinct values.
    """
    differing = np.add.outer(pair.a.sizes, pair.b.sizes) - pair.common
    return 1 / (1 + differing - _equal(pair))


def bhattacharyya(pair: Pair) -> Floats:
    """Coefficient Σ sqrt(p q) of two distributions, p = a / Σa: Bhattacharyya, Bull. Calcutta Math. Soc. 1943.

    In collaborative filtering: Patra, Launonen, Ollikainen & Nandi, Knowledge-Based Systems 2015.

    Raises:
        DataError: an entry is negative.
    """
    return _of_shares(pair, ("root", np.sqrt), ("root", np.sqrt))


def kullback_leibler(pair: Pair) -> Floats:
    """1 / (1 + J), J = Σ (p - q) (log p - log q): Kullback & Leibler, "On Information and Sufficiency", 1951.

    p = (1 - s) a / Σa + s / C with s = `SMOOTHING` (Jelinek-Mercer smoothing: Zhai & Lafferty, 2004). What is uniform
    cancels: with p' = (1 - s) a / Σa and L = log(1 + p' C / s), both zero where a is, J = Σ (p' - q') (L_p - L_q).

    Raises:
        DataError: an entry is negative.
    """
    scale = pair.a.matrix.shape[1] / SMOOTHING

    def share(part: Floats) -> Floats:
        return (1 - SMOOTHING) * part

    def logarithm(part: Floats) -> Floats:
        return np.log1p(share(part) * scale)

    own = [rows.shares.mapped("own", lambda p: share(p) * logarithm(p)).sums for rows in (pair.a, pair.b)]
    smooth, log = ("smooth", share), ("log", logarithm)
    cross = _of_shares(pair, smooth, log) + _of_shares(pair, log, smooth)
    return 1 / (1 + np.maximum(np.add.outer(*own) - cross, 0))


def embedding(pair: Pair) -> Floats:
    """Cosine of the rows' vectors: of a truncated SVD, for instance, as in Sarwar et al., WebKDD 2000."""
    return pair.a.unit @ pair.b.unit.T


SIMILARITIES: dict[str, Callable[[Pair], Floats]] = {
    "cosine": cosine,
    "adjusted_cosine": adjusted_cosine,
    "pearson": pearson,
    "common_pearson": common_pearson,
    "jaccard": jaccard,
    "euclidean": euclidean,
    "manhattan": manhattan,
    "hamming": hamming,
    "bhattacharyya": bhattacharyya,
    "kullback_leibler": kullback_leibler,
    "embedding": embedding,
}
#: Those that say nothing without ratings.
NEED_RATINGS = ("adjusted_cosine", "common_pearson")
#: Those that are above 0 for rows that share nothing, which are no neighbours all the same.
DISTANCES = ("euclidean", "manhattan", "hamming", "kullback_leibler")


def _over(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _spread(count: Any, sums: Floats, squares: Floats) -> Floats:
    """`count` times the sum of squared deviations from the mean; 0 where only rounding is left."""
    spread = count * squares - sums**2
    return np.where(spread > ROUNDING * count * squares, spread, 0)


def _minima(pair: Pair) -> Floats:
    """(A, B) sums of min(|a|, |b|) over the cells in which a and b have one sign."""
    if pair.binary:
        return pair.common
    total = np.zeros((len(pair.a.sizes), len(pair.b.sizes)))
    values = np.union1d(pair.a.values, pair.b.values)
    for sign in (1, -1):
        before = 0.0
        for value in np.sort(sign * values[sign * values > 0]):
            total += (value - before) * product(*(_beyond(rows, sign, value) for rows in (pair.a, pair.b)))
            before = float(value)
    return total


def _beyond(rows: Rows, sign: int, value: float) -> Rows:
    return rows.where(f"{sign} beyond {value}", lambda data: sign * data >= value)


def _equal(pair: Pair) -> Floats:
    """(A, B) number of columns in which a and b have entries of the same value."""
    if pair.binary:
        return pair.common
    total = np.zeros_like(pair.common)
    for value in np.intersect1d(pair.a.values, pair.b.values):
        total += product(*(_exactly(rows, value) for rows in (pair.a, pair.b)))
    return total


def _exactly(rows: Rows, value: float) -> Rows:
    return rows.where(f"exactly {value}", lambda data: data == value)


def _of_shares(pair: Pair, f: Mapped, g: Mapped) -> Floats:
    """(A, B) sums of f(share in a) g(share in b); in a binary row all shares are 1 / |a|."""
    if pair.binary:
        share_a, share_b = (1 / np.maximum(rows.sizes, 1) for rows in (pair.a, pair.b))
        return pair.common * np.outer(f[1](share_a), g[1](share_b))
    return product(pair.a.shares.mapped(*f), pair.b.shares.mapped(*g))
