"""The matrix of histories against loops, in blocks of any size, and the rows of a batch against it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.batches import Batch
from seqrec.data.sequences import Sequences
from seqrec.errors import MissingExtraError
from seqrec.models.interaction_matrix import history_matrix, interaction_matrix

N = 6
HISTORIES = st.lists(st.lists(st.integers(1, N), max_size=9), min_size=1, max_size=8)
DECAYS = st.sampled_from([0.3, 0.9, 1.0])


def slow(histories: list[list[int]], decay: float) -> np.ndarray:
    rows = np.zeros((len(histories), N))
    for row, history in zip(rows, histories, strict=True):
        for age in reversed(range(len(history))):
            row[history[-1 - age] - 1] = decay**age
    return rows


@given(HISTORIES, DECAYS, st.sampled_from([2, 5, 1 << 20]))
def test_weights_are_those_of_the_latest_occurrence(histories: list[list[int]], decay: float, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqrec.data.sequences.BLOCK", block)
        found = interaction_matrix(Sequences.of(histories, N), decay)
    assert found.dtype == np.float32
    assert found.has_canonical_format
    np.testing.assert_allclose(found.toarray(), slow(histories, decay), rtol=1e-6)


def test_only_what_the_view_holds_counts() -> None:
    whole = Sequences.of([[1, 2, 3], [4, 5]], N)
    found = interaction_matrix(whole.until(whole.ends - 1), 0.5)
    np.testing.assert_array_equal(found.toarray(), slow([[1, 2], [4]], 0.5))


@given(st.lists(st.lists(st.integers(1, N), min_size=1, max_size=9), min_size=1, max_size=5), DECAYS)
def test_a_batch_has_the_same_rows(histories: list[list[int]], decay: float) -> None:
    found = history_matrix(Batch.of(histories), N, decay)
    np.testing.assert_allclose(found, interaction_matrix(Sequences.of(histories, N), decay).toarray(), rtol=1e-6)


def test_weights_below_a_float32_are_not_stored() -> None:
    assert interaction_matrix(Sequences.of([[1, *[2] * 400]], 2), 0.5).nnz == 1


def test_a_missing_scipy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(MissingExtraError, match=r"seqrec\[classical\]"):
        interaction_matrix(Sequences.of([[1]], 1))
