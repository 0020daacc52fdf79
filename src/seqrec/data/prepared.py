"""A data set on disk that is ready for training: memory-mapped arrays, the catalogue, and the facts about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seqrec.data.catalogue import Catalogue
from seqrec.data.features import SCHEMA, Features
from seqrec.data.sequences import Cases, Sequences
from seqrec.data.splits import Split
from seqrec.errors import DataError
from seqrec.files import read_json

#: Raised when the files of a prepared folder change; a folder of another version is prepared anew.
FORMAT_VERSION = 2


@dataclass(frozen=True)
class PreparedData:
    """A data set that is ready for training and evaluation.

    Attributes:
        folder: where it lies.
        sequences: whole histories, for evaluation only.
        split: where training ends and what is asked.
        catalogue: the items.
        facts: counts, fingerprint, target hash and how it was made, as printed and stored in runs.
    """

    folder: Path
    sequences: Sequences
    split: Split
    catalogue: Catalogue
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Short name of the data set."""
        return str(self.facts["name"])

    @property
    def train(self) -> Sequences:
        """Histories up to where training ends."""
        return self.sequences.until(self.split.train_ends)

    def cases(self, part: str) -> Cases:
        """What the `validation` or the `test` part asks."""
        return {"validation": self.split.validation, "test": self.split.test}[part]

    def user_ids(self) -> list[str]:
        """Id in the source of user 0, 1, ..."""
        return list(read_json(self.folder / "users.json")["ids"])

    def user_table(self) -> dict[str, list[Any]]:
        """Columns of what is known about each user; `ids` always."""
        return dict(read_json(self.folder / "users.json"))

    def features(self) -> Features:
        """What is known about items and users as arrays, mapped from disk.

        Raises:
            DataError: they are damaged or missing.
        """
        return Features.load(self.folder / "features")

    @classmethod
    def load(cls, folder: Path) -> PreparedData:
        """Map a prepared folder; needs numpy only.

        Raises:
            DataError: the folder is incomplete, damaged, or of another format version.
        """
        try:
            facts = read_json(folder / "facts.json")
            arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
            if facts["format"] != FORMAT_VERSION:
                raise ValueError(f"format {facts['format']}, this version of seqrec reads {FORMAT_VERSION}")
            if not (folder / "features" / SCHEMA).is_file():
                raise ValueError("its features are missing")
            sequences = Sequences(
                items=arrays["items"],
                starts=arrays["offsets"][:-1],
                ends=arrays["offsets"][1:],
                num_items=facts["items"],
                times=arrays.get("times"),
                values=arrays.get("values"),
            )
            validation, test = (_cases(arrays[part]) for part in ("validation", "test"))
            split = Split(arrays["train_ends"], validation, test, words=facts["split"])
            names = Catalogue.load(folder / "items.json")
            sizes = sequences.ends[-1], len(split.train_ends), len(names)
            if sizes != (len(sequences.items), len(sequences), sequences.num_items):
                raise ValueError("its files do not belong together")
            return cls(folder, sequences, split, names, facts)
        except (OSError, ValueError, LookupError, TypeError, EOFError) as error:
            raise DataError(
                f"{folder} is not a prepared folder ({error}). Delete it and prepare the data again."
            ) from error


def _cases(array: npt.NDArray[np.int64]) -> Cases:
    users, positions, history_ends = array
    return Cases(users, positions, history_ends)
