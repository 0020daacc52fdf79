"""What is known about items themselves, as a part of their vectors: genres, words of the title, years.

The vector of item i is its own row of the table plus sum_f s_f x_f(i) P_f over features f. Items that few people met
share what their genre or author has learned. P starts at zero: at first a model is what it would be without features.

Shapes: N items, F width of a feature, D width of item vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.data.features import Categorical, Dense, Feature, Numeric
from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError

Floats = npt.NDArray[np.float32]

#: Numbers are cut into so many parts of about equally many items.
PARTS = 10
#: Numbers that the rows of one feature may hold: 1 GiB of float32.
MOST = 1 << 28


class ItemFeature(nn.Module):
    """One feature of all items, and the projection that makes a part of their vectors of it.

    Its size is known when it meets data (`take`) or a checkpoint; until then it cannot be used.
    """

    rows: Tensor | None
    weight: nn.Parameter | None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("rows", None)
        self.register_parameter("weight", None)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, items: Tensor | None = None) -> Tensor:
        """What the feature adds to the vectors (..., D) of items (...), or to the whole table (N + 1, D).

        Raises:
            ConfigError: it knows nothing yet.
        """
        if self.rows is None or self.weight is None:
            raise ConfigError(
                "model.item_features: the model has not been told about the items. Call model.fit_data(data) before "
                "training, or load a checkpoint."
            )
        with torch.autocast(self.rows.device.type, enabled=False):  # tables are float32; it is a small product
            rows = self.rows if items is None else F.embedding(items, self.rows)
            return rows @ self.weight * self.scale

    def take(self, rows: Tensor) -> None:
        """Know (N + 1, F) rows, that of PAD first. What was learned stays where the width is the same."""
        if self.weight is None or self.weight.shape[0] != rows.shape[1]:
            self.weight = nn.Parameter(rows.new_zeros(rows.shape[1], self.width))
        self.rows = rows

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """As torch calls it: a checkpoint brings rows along, so that no data are needed."""
        rows = state_dict.get(f"{prefix}rows")
        if rows is not None and (self.rows is None or self.rows.shape != rows.shape):
            self.take(torch.empty_like(rows, device=self.scale.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def feature_rows(data: PreparedData, names: Sequence[str]) -> list[Floats]:
    """(N, F) float32 rows of each feature by name, of length 1; zeros where nothing is known.

    Raises:
        ConfigError: the data set has no such feature, or one of them is too large.
    """
    known = data.features().items
    if missing := sorted(set(names) - set(known)):
        raise ConfigError(
            f"model.item_features: {data.name} says nothing about {', '.join(missing)} of its items; it has "
            f"{', '.join(known) or 'no features at all'}. Name one of these, leave the key out, or prepare the data "
            "from a source that tells more."
        )
    for name in names:
        if (size := len(known[name]) * _width(known[name])) > MOST:
            raise ConfigError(f"model.item_features: {name} would be a table of {size:,} numbers; leave it out.")
    return [rows_of(known[name]) for name in names]


def rows_of(feature: Feature) -> Floats:
    """(N, F) float32 rows of length 1: how an item differs from the mean of those known. Zeros for the others.

    A word is a column, and so is each tenth of the range of a number, by how many items fall in it. Without taking
    the mean away, features would first of all learn to move all items together.
    """
    rows, known = _columns(feature), np.asarray(feature.present)
    rows[known] -= rows[known].mean(0) if known.any() else 0
    rows[~known] = 0
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-6))


def _columns(feature: Feature) -> Floats:
    """(N, F) float32: vectors as they are, words as sets of equal weight."""
    if isinstance(feature, Dense):
        return np.array(feature.vectors, dtype=np.float32)
    rows = np.zeros((len(feature), _width(feature)), dtype=np.float32)
    if isinstance(feature, Numeric):
        values = np.asarray(feature.values)[feature.present]
        if len(values):
            edges = np.quantile(values, np.arange(1, PARTS) / PARTS)
            rows[feature.present, np.searchsorted(edges, values, side="right")] = 1
        return rows
    counts = feature.present.astype(np.int64) if isinstance(feature, Categorical) else np.diff(feature.offsets)
    codes = np.asarray(feature.codes)
    rows[np.repeat(np.arange(len(feature)), counts), codes[codes > 0] - 1] = 1
    return np.asarray(rows / np.sqrt(np.maximum(counts, 1))[:, None], dtype=np.float32)


def _width(feature: Feature) -> int:
    if isinstance(feature, Dense):
        return int(feature.vectors.shape[1])
    return PARTS if isinstance(feature, Numeric) else len(feature.vocabulary)
