"""From tables to features: every type of column, absent values, and order of the ids."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.feature_building import build_features
from seqrec.data.features import Categorical, FeatureConfig, Features, MultiHot, Numeric

ITEMS = pa.table(
    {
        "id": ["a", "b", "c", "d"],
        "title": ["Heat", None, " ", "Heat"],
        "categories": pa.array([["Crime", "Drama"], [], None, ["Drama", " ", None, "Drama"]], pa.list_(pa.string())),
        "year": pa.array([1995, None, 2001, 1987], pa.int32()),
        "price": pa.array([1.5, float("nan"), float("inf"), None]),
        "cost": pa.array([Decimal("1.10"), None, Decimal("2.20"), None], pa.decimal128(5, 2)),
        "used": pa.array([True, False, None, True]),
        "brand": pa.array(["Acme", "", None, "  Acme "]).dictionary_encode(),
        "url": pa.array([None] * 4, pa.string()),
        "seen": pa.array([0, 1, 2, 3], pa.timestamp("ms")),
    }
)


def items(table: pa.Table, ids: list[str], **config: object) -> Features:
    return build_features(ids, table, [], None, FeatureConfig.parse(config))


def words(feature: object) -> list[list[str]]:
    assert isinstance(feature, (Categorical, MultiHot))
    return [feature.words(row) for row in range(len(feature))]


def test_columns_become_the_kinds_they_are() -> None:
    found = items(ITEMS, ["d", "zzz", "a", "b", "c"])
    assert {name: feature.kind for name, feature in found.items.items()} == {
        "title": "dense",
        "categories": "multi_hot",
        "year": "numeric",
        "price": "numeric",
        "cost": "numeric",
        "used": "numeric",
        "brand": "categorical",
    }
    assert words(found.items["categories"]) == [["Drama"], [], ["Drama", "Crime"], [], []]
    assert words(found.items["brand"]) == [["Acme"], [], ["Acme"], [], []]
    assert found.items["title"].present.tolist() == [True, False, True, False, False]
    nan = np.nan
    for name, values in {"year": [1987, nan, 1995, nan, 2001], "price": [nan, nan, 1.5, nan, nan],
                         "cost": [nan, nan, 1.1, nan, 2.2], "used": [1, nan, 1, 0, nan]}.items():  # fmt: skip
        feature = found.items[name]
        assert isinstance(feature, Numeric)
        assert feature.values.dtype == np.float32
        np.testing.assert_allclose(feature.values, values, rtol=1e-6, err_msg=name)
    assert found.left_out == {
        "item.url": "absent everywhere",
        "item.seen": "columns of type timestamp[ms] are no feature",
    }


def test_it_can_be_saved(tmp_path: Path) -> None:
    items(ITEMS, ["a", "b"]).save(tmp_path)
    assert words(Features.load(tmp_path).items["categories"]) == [["Crime", "Drama"], []]


def test_vocabularies_count_items_and_break_ties_by_name() -> None:
    column = pa.array([["x", "x", "x"], ["b", "y"], ["b", "a"]], pa.list_(pa.string()))
    found = items(pa.table({"id": ["1", "2", "3"], "tags": column}), ["1", "2", "3"]).items["tags"]
    assert isinstance(found, MultiHot)
    assert found.vocabulary == ["b", "a", "x", "y"]
    assert (found.offsets.tolist(), found.codes.tolist()) == ([0, 1, 3, 5], [3, 1, 4, 1, 2])


def test_nothing_known_is_no_feature() -> None:
    assert build_features(["a"], None, ["u"], None) == Features()
    empty = pa.table({"id": pa.array([], pa.string()), "brand": pa.array([], pa.string())})
    assert items(empty, ["a"]).left_out == {"item.brand": "absent everywhere"}
    assert items(ITEMS, ["nobody", "knows"]).items == {}
    assert items(pa.table({"id": ["a"]}), ["a"]) == Features()


def test_chunks_do_not_matter() -> None:
    whole = items(ITEMS, ["a", "b", "c", "d"])
    parts = items(pa.concat_tables([ITEMS.slice(0, 1), ITEMS.slice(1)]), ["a", "b", "c", "d"])
    assert words(whole.items["categories"]) == words(parts.items["categories"])


def test_text_can_be_left_out_and_vectors_brought(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", ids=np.array(["b"]), vectors=np.ones((1, 3)))
    found = items(ITEMS, ["a", "b"], text_dim=0, vectors=str(tmp_path / "v.npz"))
    assert "title" not in found.items
    assert found.left_out["item.title"] == "text_dim is 0"
    assert found.items["vectors"].present.tolist() == [False, True]


def users(**columns: list[str | None]) -> Features:
    size = len(next(iter(columns.values())))
    ids = [str(row) for row in range(size)]
    table = pa.table({"id": ids} | {name: pa.array(column, pa.string()) for name, column in columns.items()})
    return build_features([], None, ids, table)


def test_ages_become_groups() -> None:
    ages = ["17", "18", " 24", "25.0", "44", "45", "50", "56", "99", "25-34", "Under 18", "0", "121", "", None]
    found = words(users(age=ages).users["age"])
    groups = ["Under 18", "18-24", "18-24", "25-34", "35-44", "45-49", "50-55", "56+", "56+", "25-34", "Under 18"]
    assert found == [*([group] for group in groups), [], [], [], []]


def test_regions_are_coarse() -> None:
    found = users(zip_code=["85711", "98107-2117", "V3N4P", "Oslo", None, "231629"], state=["a"] * 6)
    assert words(found.users["region"]) == [["8"], ["9"], ["V"], ["Oslo"], [], ["231629"]]
    assert set(found.users) == {"region", "state"}
    assert words(users(country=["Norway", ""]).users["region"]) == [["Norway"], []]
    assert words(users(region=["North"]).users["region"]) == [["North"]]


@pytest.mark.parametrize("column", ["gender", "occupation", "hobby"])
def test_other_attributes_are_words(column: str) -> None:
    assert words(users(**{column: ["F", None, "M", "M"]}).users[column]) == [["F"], [], ["M"], ["M"]]


@given(st.lists(st.none() | st.lists(st.none() | st.sampled_from(["a", "b", " ", "c "]), max_size=5), min_size=1))
def test_rows_keep_their_words(lists: list[list[str | None] | None]) -> None:
    ids = [str(row) for row in range(len(lists))]
    table = pa.table({"id": ids, "tags": pa.array(lists, pa.list_(pa.string()))})
    expected = [{word.strip() for word in row or () if word and word.strip()} for row in lists]
    found = items(table, ids).items
    assert ("tags" in found) == any(expected)
    if "tags" in found:
        assert [set(row) for row in words(found["tags"])] == expected
