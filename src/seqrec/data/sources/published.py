"""What data sets of several files share: finding them, taking them over, fetching them, and tidying their metadata."""

from __future__ import annotations

import functools
import html
import json
import re
from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seqrec.data.download import fetch
from seqrec.data.sources.named import every_tenth
from seqrec.data.sources.text import Source
from seqrec.errors import DataError, DownloadError

Row = dict[str, Any]

#: Features hold 32 bits; anything near that is damage.
HIGHEST_PRICE = 1e12
#: Letters of a description that are kept: what it is about stands at its beginning.
LONGEST_PROSE = 1_000
_PRICE = re.compile(r"\s*\$?\s*(\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d*\.?\d+|\d+\.)\s*")


def only_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The file in a folder that has one of these names, with or without `.gz` behind it.

    Raises:
        DataError: there are several.
    """
    found = [folder / f"{name}{packed}" for name in names for packed in ("", ".gz")]
    found = [file for file in found if file.is_file()]
    if len(found) > 1:
        raise DataError(f"{folder} holds {', '.join(file.name for file in found)}. Leave one of them there.")
    return found[0] if found else None


def brought(path: Path, kinds: Sequence[Sequence[str]], cached: Path) -> list[Path | None]:
    """One file of each kind: from `path`, a folder or one of the files, else what is in the cache already.

    Args:
        kinds: for each kind the names it may have.
        cached: the folder of raw files in the cache.

    Raises:
        DataError: none of them is there, or several of one kind.
    """
    if path.is_dir():
        files = [only_file(path, names) for names in kinds]
    else:
        files = [path if path.is_file() and path.name.removesuffix(".gz") in names else None for names in kinds]
    if not any(files):
        wanted = ", ".join(name for names in kinds for name in names)
        raise DataError(f"{path} is none of the files {wanted} (each also as .gz), nor a folder with them.")
    return [file or only_file(cached, names) for file, names in zip(files, kinds, strict=True)]


def fetch_packed(name: str, urls: Sequence[str], target: Path, report: Callable[[str], None]) -> None:
    """Download a `.gz` for which no checksum is published; its end is tested when it is read.

    Raises:
        DownloadError: no mirror delivered it, or what arrived is a page.
    """
    report(f"Downloading {target.name} of {name}")
    fetch(name, urls, target, progress=every_tenth(report))
    with target.open("rb") as file:
        start = file.read(2)
    if start != b"\x1f\x8b":
        target.unlink()
        raise DownloadError(
            f"{name}: what arrived as {target.name} is no gzip file; it was not kept. Open {urls[0]} in a browser to "
            f"see what is sent, or get the file some other way and run: seqrec data add {name} PATH"
        )


def read_items(
    source: Source, item: str, events: pa.Table, describe: Callable[[Row], Row], schema: pa.Schema
) -> pa.Table:
    """Items that occur in events, in the order of the source; of lines with the same id the first counts.

    Args:
        source: metadata whose columns are all VARCHAR.
        item: its column of ids.
        describe: from a line (column -> text or None) the columns of `schema` except `id`.
        schema: `id` and what `describe` gives.
    """
    known = pc.unique(events["item"]).dictionary_decode()
    columns = {name: source.column(name) for name in source.names}
    seen: set[str] = set()
    tables = [schema.empty_table()]
    for batch in source.batches(**columns):
        rows = batch.filter(pc.is_in(batch[item], value_set=known)).to_pylist()
        fresh = {row[item]: row for row in reversed(rows) if row[item] not in seen}
        kept = [{"id": key, **describe(row)} for key, row in reversed(fresh.items())]
        seen.update(fresh)
        tables.append(pa.Table.from_pylist(kept, schema=schema))
    return pa.concat_tables(tables).combine_chunks()


def plain(text: str | None) -> str | None:
    """A text with HTML entities resolved and blanks in a row made one; None where nothing is left."""
    return " ".join(html.unescape(text).split()) or None if text else None


def price(text: str | None) -> float | None:
    """`$1,299.00` or `1299` as 1299.0; None for a range, a word, nothing, or what no price can be."""
    found = _PRICE.fullmatch(text or "")
    number = float(found[1].replace(",", "")) if found else inf
    return number if number < HIGHEST_PRICE else None


def words(*texts: str | None) -> list[str]:
    """All texts in JSON lists, however nested, without repeats; what is no list counts as one text."""
    return list(dict.fromkeys(word for text in texts if text for word in _words(text)))


@functools.lru_cache(maxsize=1 << 16)
def _words(text: str) -> tuple[str, ...]:
    return tuple(word for leaf in _leaves(_value(text)) if (word := plain(leaf)) and not word.startswith("<"))


def prose(text: str | None) -> str | None:
    """The beginning of a text, or of all texts in a JSON list one after the other; None where nothing is left."""
    joined = plain(" ".join(_leaves(_value(text)))) if text else None
    return joined[:LONGEST_PROSE].rstrip() if joined else None


def _value(text: str) -> Any:
    """What a JSON list holds; any other text as it is."""
    try:
        return json.loads(text) if text.startswith("[") else text
    except (ValueError, RecursionError):
        return text


def _leaves(value: Any) -> Iterator[str]:
    """Texts in nested lists, from the first to the last. A stack, since lists may be nested deeply."""
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, list):
            stack.extend(reversed(top))
        elif isinstance(top, str):
            yield top
