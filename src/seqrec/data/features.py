"""What is known about items and users as arrays: typed, documented, absent values explicit, mapped from disk.

Row j of an item feature belongs to item j + 1, row u of a user feature to user u. Vocabularies and their order
come from attributes of items and users, never from interactions, so nothing about the test leaks into them.

Shapes: R rows (items or users), K words of a vocabulary, C codes of a multi-hot feature, D width of a vector.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from seqrec.config import Config
from seqrec.data.sequences import Ints
from seqrec.data.spool import save_array
from seqrec.errors import DataError
from seqrec.files import explained, read_json, write_json

Codes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

#: Raised when the files below change.
FORMAT_VERSION = 1
SCHEMA = "features.json"


class FeatureConfig(Config):
    """How features are made."""

    text_dim: int = Field(256, ge=0, description="width of hashed titles and texts; 0 leaves them out")
    vectors: str | None = Field(None, description="a .npz, .npy or Parquet file with a vector per item id")


@dataclass(frozen=True)
class Categorical:
    """One word per row.

    Attributes:
        codes: (R,) int32, 0 where absent, otherwise word `vocabulary[code - 1]`.
        vocabulary: K words, the most frequent first, equals in alphabetical order.
        source: the column it comes from, and what was done to it.
    """

    codes: Codes
    vocabulary: Sequence[str]
    source: str = ""
    kind: ClassVar[str] = "categorical"
    dtypes: ClassVar[Mapping[str, str]] = {"codes": "int32"}

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def present(self) -> Mask:
        """(R,) bool, false where absent."""
        return np.asarray(self.codes) > 0

    def words(self, row: int) -> list[str]:
        """The word of a row in a list, or an empty list."""
        return [self.vocabulary[self.codes[row] - 1]] if self.codes[row] else []


@dataclass(frozen=True)
class MultiHot:
    """Any number of words per row, as sparse rows.

    Attributes:
        offsets: (R + 1,) int64; row r owns codes[offsets[r]:offsets[r + 1]]. No codes: absent.
        codes: (C,) int32 from 1..K, each at most once in a row, ascending.
        vocabulary: K words, the most frequent first, equals in alphabetical order.
        source: the column it comes from.
    """

    offsets: Ints
    codes: Codes
    vocabulary: Sequence[str]
    source: str = ""
    kind: ClassVar[str] = "multi_hot"
    dtypes: ClassVar[Mapping[str, str]] = {"offsets": "int64", "codes": "int32"}

    def __post_init__(self) -> None:
        if len(self.offsets) == 0 or self.offsets[-1] != len(self.codes):
            raise ValueError("offsets and codes do not belong together")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def present(self) -> Mask:
        """(R,) bool, false where a row has no word."""
        return np.diff(self.offsets) > 0

    def words(self, row: int) -> list[str]:
        """The words of a row."""
        return [self.vocabulary[code - 1] for code in self.codes[self.offsets[row] : self.offsets[row + 1]]]


@dataclass(frozen=True)
class Numeric:
    """One number per row.

    Attributes:
        values: (R,) float32, NaN where absent, otherwise finite.
        source: the column it comes from.
    """

    values: Floats
    source: str = ""
    kind: ClassVar[str] = "numeric"
    dtypes: ClassVar[Mapping[str, str]] = {"values": "float32"}

    def __len__(self) -> int:
        return len(self.values)

    @property
    def present(self) -> Mask:
        """(R,) bool, false where absent."""
        return ~np.isnan(self.values)


@dataclass(frozen=True)
class Dense:
    """One vector per row.

    Attributes:
        vectors: (R, D) float32, finite; zeros where absent.
        present: (R,) bool, false where absent.
        source: the column or file it comes from, and how it was made.
    """

    vectors: Floats
    present: Mask
    source: str = ""
    kind: ClassVar[str] = "dense"
    dtypes: ClassVar[Mapping[str, str]] = {"vectors": "float32", "present": "bool"}

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.present):
            raise ValueError("vectors and present do not belong together")

    def __len__(self) -> int:
        return len(self.present)


Feature: TypeAlias = Categorical | MultiHot | Numeric | Dense
KINDS: dict[str, Callable[..., Feature]] = {kind.kind: kind for kind in (Categorical, MultiHot, Numeric, Dense)}


@dataclass(frozen=True)
class Features:
    """All features of one data set, by name.

    Attributes:
        items: features of items, every one with as many rows as there are items.
        users: features of users.
        left_out: columns that are no feature, and why: `{"item.url": "..."}`.
    """

    items: Mapping[str, Feature] = field(default_factory=dict)
    users: Mapping[str, Feature] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write one `.npy` file per array and, last, `features.json`, which describes them.

        Raises:
            DiskError: the disk is full or the folder may not be written.
        """
        entries = []
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for of, features in (("item", self.items), ("user", self.users)):
                for number, (name, feature) in enumerate(features.items()):
                    # Columns may have any name; the number keeps files apart where the readable part is equal.
                    stem = f"{of}{number}_{re.sub('[^a-z0-9]+', '_', name.lower())[:40]}"
                    entries.append(_write(folder, stem, feature) | {"name": name, "of": of})
        schema = {"format": FORMAT_VERSION, "features": entries, "left_out": dict(self.left_out)}
        write_json(folder / SCHEMA, schema)

    @classmethod
    def load(cls, folder: Path) -> Features:
        """Map what `save` wrote: arrays are read from disk when they are used. Needs numpy only.

        Raises:
            DataError: the folder is missing, incomplete or damaged, or of another format version.
        """
        try:
            schema = read_json(folder / SCHEMA)
            if schema["format"] != FORMAT_VERSION:
                raise ValueError(f"format {schema['format']}, this version of seqrec reads {FORMAT_VERSION}")
            found: dict[str, dict[str, Feature]] = {"item": {}, "user": {}}
            for entry in schema["features"]:
                found[entry["of"]][entry["name"]] = _read(folder, entry)
            return cls(found["item"], found["user"], schema["left_out"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError) as error:
            raise DataError(
                f"{folder} does not hold features as they should be ({error}). Delete {folder.parent} and prepare the "
                "data again."
            ) from error


def _write(folder: Path, stem: str, feature: Feature) -> dict[str, Any]:
    """Save the arrays of a feature; its entry in the schema."""
    arrays = {}
    for part, dtype in feature.dtypes.items():
        array = np.ascontiguousarray(getattr(feature, part), dtype=dtype)
        file = f"{stem}.{part}.npy"
        save_array(folder / file, array)
        arrays[part] = {"file": file, "dtype": dtype, "shape": list(array.shape)}
    entry = {
        "kind": feature.kind,
        "source": feature.source,
        "rows": len(feature),
        "absent": int(len(feature) - feature.present.sum()),
        "arrays": arrays,
    }
    if isinstance(feature, (Categorical, MultiHot)):
        entry["vocabulary"] = list(feature.vocabulary)
    return entry


def _read(folder: Path, entry: Mapping[str, Any]) -> Feature:
    kind = KINDS[entry["kind"]]
    parts: dict[str, Any] = {}
    for part, said in entry["arrays"].items():
        array = np.load(folder / said["file"], mmap_mode="r", allow_pickle=False)
        if (str(array.dtype), list(array.shape)) != (said["dtype"], said["shape"]):
            raise ValueError(
                f"{said['file']} holds {array.dtype} {list(array.shape)}, not {said['dtype']} {said['shape']}"
            )
        parts[part] = array
    if "vocabulary" in entry:
        parts["vocabulary"] = entry["vocabulary"]
    feature = kind(**parts, source=entry["source"])
    if len(feature) != entry["rows"]:
        raise ValueError(f"{entry['name']} has {len(feature)} rows, not {entry['rows']}")
    return feature
