"""External ids to 1..n and back, and what is known about each item."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from seqrec.errors import DataError, nearest
from seqrec.files import read_json, write_json

#: Catalogues up to this size are searched for the nearest title.
SEARCHED_FOR_NEAREST = 10_000


@dataclass(frozen=True)
class Catalogue:
    """The items 1..n: their ids in the source and, where known, title, categories and year.

    Attributes:
        ids: id in the source of item 1, 2, ..., n.
        titles: title of each item; its id where no title is known.
        categories: categories of each item, empty where none is known.
        years: year of each item, None where not known.
    """

    ids: Sequence[str]
    titles: Sequence[str]
    categories: Sequence[Sequence[str]]
    years: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def index(self) -> dict[str, int]:
        """Item number of every id in the source."""
        return {name: number for number, name in enumerate(self.ids, start=1)}

    @cached_property
    def _by_title(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number in range(1, len(self) + 1):
            for spelling in {self.titles[number - 1], self.label(number)}:
                found.setdefault(_spoken(spelling), []).append(number)
        return found

    def label(self, item: int) -> str:
        """Title and year, the way people name a film: `Toy Story (1995)`."""
        year = self.years[item - 1]
        return self.titles[item - 1] if year is None else f"{self.titles[item - 1]} ({year})"

    def find(self, name: object) -> int | None:
        """Item number for an id in the source or a title (any case, with or without the year); None if unknown.

        A title that several items share means the first of them; the year tells them apart.
        """
        text = str(name)
        if text in self.index:
            return self.index[text]
        numbers = self._by_title.get(_spoken(text))
        return numbers[0] if numbers else None

    def nearest(self, name: object) -> str | None:
        """The title most like `name`, or None when nothing is near or the catalogue is too large to search."""
        if len(self) > SEARCHED_FOR_NEAREST:
            return None
        guess = nearest(_spoken(str(name)), self._by_title)
        return self.label(self._by_title[guess][0]) if guess else None

    def save(self, path: Path) -> None:
        """Write the catalogue as JSON columns, atomically."""
        columns = {"ids": self.ids, "titles": self.titles, "categories": self.categories, "years": self.years}
        write_json(path, columns)

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """Read what `save` wrote."""
        try:
            columns: dict[str, Any] = read_json(path)
            if len({len(column) for column in columns.values()}) > 1:
                raise ValueError("its columns differ in length")
            return cls(**columns)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not a catalogue ({error}). Prepare the data again.") from error


def catalogue(ids: Iterable[str], table: Any = None) -> Catalogue:
    """The catalogue of `ids`, with what an `Interactions.items` table (or None) knows about them."""
    ids = list(ids)
    known: dict[str, dict[str, Any]] = {}
    if table is not None:
        known = {str(row["id"]): row for row in table.to_pylist()}
    rows = [known.get(name, {}) for name in ids]
    return Catalogue(
        ids=ids,
        titles=[row.get("title") or name for name, row in zip(ids, rows, strict=True)],
        categories=[list(row.get("categories") or ()) for row in rows],
        years=[row.get("year") for row in rows],
    )


def _spoken(title: str) -> str:
    """A title as people type it: any case, and `Godfather, The (1972)` is `the godfather (1972)`."""
    name, year = re.fullmatch(r"(.*?)(\s*\(\d{4}\))?", title.strip().casefold(), re.DOTALL).groups(default="")  # type: ignore[union-attr]
    moved = re.fullmatch(r"(.*), (the|a|an)", name, re.DOTALL)
    return (f"{moved[2]} {moved[1]}" if moved else name) + year
