"""Titles and texts as vectors: hashed character n-grams, or vectors that somebody else has made.

An n-gram is 3 to 5 characters of a word with one blank on either side, so ` the`, `the `, `the` and ` the ` are
n-grams of "The". Words are what blanks separate, folded: compatibility forms decomposed (NFKD), Latin accents
dropped, case folded. Each n-gram is hashed to 64 bits; the low bits choose one of D places, the highest whether 1 is
added or taken away there ("the hashing trick": Weinberger et al., "Feature Hashing for Large Scale Multitask
Learning", 2009). Rows are divided by their Euclidean length. Nothing is learned from the data, so the vector of a
title depends on that title only, and is the same on every machine.

Shapes: R rows, D width, T titles, S symbols (characters of all titles of a block), G n-grams.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seqrec.data.features import Dense, Floats
from seqrec.errors import DataError

SIZES = (3, 4, 5)
#: Characters worked on together: bounds memory, and does not change the result.
BLOCK_SYMBOLS = 2_000_000
#: Multiplier of the polynomial over characters, and the finaliser of SplitMix64 (Steele et al. 2014).
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
ACCENTS = (0x300, 0x36F)
SUFFIXES = (".npz", ".npy", ".parquet", ".pq")
VECTOR_COLUMNS = ("vector", "embedding")
ID_COLUMNS = ("id", "item_id")


def hashed_text(texts: Sequence[str | None], width: int = 256, source: str = "") -> Dense:
    """Vectors (R, width) of texts; None, empty and blank texts are absent.

    Long texts cost time in proportion to their characters: 100,000 titles take seconds.
    """
    words = [" ".join(text.split()) if text else "" for text in texts]
    vectors = np.zeros((len(words), width), dtype=np.float32)
    start = 0
    for stop in _block_ends(words):
        _add_block(words[start:stop], vectors[start:stop])
        start = stop
    lengths = np.sqrt(np.einsum("rd,rd->r", vectors, vectors))
    vectors /= np.where(lengths > 0, lengths, 1)[:, None]
    return Dense(vectors, np.array([bool(text) for text in words], dtype=bool), source)


def _block_ends(words: Sequence[str]) -> list[int]:
    symbols = np.cumsum([len(text) + 1 for text in words])
    if len(symbols) == 0:
        return []
    cuts = np.searchsorted(symbols, np.arange(BLOCK_SYMBOLS, symbols[-1], BLOCK_SYMBOLS), side="right")
    return [int(cut) for cut in np.unique([*cuts, len(words)]) if cut > 0]


def _add_block(words: Sequence[str], vectors_TD: Floats) -> None:
    """Add the n-grams of each title to its row."""
    titles, width = vectors_TD.shape
    folded_S = _fold("\n".join(["", *words, ""]))
    title_S = np.cumsum(folded_S == ord("\n")) - 1
    blank_S = (folded_S == ord("\n")) | (folded_S == ord(" "))
    codes_S = np.where(blank_S, ord(" "), folded_S).astype(np.uint64)
    blanks_S = np.concatenate([[0], np.cumsum(blank_S)])
    for size in SIZES:
        first_G = np.arange(max(len(codes_S) - size + 1, 0))
        # Blanks only at the ends: an n-gram lies in one word, and so in one title.
        first_G = first_G[blanks_S[first_G + size - 1] == blanks_S[first_G + 1]]
        hash_G = _hash(codes_S, first_G, size)
        sign_G = np.where(hash_G >> np.uint64(63), 1.0, -1.0)
        place_G = title_S[first_G + 1] * width + (hash_G % np.uint64(width)).astype(np.int64)
        vectors_TD += np.bincount(place_G, sign_G, titles * width).reshape(titles, width)


def _fold(text: str) -> npt.NDArray[np.uint32]:
    """Code points of the text in folded form; line ends stay where they are."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    codes = np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return codes[(codes < ACCENTS[0]) | (codes > ACCENTS[1])]


def _hash(codes_S: npt.NDArray[np.uint64], first_G: Any, size: int) -> npt.NDArray[np.uint64]:
    hash_G = np.full(len(first_G), size, dtype=np.uint64)
    for step in range(size):
        hash_G = hash_G * MULTIPLIER + codes_S[first_G + step]
    for shift, factor in MIX:
        hash_G = (hash_G ^ (hash_G >> np.uint64(shift))) * np.uint64(factor)
    return hash_G


def supplied_vectors(path: Path, ids: Sequence[str]) -> Dense:
    """Vectors (R, D) of `ids` from a file; rows are matched by id, and ids that are not in the file are absent.

    Args:
        path: a `.npz` with arrays `ids` (M,) and `vectors` (M, D); a `.npy` (M, D) beside a text file of the same
            name that ends in `.ids.txt`, one id per line; or a Parquet file with columns `id` and `vector` (lists).
        ids: external ids of the rows.

    Raises:
        DataError: the file cannot be read, its shapes do not fit, a number in it is not finite, an id occurs twice,
            or none of the ids is one of ours.
    """
    known, vectors = _read_vectors(path)
    if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: vectors are {vectors.dtype} {vectors.shape}; numbers of shape (ids, width) are needed."
        )
    if len(known) != len(vectors):
        raise DataError(f"{path}: {len(known):,} ids but {len(vectors):,} vectors; one vector per id is needed.")
    vectors = vectors.astype(np.float32)
    if len(bad := np.flatnonzero(~np.isfinite(vectors).all(axis=1))):
        raise DataError(
            f"{path}, row {bad[0] + 1} (id {known[bad[0]]!r}): the vector has NaN or infinity in it. "
            "Leave such ids out: they count as absent then."
        )
    rows = {name: row for row, name in enumerate(known)}
    if len(rows) < len(known):
        row = next(row for row, name in enumerate(known) if rows[name] != row)
        raise DataError(f"{path}: id {known[row]!r} occurs in rows {row + 1} and {rows[known[row]] + 1}. Keep one.")
    row_R = np.array([rows.get(name, -1) for name in ids], dtype=np.int64)
    if not (row_R >= 0).any():
        raise DataError(
            f"{path}: none of its {len(known):,} ids (such as {known[:1]}) is an item of this data set "
            f"(such as {list(ids[:1])}). Ids are compared as text, as the log writes them."
        )
    present = row_R >= 0
    return Dense(np.where(present[:, None], vectors[row_R], np.float32(0)), present, f"vectors in {path.name}")


def _read_vectors(path: Path) -> tuple[list[str], npt.NDArray[Any]]:
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: vectors come as {', '.join(SUFFIXES)}, not {path.suffix or 'without a suffix'}.")
    read = {".npz": _read_npz, ".npy": _read_npy}.get(path.suffix, _read_parquet)
    try:
        ids, vectors = read(path)
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename or path} does not exist. See `supplied_vectors` for what is needed."
        ) from error
    except (OSError, ValueError, EOFError, LookupError) as error:
        raise DataError(f"{path}: vectors cannot be read from it ({error}). Write the file anew.") from error
    return [str(name) for name in ids], vectors


def _read_npz(path: Path) -> tuple[Any, npt.NDArray[Any]]:
    with np.load(path, allow_pickle=False) as arrays:
        missing = {"ids", "vectors"} - set(arrays.files)
        if missing:
            raise ValueError(f"no array {' and '.join(sorted(missing))}; it has {', '.join(arrays.files)}")
        return arrays["ids"].tolist(), arrays["vectors"]


def _read_npy(path: Path) -> tuple[Any, npt.NDArray[Any]]:
    ids = path.with_suffix(".ids.txt").read_text("utf-8").splitlines()
    return ids, np.load(path, mmap_mode="r", allow_pickle=False)


def _read_parquet(path: Path) -> tuple[Any, npt.NDArray[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    id_column, column = (
        next((name for name in names if name in table.column_names), None) for names in (ID_COLUMNS, VECTOR_COLUMNS)
    )
    if id_column is None or column is None:
        raise ValueError(f"columns id and vector are needed; it has {', '.join(table.column_names)}")
    lists = table[column].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks)
    ids = table[id_column].to_pylist()
    if not len(lists):
        return ids, np.zeros((0, 0))
    width = {len(value) if value is not None else None for value in lists}
    if len(width) != 1 or None in width:
        raise ValueError(f"lists in column {column} have lengths {sorted(map(str, width))}; all need the same one")
    return ids, lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1)
