"""Features on disk: what is saved comes back mapped, and damage is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seqrec.data.features import Categorical, Dense, Features, MultiHot, Numeric
from seqrec.errors import DataError

CATEGORIES = MultiHot(np.array([0, 2, 2, 3]), np.array([1, 2, 1], np.int32), ["Drama", "Comedy"], "categories")
YEAR = Numeric(np.array([1995, np.nan, 2001], np.float32), "year")
BRAND = Categorical(np.array([0, 1, 1], np.int32), ["Ω & <b>"], "brand")
TITLE = Dense(np.array([[1, 0], [0, 0], [0, 1]], np.float32), np.array([True, False, True]), "title")
GENDER = Categorical(np.array([2, 1], np.int32), ["F", "M"], "gender")


def features() -> Features:
    items = {"categories": CATEGORIES, "year": YEAR, "brand/of maker": BRAND, "title": TITLE}
    return Features(items, {"gender": GENDER}, {"item.url": "absent everywhere"})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    features().save(tmp_path / "features")
    found = Features.load(tmp_path / "features")
    assert list(found.items) == ["categories", "year", "brand/of maker", "title"]
    assert found.left_out == {"item.url": "absent everywhere"}
    for of in ("items", "users"):
        for name, feature in getattr(features(), of).items():
            back = getattr(found, of)[name]
            assert (type(back), back.source, len(back)) == (type(feature), feature.source, len(feature))
            np.testing.assert_array_equal(back.present, feature.present)
            for part, dtype in feature.dtypes.items():
                assert getattr(back, part).dtype == dtype
                np.testing.assert_array_equal(getattr(back, part), getattr(feature, part))


def test_absent_is_explicit() -> None:
    assert CATEGORIES.present.tolist() == [True, False, True]
    assert YEAR.present.tolist() == [True, False, True]
    assert BRAND.present.tolist() == [False, True, True]
    assert [CATEGORIES.words(row) for row in range(3)] == [["Drama", "Comedy"], [], ["Drama"]]
    assert [BRAND.words(row) for row in (0, 1)] == [[], ["Ω & <b>"]]


def test_arrays_are_mapped_and_the_schema_describes_them(tmp_path: Path) -> None:
    features().save(tmp_path)
    assert isinstance(Features.load(tmp_path).items["title"].vectors, np.memmap)
    schema = json.loads((tmp_path / "features.json").read_text("utf-8"))
    entry = schema["features"][0]
    assert {key: entry[key] for key in ("name", "of", "kind", "source", "rows", "absent", "vocabulary")} == {
        "name": "categories",
        "of": "item",
        "kind": "multi_hot",
        "source": "categories",
        "rows": 3,
        "absent": 1,
        "vocabulary": ["Drama", "Comedy"],
    }
    assert entry["arrays"]["codes"] == {"file": "item0_categories.codes.npy", "dtype": "int32", "shape": [3]}


def test_no_features_and_no_codes_are_fine(tmp_path: Path) -> None:
    Features().save(tmp_path / "none")
    assert Features.load(tmp_path / "none") == Features()
    empty = MultiHot(np.zeros(4, np.int64), np.zeros(0, np.int32), [])
    Features({"tags": empty}).save(tmp_path / "empty")
    assert not Features.load(tmp_path / "empty").items["tags"].present.any()


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        features().save(tmp_path / name)
    first, second = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert first == second


def edit(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        schema = json.loads((folder / "features.json").read_text("utf-8"))
        schema["features"][0].update(changes)
        (folder / "features.json").write_text(json.dumps(schema))

    return change


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no schema": lambda folder: (folder / "features.json").unlink(),
    "schema cut short": lambda folder: (folder / "features.json").write_text('{"format": 1'),
    "schema a list": lambda folder: (folder / "features.json").write_text("[]"),
    "another format": lambda folder: (folder / "features.json").write_text('{"format": 9}'),
    "unknown kind": edit(kind="sparse"),
    "wrong kind": edit(kind="numeric"),
    "other rows": edit(rows=4),
    "an array missing": lambda folder: (folder / "item0_categories.codes.npy").unlink(),
    "an array cut short": lambda folder: os.truncate(folder / "item3_title.vectors.npy", 130),
    "an array emptied": lambda folder: os.truncate(folder / "item3_title.vectors.npy", 0),
    "another array": lambda folder: np.save(folder / "item1_year.values.npy", np.zeros(3)),
    "a pickle": lambda folder: np.save(folder / "item1_year.values.npy", np.array([{}], object), allow_pickle=True),
    "offsets of others": lambda folder: np.save(folder / "item0_categories.offsets.npy", np.array([0, 2, 2, 9])),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_damage_is_said(tmp_path: Path, damage: str) -> None:
    features().save(tmp_path)
    DAMAGE[damage](tmp_path)
    with pytest.raises(DataError, match="repare the data again"):
        Features.load(tmp_path)


def test_reading_needs_numpy_only(tmp_path: Path) -> None:
    features().save(tmp_path)
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('pyarrow', 'duckdb', 'torch')))\n"
        "from pathlib import Path; from seqrec.data.features import Features\n"
        "import seqrec.data.event_features, seqrec.data.text_features\n"
        f"print(Features.load(Path({str(tmp_path)!r})).users['gender'].words(0))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['M']", done.stderr
