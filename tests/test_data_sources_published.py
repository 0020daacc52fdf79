"""Metadata as publishers write them, made fit to be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.sources.published import LONGEST_PROSE, plain, price, prose, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$1.99", 1.99),
        ("1.99", 1.99),
        (" $ 1,299.00 ", 1299.0),
        ("12", 12.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("$1.99 - $2.99", None),
        ("from 8.99", None),
        ("nan", None),
        ("inf", None),
        ("-1", None),
        ("1,2", None),
        ("1e3", None),
        ("—", None),
        ("", None),
        (None, None),
    ],
)
def test_prices(text: str | None, expected: float | None) -> None:
    assert price(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("A &amp; B", "A & B"), (" a\n\n b ", "a b"), ("&nbsp;", None), (" ", None), ("", None), (None, None)],
)
def test_plain_text(text: str | None, expected: str | None) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (('[["A", ["B &amp; C", "A"]], "D", 1, null, "</span>"]',), ["A", "B & C", "D"]),
        (('["A"]', '["B", "A"]'), ["A", "B"]),
        (("Beauty",), ["Beauty"]),
        (("[broken",), ["[broken"]),
        ((None, "", "[]", "[[]]"), []),
    ],
)
def test_words(texts: tuple[str | None, ...], expected: list[str]) -> None:
    assert words(*texts) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        (" &nbsp; ", None),
        ("[]", None),
        ("Salt &amp;\n pepper", "Salt & pepper"),
        ('["", "One.", ["Two.", 3]]', "One. Two."),
        ("[sic] not a list", "[sic] not a list"),
        ("a" * 5_000, "a" * LONGEST_PROSE),
        ("a" * (LONGEST_PROSE - 1) + " b", "a" * (LONGEST_PROSE - 1)),
    ],
)
def test_prose(text: str | None, expected: str | None) -> None:
    assert prose(text) == expected


def test_deep_lists_are_flattened() -> None:
    assert words("[" * 500 + '"A"' + "]" * 500) == ["A"]
    assert len(words("[" * 100_000 + "]" * 100_000)) == 1


@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    assert price(text) is None or isinstance(price(text), float)
    assert all(words(text))
    assert plain(text) != ""
    assert prose(text) != ""
