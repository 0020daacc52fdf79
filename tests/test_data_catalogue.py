"""Finding items the way people name them, and the file that keeps them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.catalogue import SEARCHED_FOR_NEAREST, Catalogue, catalogue
from seqrec.errors import DataError

FILMS = Catalogue(
    ids=["858", "1", "1221", "90", "x7", "11", "12", "5"],
    titles=["Godfather, The", "Toy Story", "Heat", "Große Été", "x7", "Sabrina", "Sabrina", "858"],
    categories=[["Crime", "Drama"], [], [], [], [], [], [], []],
    years=[1972, 1995, None, 1995, None, 1954, 1995, None],
)


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("858", 1),  # an id comes before a title
        (858, 1),
        ("Toy Story", 2),
        ("toy STORY", 2),
        ("  Toy Story ", 2),
        ("Toy Story (1995)", 2),
        ("Godfather, The", 1),
        ("the godfather", 1),
        ("The Godfather (1972)", 1),
        ("Godfather, The (1972)", 1),
        ("godfather", None),
        ("GROSSE ÉTÉ", 4),
        ("x7", 5),
        ("Sabrina", 6),  # the first of two
        ("Sabrina (1954)", 6),
        ("sabrina (1995)", 7),
        ("Toy Story (1996)", None),
        ("Heat (1995)", None),
        ("", None),
        ("(1995)", None),
        (None, None),
    ],
)
def test_find(name: object, item: int | None) -> None:
    assert FILMS.find(name) == item


@pytest.mark.parametrize(
    ("article", "spoken"), [("Wake, A", "a wake"), ("American, An", "an american"), ("Thing, The", "the thing")]
)
def test_a_leading_article_may_stand_behind(article: str, spoken: str) -> None:
    names = catalogue(["9"], pa.table({"id": ["9"], "title": [article]}))
    assert names.find(spoken) == names.find(article.upper()) == 1


def test_nearest_is_a_label() -> None:
    assert FILMS.nearest("Toy Stroy") == "Toy Story (1995)"
    assert FILMS.nearest("the godfahter") == "Godfather, The (1972)"
    assert FILMS.nearest("Heet") == "Heat"
    assert FILMS.nearest("qqqqqqqq") is None


def test_a_huge_catalogue_is_not_searched_for_the_nearest() -> None:
    names = catalogue(str(number) for number in range(SEARCHED_FOR_NEAREST + 1))
    assert names.nearest("9999x") is None
    assert names.find("9999") == 10_000


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_characters="\0"), max_size=12), st.none() | st.integers(1900, 2030)),
        min_size=1,
        max_size=8,
    )
)
def test_every_item_is_found_by_its_id_and_some_item_of_that_name_by_its_label(
    films: list[tuple[str, int | None]],
) -> None:
    ids = [f"\0{number}" for number in range(len(films))]
    names = Catalogue(ids, [title for title, _ in films], [[] for _ in films], [year for _, year in films])
    for number in range(1, len(names) + 1):
        assert names.find(names.ids[number - 1]) == number
        for spelling in (names.titles[number - 1], names.label(number)):
            found = names.find(spelling)
            assert found is not None
            assert found <= number


def test_what_is_not_known_about_an_item_is_left_empty() -> None:
    table = pa.table({"id": ["b", "c"], "title": ["Bee", None], "year": [1999, None], "categories": [["X"], None]})
    names = catalogue(["c", "b", "z"], table)
    assert names == Catalogue(["c", "b", "z"], ["c", "Bee", "z"], [[], ["X"], []], [None, 1999, None])
    assert catalogue(["q"]) == Catalogue(["q"], ["q"], [[]], [None])


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "items.json"
    FILMS.save(path)
    assert Catalogue.load(path) == FILMS


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"ids": []}',
        b'{"ids": ["1"], "titles": [], "categories": [[]], "years": [null]}',
        b'{"ids": 1, "titles": 1, "categories": 1, "years": 1}',
    ],
)
def test_a_damaged_file_is_said_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "items.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"items\.json: not a catalogue .*Prepare the data again"):
        Catalogue.load(path)


def test_a_missing_file_is_said_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"items\.json: not a catalogue"):
        Catalogue.load(tmp_path / "items.json")
