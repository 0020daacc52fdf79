"""Hashed n-grams against a slow and plain twin; supplied vectors with everything that can be wrong with them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data import text_features
from seqrec.data.text_features import hashed_text, supplied_vectors
from seqrec.errors import DataError

WIDTH = 32


def plain(text: str) -> np.ndarray:
    """One title, n-gram by n-gram, in Python integers."""
    found = np.zeros(WIDTH)
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    folded = "".join(c for c in folded if not 0x300 <= ord(c) <= 0x36F)
    for word in folded.replace("\n", " ").split(" "):
        spaced = f" {word} "
        for size in (3, 4, 5):
            for start in range(len(spaced) - size + 1 if word else 0):
                value = size
                for symbol in spaced[start : start + size]:
                    value = (value * 0x9E3779B97F4A7C15 + ord(symbol)) % 2**64
                for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
                    value = (value ^ value >> shift) * factor % 2**64
                found[value % WIDTH] += 1 if value >> 63 else -1
    return found / (np.linalg.norm(found) or 1)


@given(
    st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["Amélie", "straße", "ﬁ"]))
)
def test_it_is_what_the_page_says(texts: list[str]) -> None:
    found = hashed_text(texts, WIDTH)
    for row, text in enumerate(texts):
        np.testing.assert_allclose(found.vectors[row], plain(" ".join(text.split())), atol=1e-6)
        assert found.present[row] == bool(text.split())


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = [f"Title {number} of the {number % 7}th kind" for number in range(200)] + [""]
    whole = hashed_text(titles, WIDTH).vectors
    monkeypatch.setattr(text_features, "BLOCK_SYMBOLS", 50)
    np.testing.assert_array_equal(hashed_text(titles, WIDTH).vectors, whole)


def test_spelling_that_means_the_same_is_the_same() -> None:
    vectors = hashed_text(["Amélie", "AMELIE ", "Heat", None, "  ", "Heat 2"]).vectors
    likeness = vectors @ vectors.T
    assert likeness[0, 1] == pytest.approx(1)
    assert likeness[2, 5] > 0.6 > 0.4 > likeness[0, 2]
    assert not vectors[3:5].any()
    assert hashed_text([]).vectors.shape == (0, 256)


def npz(path: Path, ids: object, vectors: object) -> Path:
    np.savez(path.with_suffix(".npz"), ids=np.array(ids), vectors=np.array(vectors))
    return path.with_suffix(".npz")


def npy(path: Path, ids: list[str], vectors: object) -> Path:
    np.save(path.with_suffix(".npy"), np.array(vectors))
    path.with_suffix(".ids.txt").write_text("\n".join(map(str, ids)) + "\n")
    return path.with_suffix(".npy")


def parquet(path: Path, ids: list[str], vectors: list[list[float]]) -> Path:
    pq.write_table(pa.table({"item_id": ids, "vector": vectors}), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


@pytest.mark.parametrize("write", [npz, npy, parquet])
def test_rows_are_matched_by_id(tmp_path: Path, write: Callable[..., Path]) -> None:
    found = supplied_vectors(
        write(tmp_path / "v", [30, 10, 99], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), ["10", "20", "30"]
    )
    assert found.vectors.tolist() == [[3, 4], [0, 0], [1, 2]]
    assert found.vectors.dtype == np.float32
    assert found.present.tolist() == [True, False, True]


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "none of the ids": (lambda p: npz(p, ["x"], [[1.0]]), r"none of its 1 ids \(such as \['x'\]\)"),
    "twice": (lambda p: npz(p, ["a", "b", "a"], np.ones((3, 2))), "id 'a' occurs in rows 1 and 3"),
    "NaN": (lambda p: npz(p, ["a", "b"], [[1.0], [np.nan]]), r"row 2 \(id 'b'\)"),
    "too few": (lambda p: npz(p, ["a", "b"], np.ones((3, 2))), "2 ids but 3 vectors"),
    "flat": (lambda p: npz(p, ["a", "b"], np.ones(2)), r"float64 \(2,\)"),
    "words": (lambda p: npz(p, ["a"], [["b"]]), "numbers of shape"),
    "objects": (lambda p: npz(p, np.array(["a", 1], object), np.ones((2, 2))), "cannot be read"),
    "uneven": (lambda p: parquet(p, ["a", "b"], [[1.0], [1.0, 2.0]]), r"lengths \['1', '2'\]"),
    "empty": (lambda p: parquet(p, [], []), "numbers of shape"),
    "no file": (lambda p: p.with_suffix(".npz"), "does not exist"),
    "no zip": (lambda p: p.with_suffix(".npz").write_text("x") and p.with_suffix(".npz"), "cannot be read"),  # type: ignore[dict-item, return-value]
    "a suffix": (lambda p: p.with_suffix(".txt"), "not .txt"),
}


@pytest.mark.parametrize("what", sorted(WRONG))
def test_vectors_that_cannot_be_used_are_said(tmp_path: Path, what: str) -> None:
    write, message = WRONG[what]
    with pytest.raises(DataError, match=message):
        supplied_vectors(write(tmp_path / "v"), ["a", "b"])


def test_missing_names_are_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", ids=np.array(["a"]))
    with pytest.raises(DataError, match="no array vectors; it has ids"):
        supplied_vectors(tmp_path / "v.npz", ["a"])
    np.save(tmp_path / "w.npy", np.ones((1, 1)))
    with pytest.raises(DataError, match=r"w\.ids\.txt does not exist"):
        supplied_vectors(tmp_path / "w.npy", ["a"])
    pq.write_table(pa.table({"name": ["a"]}), tmp_path / "v.parquet")
    with pytest.raises(DataError, match="columns id and vector are needed; it has name"):
        supplied_vectors(tmp_path / "v.parquet", ["a"])
