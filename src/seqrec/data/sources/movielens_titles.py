"""Titles and genres as MovieLens writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from seqrec.data.sources.text import Source, one_per_id

NO_GENRES = "(no genres listed)"
# The year stands last, as (1995), (2006-2007) or (2011-); (V) after it marks a film that was never in cinemas.
_YEAR = re.compile(r"\s*\((\d{4})(?:\s*[-\u2013]\s*(?:\d{4})?)?\)\s*(?:\(V\)\s*)?$")


def split_year(title: str) -> tuple[str, int | None]:
    """`Heat (1995)` as `Heat` and 1995; a title without a year stays, trimmed."""
    found = _YEAR.search(title)
    return (title[: found.start()].strip(), int(found[1])) if found else (title.strip(), None)


def split_genres(films: Source, column: str = "genres") -> list[list[str]]:
    """Genres of every film: `Comedy|Romance` as two."""
    texts = films.strings([column])[column].to_pylist()
    return [[] if text in (None, NO_GENRES) else text.split("|") for text in texts]


def films_table(films: Source, item: str, title: str, categories: Sequence[Sequence[str]]) -> pa.Table:
    """`Interactions.items` of films: id, title without its year, categories and year."""
    titles = [split_year(text or "") for text in films.strings([title])[title].to_pylist()]
    table = {
        "id": films.ids(item),
        "title": pa.array([text or None for text, _ in titles], pa.string()),
        "categories": pa.array(categories, pa.list_(pa.string())),
        "year": pa.array([year for _, year in titles], pa.int32()),
    }
    return one_per_id(pa.table(table))


def between_colons(lines: Source) -> Source:
    """The `item::title::genres` of a source whose one column `line` has the whole line: a title may hold `::`."""
    pattern = "^(.*?)::(.*)::(.*)$"  # the genres hold none
    parts = ", ".join(f"regexp_extract({lines.column('line')}, '{pattern}', {k}) AS c{k - 1}" for k in (1, 2, 3))
    return Source(
        lines.where,
        ("item", "title", "genres"),
        ("VARCHAR",) * 3,
        f"(SELECT {parts} FROM {lines.relation}) AS films",
        lines.path,
        lines.dialect,
        lines.connection,
    )
