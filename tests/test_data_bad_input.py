"""Input that is broken, huge or misleading: read as it is written, or refused with the place in words."""

from __future__ import annotations

import bz2
import gzip
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec.data.archives import extract, open_archive
from seqrec.data.interactions import Interactions
from seqrec.data.load import load_data
from seqrec.data.sources import music4all
from seqrec.data.sources.jsonlines import json_source, literal_source
from seqrec.data.sources.movielens import read_zip
from seqrec.data.sources.published import price
from seqrec.data.sources.recbole import read_recbole
from seqrec.data.sources.table import read_table
from seqrec.errors import DataError, UnknownNameError

SECOND = 1_400_000_000
HEADER = b"user,item,ts\n"
#: Beyond the rows from which the unit of times is guessed, and in another block of DuckDB's.
DEEP = 250_000
LINE = b"u1,i1,1400000000\n"


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_table(source, **options)
    assert len(str(caught.value)) < 5_000
    return str(caught.value)


def ids(log: Interactions, column: str) -> list[str]:
    return list(log.codes(column)[1])


# --- damage deep in a file


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (b"u1,i1,yesterday\n", f"line {DEEP + 2}, column 'ts': not a time, found 'yesterday'"),
        (b"u1,i1,1400000000000\n", f"line {DEEP + 2}, column 'ts': not a time in s"),
        (b"u1,i1,nan\n", f"line {DEEP + 2}, column 'ts': not a time, found 'nan'"),
        (b"u1,,1400000000\n", f"line {DEEP + 2}, column 'item': no usable id"),
        (b"u1,i1\n", f"Line: {DEEP + 2}"),
        (b"u1,i1,1400000000,more\n", f"Line: {DEEP + 2}"),
        (b"u1,Andr\xe9,1400000000\n", f"Line: {DEEP + 2}"),
        (b'u1,"i1,1400000000\n', f"Line: {DEEP + 2}"),
    ],
)
def test_damage_deep_in_a_file_is_found(tmp_path: Path, name: str, damage: bytes, said: str) -> None:
    path = write(tmp_path / name, HEADER + LINE * DEEP + damage + LINE * 10)
    message = refusal(path)
    assert str(path) in message
    assert said in message


@pytest.mark.parametrize("cut", [1, 8, 9, 500])
def test_a_gz_that_was_cut(tmp_path: Path, cut: int) -> None:
    rows = b"".join(b"u%d,i%d,%d\n" % (k % 97, k % 31, SECOND + k) for k in range(20_000))
    path = write(tmp_path / "log.csv.gz", HEADER + rows)
    path.write_bytes(path.read_bytes()[:-cut])
    assert str(path) in refusal(path)


def test_damage_in_the_first_bytes_of_a_gz(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(HEADER + LINE * 1000))
    for k in range(10, len(packed)):
        path = tmp_path / "log.csv.gz"
        path.write_bytes(packed[:k] + bytes([packed[k] ^ 0xFF]) + packed[k + 1 :])
        assert str(path) in refusal(path)


def test_an_empty_id_deep_in_a_parquet_file(tmp_path: Path) -> None:
    items = ["a"] * DEEP + [None, "b"]
    table = pa.table({"user": ["u"] * len(items), "item": items, "ts": [SECOND] * len(items)})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=10_000)
    assert f"row {DEEP + 1}, column 'item': no usable id, found nothing" in refusal(tmp_path / "log.parquet")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_times_of_a_frame_that_are_no_times(bad: float) -> None:
    table = pa.table({"user": ["u", "u"], "item": ["a", "b"], "ts": [float(SECOND), bad]})
    assert "row 2, column 'ts': not a time" in refusal(table)


# --- sizes


LONG = b"x" * 10_000_000


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.csv.gz"])
def test_a_line_of_ten_million_characters(tmp_path: Path, name: str, place: str) -> None:
    tab = name == "log.tsv"
    lines = [LINE, b"u1," + LONG + b",1400000000\n"]
    content = HEADER + b"".join(reversed(lines) if place == "first" else lines)
    path = write(tmp_path / name, content.replace(b",", b"\t") if tab else content)
    assert f"{path}: " in refusal(path)


def test_a_header_of_ten_million_characters(tmp_path: Path) -> None:
    assert "Columns found: xxx" in refusal(write(tmp_path / "log.csv", LONG + b",item,ts\n" + LINE))
    assert "Columns found: " in refusal(write(tmp_path / "log.csv", b'"' + LONG + b'",item,ts\n' + LINE))


def test_long_lines_of_atomic_files_and_objects(tmp_path: Path) -> None:
    header = b"user_id:token\titem_id:token\ttimestamp:float\n"
    write(tmp_path / "log.inter", header + b"u\t" + LONG + b"\t1400000000\n")
    with pytest.raises(DataError, match=r"log\.inter: "):
        read_recbole(tmp_path)
    write(tmp_path / "log.json", b'{"a": "' + LONG * 4 + b'"}\n')
    with pytest.raises(DataError, match="line 1 is longer than 16,777,216 bytes"):
        json_source(tmp_path / "log.json", {"a": "VARCHAR"}).select(a="c0")
    with (
        pytest.raises(DataError, match="line 1 is longer than 4,194,304 bytes"),
        literal_source(tmp_path / "log.json", ["a"]),
    ):
        pass
    write(tmp_path / "log.json", b'{"a": "' + LONG + b'"}\n')
    assert len(json_source(tmp_path / "log.json", {"a": "VARCHAR"}).select(a="c0")["a"][0].as_py()) == 10_000_000


def test_an_id_of_a_megabyte(tmp_path: Path) -> None:
    long = b"i" * 1_000_000
    path = write(
        tmp_path / "log.csv", HEADER + b"u1," + long + b",1400000000\n" + b"u1,b,1400000001\nu2,b,1400000001\n" * 3
    )
    assert ids(read_table(path), "item") == [long.decode(), "b"]
    data = load_data(path, user="user", item="item", time="ts", k_core=0)
    assert data.catalogue.find(long.decode()) == 1
    write(path, HEADER + b"u1," + long + b",1400000000\nu1,b," + long + b"\n")
    said = refusal(path)
    assert "line 3, column 'ts': not a time, found 'iii" in said
    assert "(1,000,000 characters)" in said


def test_three_thousand_columns(tmp_path: Path) -> None:
    names = [f"c{k}" for k in range(3_000)]
    rows = [",".join(["u1", "i1", str(SECOND), *names[3:]])] * 20
    path = write(tmp_path / "log.csv", "\n".join([",".join(["user", "item", "ts", *names[3:]]), *rows]).encode())
    assert len(read_table(path)) == 20
    assert "and 2,960 more" in refusal(path, user="nobody")
    pq.write_table(pa.table({name: ["x"] for name in names}), tmp_path / "log.parquet")
    assert "and 2,960 more" in refusal(tmp_path / "log.parquet")


def test_ratings_beyond_what_is_kept_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", b"user,item,ts,rating\nu,i,1400000000,5\nu,i,1400000000,1e308\n")
    assert "line 3, column 'rating': not a number" in refusal(path, value="rating")
    assert "value" not in read_table(path).events.column_names


# --- ids and times that mislead


def test_ids_are_the_same_only_when_they_are_written_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", HEADER + b'1,a,1400000000\n"1",a,1400000000\n 1,a,1400000000\n01,a,1400000000\n')
    assert ids(read_table(path), "user") == ["1", " 1", "01"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_letters_that_look_alike_stay_apart(tmp_path: Path, suffix: str) -> None:
    alike = [
        "a",
        "\u0430",
        "\u00e9",
        "e\u0301",
        "ab",
        "a\u200db",
        "a\ufeffb",
        "A",
        "\uff41",
        "a\u00a0",
        "a\u0308\u0323",
    ]
    table = pa.table({"user": ["u"] * len(alike), "item": alike, "ts": [SECOND] * len(alike)})
    path = tmp_path / f"log{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        table.to_pandas().to_csv(path, index=False)
    assert ids(read_table(path), "item") == alike


@pytest.mark.parametrize("moment", ["9999-12-31", "99999-01-01", "290000-01-01", "2100-01-01"])
def test_times_in_the_far_future(tmp_path: Path, moment: str) -> None:
    rows = f"u1,i1,2014-05-13\nu1,i1,{moment}\n"
    said = refusal(write(tmp_path / "log.csv", HEADER + rows.encode()))
    assert "line 3, column 'ts': not a " in said
    assert f"found '{moment}'" in said


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_a_frame_in_the_far_future(unit: str) -> None:
    times = pa.array([SECOND, 1 << 62], pa.int64()).cast(pa.timestamp(unit))
    assert "the table" in refusal(pa.table({"user": ["u", "u"], "item": ["a", "b"], "time": times}))


def test_a_log_of_one_item(tmp_path: Path) -> None:
    rows = b"".join(b"u%d,only,%d\n" % (user, SECOND + k) for user in range(5) for k in range(6))
    data = load_data(write(tmp_path / "log.csv", HEADER + rows), user="user", item="item", time="ts", k_core=0)
    assert len(data.catalogue) == 1
    assert len(data.split.test) == 5


# --- folders


def part(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def test_parquet_parts_that_do_not_fit_together(tmp_path: Path) -> None:
    part(tmp_path / "0.parquet", user=["u"], item=["a"], ts=[SECOND])
    part(tmp_path / "1.parquet", user=["u"], thing=["a"], ts=[SECOND])
    assert "1.parquet" in refusal(tmp_path)
    part(tmp_path / "1.parquet", user=["u"], item=["b"], ts=["soon"])
    assert "soon" in refusal(tmp_path)
    (tmp_path / "1.parquet").write_text("user,item,ts\nu,a,1\n")
    assert "1.parquet" in refusal(tmp_path)
    (tmp_path / "1.parquet").write_bytes(b"")
    assert "1.parquet" in refusal(tmp_path)


def test_a_parquet_part_without_rows(tmp_path: Path) -> None:
    nothing = pa.array([], pa.string())
    part(tmp_path / "0.parquet", user=nothing, item=nothing, ts=pa.array([], pa.int64()))
    assert "no rows" in refusal(tmp_path)
    part(tmp_path / "1.parquet", ts=[SECOND], user=["u"], item=["a"])
    assert len(read_table(tmp_path)) == 1


def test_folders_that_contain_themselves(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    part(log / "0.parquet", user=["u", "v"] * 4, item=list("abcdabcd"), ts=[SECOND + k for k in range(8)])
    (log / "again").symlink_to(log)
    (log / "itself.parquet").symlink_to("itself.parquet")
    assert load_data(log, user="user", item="item", time="ts", k_core=0).facts["events"] == 8
    with pytest.raises(UnknownNameError):
        load_data(log / "itself.parquet")


@pytest.mark.parametrize("name", ["x" * 5_000, "a\0b", "", "~nobody/log.csv"])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises((UnknownNameError, DataError)):
        load_data(name)


# --- what fuzzing found


def zipped(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def test_a_zip_whose_members_begin_before_it(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.txt": "text", "b.txt": "text"})
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\5\6") + 16  # where the end says that the list of members begins
    content[directory] += 100
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip"), open_archive(path) as archive:
        extract(archive, "a.txt", tmp_path / "out")


def test_a_genre_without_a_name(tmp_path: Path) -> None:
    members = {"u.data": "1\t2\t3\t881250949\n", "u.genre": "Action|0\n|1\n", "u.item": "2|Film|||x|0|1\n"}
    with pytest.raises(DataError, match=r"u\.genre, line 2, column 'genre': no usable id"):
        read_zip("ml-100k", zipped(tmp_path / "ml.zip", members | {"u.user": "1|2|M|x|y\n"}))


def test_a_header_of_plays_that_is_no_text(own_cache: Path) -> None:
    path = own_cache / "raw" / "music4all" / "userid_trackid_timestamp.tsv.bz2"
    path.parent.mkdir(parents=True)
    path.write_bytes(bz2.compress(b"user_id\t\xb5\ttimestamp\nu\ti\t2019-02-20 12:28:00\n"))
    with pytest.raises(DataError, match=r"timestamp\.tsv\.bz2 cannot be read beyond line 1"):
        music4all.load("music4all", cache=own_cache, report=lambda line: None)


def test_prices_that_no_number_holds() -> None:
    assert price("9" * 400) is None
    assert price("9" * 30) is None
    assert price("$1,299.00") == 1299.0
