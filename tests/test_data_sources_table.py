"""Tables: columns that are found, ids that stay, times that are understood, and errors that name the place."""

from __future__ import annotations

import gzip
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqrec.data.interactions import Interactions
from seqrec.data.sources.table import read_table
from seqrec.errors import DataError, UnknownNameError

SECONDS = [964982703, 964982224, 964982931]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def column(interactions: Interactions, name: str) -> list[Any]:
    values: list[Any] = interactions.events[name].to_pylist()
    return values


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_table(source, **options)
    return str(caught.value)


def test_a_plain_csv(tmp_path: Path) -> None:
    text = 'userId,movieId,rating,timestamp\n1,"10",4.5,964982703\n1,"a, ""b""",,964982224\n01,10,3,964982931\n'
    log = read_table(write(tmp_path / "my.log.csv", text))
    assert log.name == "my"
    assert log.clock
    assert column(log, "row") == [0, 1, 2]
    assert column(log, "user") == ["1", "1", "01"]
    assert column(log, "item") == ["10", 'a, "b"', "10"]
    assert column(log, "timestamp") == [1000 * second for second in SECONDS]
    assert column(log, "value") == [4.5, None, 3.0]
    assert log.events.schema.field("timestamp").type == pa.int64()
    assert log.events.schema.field("value").type == pa.float64()
    assert pa.types.is_dictionary(log.events.schema.field("user").type)


@pytest.mark.parametrize(
    ("file", "delimiter"),
    [("a.tsv", "\t"), ("a.txt", "::"), ("a.csv", ";"), ("a.txt", "|"), ("a.csv.gz", ","), ("A.CSV", ",")],
)
def test_delimiters_compression_and_ends_of_lines(tmp_path: Path, file: str, delimiter: str) -> None:
    lines = [["uid", "iid", "ts"], ["u 1", "é", "964982703"], ["u 1", "b", "964982224"]]
    text = "\ufeff" + "\r\n".join(delimiter.join(line) for line in lines)
    content = text.encode()
    log = read_table(write(tmp_path / file, gzip.compress(content) if file.endswith("gz") else content))
    assert column(log, "user") == ["u 1", "u 1"]
    assert column(log, "item") == ["é", "b"]


def test_names_that_duckdb_and_globs_would_trip_over(tmp_path: Path) -> None:
    write(tmp_path / "log 1.csv", "user,item,ts\nwrong,wrong,964982703\n")
    path = write(tmp_path / "log [1]*?'.csv", 'User ID,"it""em",ts,TS2\n1,2,964982703,x\n')
    assert column(read_table(path, item='it"em'), "user") == ["1"]


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (["964982703", "964982224.0", "9.64982931e8"], "auto"),
        (["964982703000", "964982224000", "964982931000"], "auto"),
        (["964982703000000", "964982224000000", "964982931000000"], "auto"),
        (["2000-07-30T18:45:03Z", "2000-07-30 18:37:04", "2000-07-30T20:48:51+02:00"], "auto"),
        (["2000-07-30T18:45:03Z", "2000-07-30 18:37:04", "2000-07-30T20:48:51+02:00"], "iso"),
        (["964982703", "964982224", "964982931"], "s"),
        (["964982703000", "964982224000", "964982931000"], "ms"),
    ],
)
def test_times_in_text(tmp_path: Path, times: list[str], unit: str) -> None:
    path = write(tmp_path / "a.csv", "user,item,date\n" + "".join(f"1,2,{time}\n" for time in times))
    assert column(read_table(path, time_unit=unit), "timestamp") == [1000 * second for second in SECONDS]


def test_the_unit_says_what_small_numbers_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "user,item,ts\n1,2,86400\n1,3,86401.5\n")
    assert column(read_table(path, time_unit="s"), "timestamp") == [86_400_000, 86_401_500]
    assert "--time-unit order" in refusal(path)


def test_dates_without_a_time() -> None:
    frame = pa.table({"user": ["a"], "item": ["b"], "date": pa.array([11168], pa.date32())})
    assert column(read_table(frame), "timestamp") == [11168 * 86_400_000]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_arrow_timestamps(unit: str, zone: str | None) -> None:
    utc = pa.array(SECONDS, pa.int64()).cast(pa.timestamp("s")).cast(pa.timestamp(unit))
    times = utc if zone is None else utc.cast(pa.timestamp(unit, zone))
    log = read_table(pa.table({"user": ["a"] * 3, "item": ["b"] * 3, "time": times}))
    assert column(log, "timestamp") == [1000 * second for second in SECONDS]


def test_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "user,item,timestamp,position\n1,2,9,7\n1,3,9,-5\n")
    by_row = read_table(path, time_unit="order")
    assert column(by_row, "timestamp") == [0, 1]
    assert not by_row.clock
    by_column = read_table(path, time="position", time_unit="order")
    assert column(by_column, "timestamp") == [7, -5]
    assert not by_column.clock
    write(path, "user,item,position\n1,2,7\n1,3,7.5\n")
    said = refusal(path, time="position", time_unit="order")
    assert "line 3, column 'position': not a whole number, found '7.5'" in said


def test_one_id_is_one_id_however_it_is_stored(tmp_path: Path) -> None:
    csv = read_table(write(tmp_path / "a.csv", "user,item,ts\n1,7,964982703\n2,7,964982224\n"))
    frame = pd.DataFrame({"user": [1, 2], "item": [7.0, 7.0], "ts": SECONDS[:2]})
    frame.to_parquet(tmp_path / "a.parquet")
    sources = [
        tmp_path / "a.parquet",
        frame,
        frame.astype({"user": object}),
        frame.astype({"user": "category", "item": "float32"}),
        frame.assign(user=["1", 2]),
        pl.from_pandas(frame),
        pl.from_pandas(frame).with_columns(pl.col("user").cast(pl.String).cast(pl.Categorical)),
        pa.Table.from_pandas(frame),
        pa.RecordBatch.from_pandas(frame),
    ]
    for source in sources:
        assert read_table(source).fingerprint() == csv.fingerprint()


def test_frames_of_pandas(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "user": pd.Categorical(["a", "b", "a"]),
            "item": pd.Series([3, 4, 3], dtype="Int64"),
            "time": pd.to_datetime(SECONDS, unit="s", utc=True).tz_convert("Europe/Berlin"),
            "anything": [{1: 2}, object(), "mixed"],
        }
    )
    frame.index = pd.Index([5, 5, 9])
    log = read_table(frame, name="mine")
    assert log.name == "mine"
    assert column(log, "item") == ["3", "4", "3"]
    assert column(log, "timestamp") == [1000 * second for second in SECONDS]
    naive = frame.assign(time=[datetime(2000, 7, 30, 18, 45, 3)] * 3)
    assert column(read_table(naive), "timestamp") == [964982703000] * 3


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "arrow", "pandas"])
def test_the_order_of_a_long_source_is_kept(tmp_path: Path, kind: str) -> None:
    rows = 300_000
    table = pa.table(
        {"user": np.arange(rows) % 977, "item": np.arange(rows), "ts": 1_000_000_000 + np.arange(rows) % 3}
    )
    source: Any = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, source, row_group_size=5_000)
    elif kind == "arrow":
        source = pa.Table.from_batches(table.to_batches(max_chunksize=3_000))
    elif kind == "pandas":
        source = table.to_pandas()
    else:
        table.to_pandas().to_csv(source, index=False)
    log = read_table(source)
    assert np.array_equal(log.events["row"].to_numpy(), np.arange(rows))
    assert column(log, "item") == [str(item) for item in range(rows)]
    assert np.array_equal(log.timestamps(), 1000 * table["ts"].to_numpy())


def test_rows_that_repeat_stay(tmp_path: Path) -> None:
    assert len(read_table(write(tmp_path / "a.csv", "user,item,ts\n" + "1,2,964982703\n" * 3))) == 3


@pytest.mark.parametrize(
    ("lines", "place", "found"),
    [
        ("1,2,964982703\n\n1,2,abc\n", "line 4, column 'ts'", "'abc'"),
        ('1,"a\nb",964982703\n1,2,\n', "line 4, column 'ts'", "nothing"),
        ("1,2,964982703\n1,2,nan\n", "line 3, column 'ts'", "'nan'"),
        ("1,2,964982703\n1,2,inf\n", "line 3, column 'ts'", "'inf'"),
        ("1,2,964982703\n1,2,-1\n", "line 3, column 'ts'", "'-1'"),
        ("1,2,964982703\n1,2,0\n1,2,964982703\n", "line 3, column 'ts'", "'0'"),
        ("1,2,964982703\n1,2,4102444800\n", "line 3, column 'ts'", "'4102444800'"),
        ("1,2,964982703\n1,2,964982703\n1,2,964982703000\n", "line 4, column 'ts'", "'964982703000'"),
        ("1,2,964982703\n1,2,964982703000\n1,2,964982703000\n", "line 2, column 'ts'", "'964982703'"),
        ("1,2,2000-01-01\n1,2,1969-12-31\n", "line 3, column 'ts'", "'1969-12-31'"),
        ("1,2,2000-01-01\n1,2,2001-01-01\n1,2,31/12/2001\n", "line 4, column 'ts'", "'31/12/2001'"),
        ("1,2,20000101\n", "line 2, column 'ts'", "'20000101'"),
        ("1,2,964982703\n,2,964982703\n", "line 3, column 'user'", "nothing"),
        ("1,2,964982703\n1,  ,964982703\n", "line 3, column 'item'", "'  '"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, lines: str, place: str, found: str) -> None:
    path = write(tmp_path / "a.csv", "user,item,ts\n" + lines)
    said = refusal(path)
    assert f"{path}, {place}: " in said
    assert f"found {found}. " in said
    packed = write(tmp_path / "a.csv.gz", gzip.compress(path.read_bytes()))
    assert place in refusal(packed)


@pytest.mark.parametrize("bad", ["four", "inf"])
def test_values_that_are_no_numbers(tmp_path: Path, bad: str) -> None:
    path = write(tmp_path / "a.csv", f"user,item,ts,rating\n1,2,964982703,\n1,2,964982703,{bad}\n")
    assert "value" not in read_table(path).events.column_names
    assert f"line 3, column 'rating': not a number, found '{bad}'" in refusal(path, value="rating")


@pytest.mark.parametrize(
    ("user", "found"), [([1.0, None], "nothing"), ([1.0, 1.5], "'1.5'"), ([1.0, 2.0**60], "'1.152"), (["a", ""], "''")]
)
def test_ids_of_frames_that_cannot_be(user: list[Any], found: str) -> None:
    said = refusal(pd.DataFrame({"user": user, "item": [1, 2], "ts": SECONDS[:2]}))
    assert f"the table, row 2, column 'user': no usable id, found {found}" in said


def test_lists_are_no_ids() -> None:
    frame = pa.table({"user": [[1], [2]], "item": [1, 2], "ts": SECONDS[:2]})
    assert "column 'user' is of type BIGINT[]" in refusal(frame)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("user,item,ts\n", "no rows"),
        ("user,item,ts\n1,2,964982703\n1,2\n", "Line: 3"),
        ("user,item,ts\n1,2,964982703\n1,2,3,4\n", "Line: 3"),
        ('user,item,ts\n1,2,964982703\n1,"2,3\n', "Line: 3"),
        (b"user,item,ts\n1,\xe9,964982703\n", "utf-8"),
        (b"user,\xe9,ts\n1,2,964982703\n", "not utf-8"),
        ("who,what,when\n1,2,3\n", "user and item and time"),
        ("196,242,881250949\n186,302,891717742\n", "The first line looks like data"),
        ("user,user,item,ts\n1,2,3,964982703\n", "several columns 'user'"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = write(tmp_path / "a.csv", text)
    message = refusal(path)
    assert said in message
    assert str(path) in message


@pytest.mark.parametrize("file", ["a.csv", "a.csv.gz"])
def test_a_short_file_in_mixed_encodings_is_refused_by_its_line(tmp_path: Path, file: str) -> None:
    content = "user,item,ts\né,2,964982703\n".encode() + b"1,\xe9,964982703\n"
    path = write(tmp_path / file, gzip.compress(content) if file.endswith("gz") else content)
    said = refusal(path)
    assert "Line: 3" in said
    assert "first line" not in said


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_first_line_ends_in_any_way(tmp_path: Path, end: str) -> None:
    path = write(tmp_path / "a.csv", "\ufeff" + end.join(["usér,item,ts", "1,é,964982703", "2,b,964982703"]))
    assert column(read_table(path, user="usér"), "item") == ["é", "b"]


def test_missing_columns_are_listed_with_the_flags(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "who,item_id,ts\n1,2,964982703\n")
    said = refusal(path)
    assert "no column found for user. Columns found: who, item_id, ts." in said
    assert "--user COLUMN" in said
    assert column(read_table(path, user="who"), "user") == ["1"]
    assert "Did you mean 'who'" in refusal(path, user="whom")
    assert "two things" in refusal(path, user="who", item="who")
    write(path, "user,item\n1,2\n")
    assert "--time-unit order" in refusal(path)


def test_sources_that_are_no_tables(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.csv")
    assert "is a folder" in refusal(tmp_path)
    assert "not a kind of table" in refusal(write(tmp_path / "a.xlsx", "x"))
    assert "cannot be read" in refusal(write(tmp_path / "a.parquet", "user,item\n"))
    assert "cannot be read" in refusal(write(tmp_path / "a.csv.gz", "user,item\n"))
    assert "LazyFrame is not a table" in refusal(pl.LazyFrame({"user": [1]}))
    assert "builtins.dict is not a table" in refusal({"user": [1]})
    assert "no rows" in refusal(pd.DataFrame({"user": [], "item": [], "ts": []}))


def test_unknown_units_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="time unit 'seconds'"):
        read_table(tmp_path / "a.csv", time_unit="seconds")


IDS = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=8).filter(lambda text: text.strip())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(IDS, IDS, st.integers(100_000_000, 4_102_444_799)), min_size=1, max_size=20))
def test_what_pandas_writes_is_what_is_read(tmp_path: Path, rows: list[tuple[str, str, int]]) -> None:
    frame = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    for source in (tmp_path / "a.csv", frame):
        log = read_table(source)
        assert list(zip(column(log, "user"), column(log, "item"), strict=True)) == [row[:2] for row in rows]
        assert column(log, "timestamp") == [1000 * row[2] for row in rows]
