"""From the tables about items and users to features: which column becomes which kind.

| column | kind |
|---|---|
| items: `categories` and other lists of strings | multi-hot |
| items: `year`, `price` and other numbers | numeric |
| items: `title`, `text` | dense: hashed character n-grams |
| items: other strings | categorical |
| users: `age` | categorical: the age groups of MovieLens |
| users: the first of `PLACES` | categorical `region`: of US and Canadian postal codes the first character |
| users: other strings | categorical |

Vocabularies are counted over items (or users), each once: no interaction is looked at, so nothing leaks from the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from seqrec.data.features import Categorical, Dense, Feature, FeatureConfig, Features, MultiHot, Numeric
from seqrec.data.text_features import hashed_text, supplied_vectors

Columns: TypeAlias = dict[str, pa.Array]

TEXTS = ("title", "text")
#: Columns that say where somebody lives; the first there is becomes `region`.
PLACES = ("zip", "zip_code", "zipcode", "postal_code", "state", "region", "country")
#: Lower ends of MovieLens' age groups, and their names.
AGES = (0, 18, 25, 35, 45, 50, 56)
AGE_GROUPS = ("Under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56+")
OLDEST = 120
NUMBER = r"^\d{1,3}(\.0+)?$"
#: US and Canadian postal codes: their first character is a large region; whole, they would be one per person.
POSTAL_CODE = r"^(\d{5}(-\d{4})?|[A-Z]\d[A-Z][ -]?\d[A-Z]\d?)$"
#: Name of the feature that supplied vectors become.
SUPPLIED = "vectors"


def build_features(
    item_ids: Sequence[str],
    items: pa.Table | None,
    user_ids: Sequence[str],
    users: pa.Table | None,
    config: FeatureConfig | None = None,
) -> Features:
    """Features of the items and users of a data set, absent where the tables say nothing about them.

    Args:
        item_ids: id in the source of item 1, 2, ...; row j of a feature is item j + 1.
        items: `Interactions.items`, or None.
        user_ids: id in the source of user 0, 1, ...
        users: `Interactions.users`, or None.
        config: defaults when None.

    Raises:
        DataError: the supplied vectors cannot be used.
    """
    config = config or FeatureConfig()
    left_out: dict[str, str] = {}
    of_items = {} if items is None else _item_features(_rows(items, item_ids), config, left_out)
    of_users = {} if users is None else _user_features(_rows(users, user_ids), left_out)
    if config.vectors is not None:
        of_items[SUPPLIED] = supplied_vectors(Path(config.vectors), item_ids)
    return Features(of_items, of_users, left_out)


def _rows(table: pa.Table, ids: Sequence[str]) -> Columns:
    """The columns, with the rows of `ids` in that order; null where the table does not have an id."""
    if table.num_rows == 0:
        table = pa.table({name: pa.nulls(1, table.schema.field(name).type) for name in table.column_names})
    known = table["id"].cast(pa.string()).combine_chunks()
    index = pc.index_in(pa.array(ids, pa.string()), value_set=known)
    return {name: _plain(table[name]).take(index) for name in table.column_names if name != "id"}


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """One array without dictionary, strings with 64-bit offsets: a million texts are more than 2 GB."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type):
        column = column.cast(pa.large_string())
    return column.combine_chunks()


def _item_features(columns: Columns, config: FeatureConfig, left_out: dict[str, str]) -> dict[str, Feature]:
    found: dict[str, Feature] = {}
    for name, column in columns.items():
        if name in TEXTS and config.text_dim == 0:
            left_out[f"item.{name}"] = "text_dim is 0"
            continue
        feature = _text(name, column, config.text_dim) if name in TEXTS else _of_type(name, column)
        _keep(found, "item", name, feature, column, left_out)
    return found


def _user_features(columns: Columns, left_out: dict[str, str]) -> dict[str, Feature]:
    found: dict[str, Feature] = {}
    place = next((name for name in PLACES if name in columns), None)
    for name, column in columns.items():
        if name == place:
            _keep(found, "user", "region", _region(name, column), column, left_out)
        elif name == "age":
            _keep(found, "user", name, _age(column), column, left_out)
        elif name != "region":
            _keep(found, "user", name, _of_type(name, column), column, left_out)
    return found


def _keep(
    found: dict[str, Feature], of: str, name: str, feature: Feature | None, column: Any, left_out: dict[str, str]
) -> None:
    """Take a feature in, unless it says nothing."""
    if feature is None:
        left_out[f"{of}.{name}"] = f"columns of type {column.type} are no feature"
    elif not feature.present.any():
        left_out[f"{of}.{name}"] = "absent everywhere"
    else:
        found[name] = feature


def _of_type(name: str, column: pa.Array) -> Feature | None:
    """The feature that a column of this type becomes; None where there is no such kind."""
    kind = column.type
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    ):
        return _numeric(name, column)
    if pa.types.is_large_string(kind):
        return categorical(column, name)
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_text(kind.value_type):
        return multi_hot(column, name)
    return None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text(name: str, column: pa.Array, width: int) -> Dense | None:
    if not _is_text(column.type):
        return None
    return hashed_text(column.to_pylist(), width, f"{name}: character n-grams hashed to {width}")


def _numeric(name: str, column: pa.Array) -> Numeric:
    numbers = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
    values = numbers.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float32)
    return Numeric(np.where(np.isfinite(values), values, np.float32(np.nan)), name)


def categorical(column: pa.Array, source: str) -> Categorical:
    """Codes of a string column (R,); null, empty and blank strings are absent, blanks at the ends do not count."""
    codes, vocabulary = _codes(column)
    return Categorical(codes, vocabulary, source)


def multi_hot(column: pa.Array, source: str) -> MultiHot:
    """Sparse rows of a column of string lists (R,); a word that a row repeats counts once."""
    row_C = pc.list_parent_indices(column).to_numpy(zero_copy_only=False).astype(np.int64)
    codes_C, vocabulary = _codes(pc.list_flatten(column), row_C)
    width = len(vocabulary) + 1
    keys = _distinct(row_C[codes_C > 0] * width + codes_C[codes_C > 0])
    offsets = np.concatenate([[0], np.cumsum(np.bincount(keys // width, minlength=len(column)))]).astype(np.int64)
    return MultiHot(offsets, (keys % width).astype(np.int32), vocabulary, source)


def _codes(column: pa.Array, row_C: Any = None) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Codes (C,) and the vocabulary, most frequent first; with `row_C` (C,) a word counts once per row."""
    texts = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)
    encoded = texts.dictionary_encode()
    words = encoded.dictionary.to_pylist()
    index_C = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    counted = index_C[index_C >= 0]
    if row_C is not None:
        width = max(len(words), 1)
        counted = _distinct(row_C[index_C >= 0] * width + counted) % width
    counts = np.bincount(counted, minlength=len(words))
    order = sorted(range(len(words)), key=lambda word: (-counts[word], words[word]))
    code = np.zeros(len(words) + 1, dtype=np.int32)  # the last entry is what -1 points at: absent
    code[order] = np.arange(1, len(words) + 1, dtype=np.int32)
    return code[index_C], [words[word] for word in order]


def _distinct(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Ascending, each once. numpy's unique hashes, which takes twenty times as long where keys are nearly in order."""
    keys = np.sort(keys, kind="stable")
    return keys[np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)]]


def _age(column: pa.Array) -> Categorical | None:
    """Ages in years as MovieLens' age groups; what is no number (`25-34`) stays; beyond 120 and 0 are absent."""
    texts = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    is_number = pc.fill_null(pc.match_substring_regex(texts, NUMBER), False)
    years = (
        pc.if_else(is_number, texts, pa.scalar(None, pa.large_string()))
        .cast(pa.float64())
        .to_numpy(zero_copy_only=False)
    )
    group = np.clip(np.digitize(years, AGES) - 1, 0, len(AGE_GROUPS) - 1)
    possible = (years >= 1) & (years <= OLDEST)
    groups = pa.array(np.array(AGE_GROUPS, dtype=object)[group], pa.large_string(), mask=~possible)
    return categorical(pc.if_else(is_number, groups, texts), "age, in the age groups of MovieLens")


def _region(name: str, column: pa.Array) -> Categorical | None:
    texts = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    is_code = pc.fill_null(pc.match_substring_regex(texts, POSTAL_CODE), False)
    regions = pc.if_else(is_code, pc.utf8_slice_codeunits(texts, 0, 1), texts)
    return categorical(regions, f"{name}, of US and Canadian postal codes the first character")
