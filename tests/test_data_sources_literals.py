"""Python dicts as text: what Python writes is read, and nothing else happens, whatever the text is."""

from __future__ import annotations

import ast
import json
import time
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seqrec.data.sources.literals import parse_literal

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
LITERALS = st.dictionaries(
    st.text(), st.recursive(SCALARS, lambda kids: st.lists(kids) | st.dictionaries(st.text(), kids), max_leaves=9)
)


@settings(max_examples=25)
@given(LITERALS)
def test_what_python_writes_is_read_as_python_reads_it(value: dict[str, object]) -> None:
    assert parse_literal(repr(value)) == value
    assert parse_literal(ascii(value)) == value


def python_2(value: object) -> str:
    """As `repr` of Python 2 on a narrow build: `u` before strings, pairs of surrogates."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{python_2(key)}: {python_2(kid)}" for key, kid in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(python_2, value)) + "]"
    return f"u{value!a}" if isinstance(value, str) else repr(value)


@settings(max_examples=25)
@given(LITERALS)
def test_what_python_2_writes_is_read(value: dict[str, object]) -> None:
    assert parse_literal(python_2(value)) == value


@given(st.text(st.sampled_from("{}[]:,'\"\\uUx0a19 TrueFalsNon.e-+()#\n\t"), max_size=60) | st.text(max_size=40))
@example("{'a': '\\Uffffffff'}")
@example("{'a': '\\ud800'}")
@example("{'a': 'x' 'y'}")
@example("{'a': '\\\\'}")
def test_any_line_is_a_dict_or_a_value_error(line: str) -> None:
    try:
        value = parse_literal(line)
    except ValueError:
        return
    assert isinstance(value, dict)
    json.dumps(value, ensure_ascii=False).encode()
    with warnings.catch_warnings(action="ignore"):
        try:
            evaluated = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError):
            return  # nan, and words that only JSON has
    assert json.dumps(value) == json.dumps(_text(evaluated))


def _text(value: object) -> object:
    """Pairs of surrogates joined, halves of a pair replaced, as `parse_literal` does."""
    if isinstance(value, dict):
        return {_text(key): _text(kid) for key, kid in value.items()}
    if isinstance(value, list):
        return [_text(kid) for kid in value]
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


@pytest.mark.parametrize("piece", ["'", "\\'", "'\\", '"', "[", "{'a':", "\\", "u'", "\\u", "1", "-", "True"])
def test_no_line_takes_long(piece: str) -> None:
    line = piece * (1_000_000 // len(piece))
    started = time.perf_counter()
    with pytest.raises(ValueError):
        parse_literal("{'a': " + line)
    assert time.perf_counter() - started < 5
