"""MovieLens-100K out of the `recbole` package, whose example data are the same ratings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from seqrec.data.download import fetch_from_wheel
from seqrec.data.interactions import Interactions
from seqrec.data.sources.movielens_titles import split_year
from seqrec.data.sources.recbole import read_recbole

WHEEL = "recbole==1.2.1"
WHEEL_FOLDER = "recbole/dataset_example/ml-100k/"
WHEEL_SHA256: Mapping[str, str] = {
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
}


def has_wheel_files(folder: Path) -> bool:
    """Whether the wheel's files are in a folder."""
    return all((folder / file).is_file() for file in WHEEL_SHA256)


def fetch_wheel_files(folder: Path) -> None:
    """Put the wheel's files into a folder.

    Raises:
        DownloadError: pip failed, or the wheel holds other bytes.
        DataError: the wheel lacks a file.
    """
    fetch_from_wheel(WHEEL, WHEEL_FOLDER, WHEEL_SHA256, folder)


def read_wheel_files(folder: Path) -> Interactions:
    """ML-100K's atomic files in the words of the zip: the same events, and users with a `zip`."""
    interactions = read_recbole(folder / "ml-100k.inter", time_unit="s", name="ml-100k")
    assert interactions.items is not None
    assert interactions.users is not None
    titles = interactions.items["title"].to_pylist()
    split = [split_year(title or "") for title in titles]  # one film has its year left in the title
    years = [year or inner for year, (_, inner) in zip(interactions.items["year"].to_pylist(), split, strict=True)]
    items = interactions.items
    items = items.set_column(1, "title", pa.array([title or None for title, _ in split], pa.string()))
    items = items.set_column(3, "year", pa.array(years, pa.int32()))
    users = interactions.users.rename_columns(
        ["zip" if name == "zip_code" else name for name in interactions.users.column_names]
    )
    return replace(interactions, items=items, users=users, revisits=False)
