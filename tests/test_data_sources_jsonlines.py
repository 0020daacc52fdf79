"""One object a line: JSON and Python dicts, whole and damaged."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.sources import jsonlines
from seqrec.data.sources.events import read_events
from seqrec.data.sources.jsonlines import json_source, literal_source, object_source
from seqrec.errors import DataError

AB = {"a": "VARCHAR", "b": "VARCHAR"}
Rows = list[tuple[str | None, ...]]


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def json_rows(path: Path) -> Rows:
    return rows(json_source(path, AB).select(a="c0", b="c1"))


def literal_rows(path: Path) -> Rows:
    with literal_source(path, ["a", "b"]) as source:
        return rows(source.select(a="c0", b="c1"))


def rows(table: pa.Table) -> Rows:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def spooled(cache: Path) -> list[Path]:
    return [path for path in (cache / "spool").rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["x.json", "x.json.gz", "odd [name]*.json"])
def test_json_values_keep_what_was_written(tmp_path: Path, name: str) -> None:
    lines = [
        '\ufeff{"a": 1, "b": "x"}\r\n\r\n{"b": "caf\\u00e9 \\ud83d\\ude00"}\n',
        '  \n{"a": 12345678901234567890123, "b": null}\n{"a": [["p", "q"]], "b": {"k": 1}, "c": 2}',
    ]
    assert json_rows(write(tmp_path / name, "".join(lines))) == [
        ("1", "x"),
        (None, "café \U0001f600"),
        ("12345678901234567890123", None),
        ('[["p","q"]]', '{"k":1}'),
    ]


@pytest.mark.parametrize("name", ["x.json", "x.json.gz"])
def test_literals_become_the_same_columns(tmp_path: Path, own_cache: Path, name: str) -> None:
    lines = [
        "\ufeff{u'a': 1, 'b': u'x'}\r\n\r\n{'b': u'caf\\xe9 \\ud83d\\ude00 \\U0001f600'}\n",
        "  \n{'a': 0.1, 'b': None}\n{'a': [['p', \"it's\"]], 'b': {'k': True}, 'c': nan}\n{'a': nan, 'b': False}",
    ]
    assert literal_rows(write(tmp_path / name, "".join(lines))) == [
        ("1", "x"),
        (None, "café \U0001f600 \U0001f600"),
        ("0.1", None),
        ('[["p", "it\'s"]]', '{"k": true}'),
        ("nan", "False"),
    ]
    assert spooled(own_cache) == []


def test_values_of_another_type_than_asked_for_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", '{"a": 1.5}\n{"a": "x"}\n')
    with pytest.raises(DataError, match=r'x\.json: .*line 2: .*"x"'):
        json_source(path, {"a": "DOUBLE"}).select(a="c0")


DAMAGE = [
    ('{"a": 1}\n\n{"a": \n{"a": 2}\n', 3, "Expecting value"),
    ('{"a": 1}\n[1, 2]\n', 2, "a list where an object belongs"),
    ('{"a": 1}\n{"a": 1}{"a": 2}\n', 2, "Extra data"),
    ('{"a": 1}\n5\n', 2, "a int where an object belongs"),
    ('{"a": 1}\n{"a": "\\ud83d"}\n', 2, "surrogates"),
    (b'{"a": 1}\n{"a": "\xff"}\n', 2, "not UTF-8"),
]


@pytest.mark.parametrize(("content", "line", "reason"), DAMAGE)
@pytest.mark.parametrize("ahead", [0, 3000])
def test_a_damaged_line_of_json_is_named(
    tmp_path: Path, content: str | bytes, line: int, reason: str, ahead: int
) -> None:
    data = content.encode() if isinstance(content, str) else content
    path = write(tmp_path / "x.json.gz", b'{"a": "before"}\n' * ahead + data)
    with pytest.raises(DataError, match=rf"x\.json\.gz, line {line + ahead} .*{reason}"):
        json_rows(path)
    with pytest.raises(DataError, match=rf"x\.json\.gz, line {line + ahead} "):
        read_events(json_source(path, {**AB, "t": "VARCHAR"}), user="a", item="a", time=None, time_unit="order")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{'a': 'x", "a string without an end"),
        ("{'a': __import__('os').system('true')}", "Expecting"),
        ("{'a': open}", "Expecting value"),
        ("{'a': 1 + 1}", "Expecting"),
        ("{'a': (1, 2)}", "Expecting"),
        ("{1: 2}", "Expecting property name"),
        ("{'a': b'x'}", "Expecting"),
        ("{'a': " + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ("{'a': " + "9" * 5_000 + "}", "4300"),
        ("{'a': '\\Uffffffff'}", "chr"),
        ("['a']", "a list where a dict belongs"),
        ("None", "a NoneType where a dict belongs"),
        ("nothing", "Expecting value"),
    ],
)
def test_a_line_that_is_no_literal_is_named(tmp_path: Path, own_cache: Path, bad: str, reason: str) -> None:
    path = write(tmp_path / "x.json", f"{{'a': 1}}\n\n{bad}\n")
    with pytest.raises(DataError, match=rf"x\.json, line 3 is not a Python dict \(.*({reason}).*remove that line"):
        literal_rows(path)
    assert spooled(own_cache) == []


@pytest.mark.parametrize("cut", [4, 12, 2_000])
def test_a_gz_that_ends_early_is_named_with_its_last_line(tmp_path: Path, cut: int) -> None:
    for number, read in enumerate((json_rows, literal_rows)):
        lines = [f'{{"a": "{k * 7919 % 100_003}"}}' for k in range(5_000)]
        text = "\n".join(lines) if number == 0 else "\n".join(lines).replace('"', "'")
        whole = write(tmp_path / "x.json.gz", text + "\n").read_bytes()
        (tmp_path / "x.json.gz").write_bytes(whole[:-cut])
        with pytest.raises(DataError, match=r"x\.json\.gz cannot be read beyond line \d+ .*Get the file again"):
            read(tmp_path / "x.json.gz")


def test_what_is_no_gz_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json.gz").write_bytes(b"<html>Log in</html>")
    for read in (json_rows, literal_rows):
        with pytest.raises(DataError, match=r"x\.json\.gz cannot be read beyond line 0 .*gzip"):
            read(tmp_path / "x.json.gz")


def test_a_line_of_ten_million_characters_is_refused_in_literals_and_harmless_in_json(tmp_path: Path) -> None:
    long = "x" * 10_000_000
    with pytest.raises(DataError, match=r"line 2 is longer than 4,194,304 bytes"):
        literal_rows(write(tmp_path / "x.json", f"{{'a': 1}}\n{{'a': '{long}'}}\n"))
    path = write(tmp_path / "y.json", f'{{"a": 1}}\n{{"a": "{long}"}}\n')
    assert [len(a or "") for a, _ in json_rows(path)] == [1, 10_000_000]
    with pytest.raises(DataError, match=r"y\.json, line 3 is not a JSON object"):
        json_rows(write(path, path.read_bytes() + b"{"))


def test_a_line_beyond_the_buffers_of_json_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", '{"a": 1}\n{"a": "' + "x" * 40_000_000 + '"}\n')
    with pytest.raises(DataError, match=r"x\.json, line 2 is longer than 16,777,216 bytes"):
        json_rows(path)


def test_empty_files_have_no_rows_and_absent_ones_are_named(tmp_path: Path) -> None:
    assert json_rows(write(tmp_path / "x.json", "")) == literal_rows(tmp_path / "x.json") == []
    assert json_rows(write(tmp_path / "x.json.gz", "")) == literal_rows(tmp_path / "x.json.gz") == []
    for read in (json_rows, literal_rows):
        with pytest.raises(DataError, match="is not a file"):
            read(tmp_path / "absent.json")


def test_errors_of_events_tell_the_line_of_the_file(tmp_path: Path) -> None:
    text = "{'a': 'u', 'b': '2020-01-01'}\n\n{'a': 'u', 'b': '2020-13-01'}\n"
    path = write(tmp_path / "x.json", text)
    with (
        literal_source(path, ["a", "b"]) as source,
        pytest.raises(DataError, match=r"x\.json, line 3, column 'b': not a date, found '2020-13-01'"),
    ):
        read_events(source, user="a", item="a", time="b")
    path = write(tmp_path / "x.json", text.replace("'", '"'))
    with pytest.raises(DataError, match=r"x\.json, line 3, column 'b': not a date"):
        read_events(json_source(path, AB), user="a", item="a", time="b")


def test_many_lines_pass_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "BATCH", 7)
    path = write(tmp_path / "x.json.gz", "".join(f"{{'a': {k}}}\n" for k in range(100)))
    assert [a for a, _ in literal_rows(path)] == [str(k) for k in range(100)]


@pytest.mark.parametrize("text", ["{'a': 1, 'b': \"it's\"}\n", '{"a": 1, "b": "it\'s"}\n'])
def test_the_kind_of_object_is_found_out(tmp_path: Path, text: str) -> None:
    with object_source(write(tmp_path / "x.json", text), ["a", "b"]) as source:
        assert rows(source.select(a="c0", b="c1")) == [("1", "it's")]


def test_other_keys_and_empty_files_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"line 2: an object with a, b belongs here, found '\{\"c\": 1\}'"),
        object_source(write(tmp_path / "x.json", '\n{"c": 1}\n'), ["a", "b"]),
    ):
        pass
    with pytest.raises(DataError, match="is empty"), object_source(write(tmp_path / "x.json", "\n"), ["a"]):
        pass


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=5))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.json"
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    refused = None
    try:
        literal_rows(path)
    except DataError as error:
        refused = str(error)
    assert refused is None or "x.json, line " in refused
