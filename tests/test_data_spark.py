"""Spark and DuckDB: the same folder, byte for byte, and the same refusals. Real Spark, on two threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark")

from seqrec.data.config import DataConfig
from seqrec.data.prepare import prepare
from seqrec.data.prepared import PreparedData
from seqrec.data.sources.table import read_table
from seqrec.data.spark import prepare_on_spark
from seqrec.data.spark_handover import require_rows
from seqrec.data.spark_session import spark_session
from seqrec.errors import ConfigError, DataError, SeqrecError

FIRST = 1_600_000_000


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    with spark_session("local[2]") as session:
        session.conf.set("spark.sql.shuffle.partitions", "3")
        yield session


@pytest.fixture
def frame() -> pd.DataFrame:
    """3,000 events: many at the same time, whole rows twice, ids of other scripts, floats, ratings that are missing."""
    random = np.random.default_rng(3)
    rows = 3_000
    rating = random.integers(1, 11, rows) / 2
    rating[random.random(rows) < 0.2] = np.nan
    names = np.array(["é", "e\u0301", " 1", "1", "雪", "a,b", 'q"q', "two\nlines"] + [f"u{k}" for k in range(60)])
    frame = pd.DataFrame(
        {
            "user": names[random.integers(0, len(names), rows)],
            "item": random.integers(0, 80, rows).astype(float),
            "ts": FIRST + 86_400 * random.integers(0, 40, rows),
            "rating": rating,
        }
    )
    return pd.concat([frame, frame.iloc[:200], frame.iloc[-100:]], ignore_index=True)


def parts(frame: pd.DataFrame, folder: Path) -> Path:
    """Parquet files named 1, 2, 10, the last in a folder whose name looks like a column."""
    cuts = [0, len(frame) // 5, len(frame) // 2, len(frame)]
    (folder / "part=9").mkdir(parents=True)
    for name, low, high in zip(["part=1 é.parquet", "part=2.parquet", "part=9/10.pq"], cuts, cuts[1:], strict=False):
        pq.write_table(pa.Table.from_pandas(frame[low:high], preserve_index=False), folder / name, row_group_size=97)
    (folder / "_hidden.parquet").write_text("no table")
    return folder


def config(source: Path, **settings: Any) -> DataConfig:
    return DataConfig.parse({"source": str(source), **settings}, "data.")


def assert_same(source: Path, spark: Any, tmp_path: Path, **settings: Any) -> PreparedData:
    """Prepare both ways and compare every file."""
    made = config(source, **settings)
    columns = {name: getattr(made, name) for name in ("user", "item", "time", "value", "time_unit")}
    prepare(read_table(source, **columns), made, tmp_path / "duckdb")
    data = prepare_on_spark(source, made, tmp_path / "spark", session=spark)
    one, two = contents(tmp_path / "duckdb"), contents(tmp_path / "spark")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    assert not list(tmp_path.glob(".spark-*"))
    return data


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusals(source: Path, spark: Any, tmp_path: Path, **settings: Any) -> tuple[str, str]:
    """What DuckDB's reader says, and what Spark's says."""
    made = config(source, **settings)
    columns = {name: getattr(made, name) for name in ("user", "item", "time", "value", "time_unit")}
    with pytest.raises(DataError) as one:
        read_table(source, **columns)
    with pytest.raises(DataError) as two:
        prepare_on_spark(source, made, tmp_path / "spark", session=spark)
    assert not (tmp_path / "spark").exists()
    assert not list(tmp_path.glob(".spark-*"))
    return str(one.value), str(two.value)


@pytest.mark.parametrize(
    ("partitions", "settings"),
    [
        (1, {}),
        (3, {"k_core": 0, "split": "temporal"}),
        (8, {"min_value": 2.5, "since": "2020-09-20", "until": "2020-10-20", "repeats": "first", "k_core": 2}),
    ],
)
def test_parquet_parts(
    spark: Any, frame: pd.DataFrame, tmp_path: Path, partitions: int, settings: dict[str, Any]
) -> None:
    spark.conf.set("spark.sql.shuffle.partitions", str(partitions))
    spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "false")  # else few rows are one partition
    spark.conf.set("spark.sql.files.maxPartitionBytes", "16384")  # several tasks a file
    try:
        assert_same(parts(frame, tmp_path / "log [1]*"), spark, tmp_path, **settings)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", "3")
        spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "true")
        spark.conf.set("spark.sql.files.maxPartitionBytes", "128m")


@pytest.mark.parametrize("name", ["log {1} 'a'.csv", "log.tsv.gz"])
def test_text_with_line_breaks_in_quotes(spark: Any, frame: pd.DataFrame, tmp_path: Path, name: str) -> None:
    frame.to_csv(tmp_path / name, index=False, sep="\t" if "tsv" in name else ",", lineterminator="\r\n")
    data = assert_same(tmp_path / name, spark, tmp_path, k_core=0)
    assert "two\nlines" in data.user_ids() or "two\r\nlines" in data.user_ids()


def test_other_dialects_and_the_order_of_the_file(spark: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    lines = [f'"{user}::i{random.integers(9)}\\::x' for user in random.integers(0, 12, 400)]
    (tmp_path / "log.txt").write_text("\ufeffuser::item::other\n\n" + "\n\n".join(lines) + "\n")
    data = assert_same(tmp_path / "log.txt", spark, tmp_path, time_unit="order")
    assert not data.facts["clock"]


@pytest.mark.parametrize("kind", ["dates", "microseconds", "timestamp", "zone", "date"])
def test_times_of_every_kind(spark: Any, frame: pd.DataFrame, tmp_path: Path, kind: str) -> None:
    moments = pd.to_datetime(frame["ts"], unit="s") + pd.Timedelta("1.2345s")
    times: Any = {
        "dates": moments.dt.strftime("%Y-%m-%dT%H:%M:%S.%f+02:00"),
        "microseconds": moments.astype("datetime64[us]").astype("int64"),
        "timestamp": moments.astype("datetime64[us]"),
        "zone": moments.astype("datetime64[us]").dt.tz_localize("Asia/Tokyo"),
        "date": moments.dt.date,
    }[kind]
    table = frame.assign(ts=times, item=frame["item"].astype("uint32"), user=frame["user"].astype("category"))
    table.to_parquet(tmp_path / "log.parquet", index=False)
    assert_same(tmp_path / "log.parquet", spark, tmp_path)


def test_a_column_that_says_the_order(spark: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    """Rows that a writer scattered are put back; without their numbers the order of files would be taken."""
    source = tmp_path / "log.parquet"
    numbered = frame.assign(row=10 * np.arange(len(frame)))
    numbered.to_parquet(source, index=False)
    made = config(source, k_core=0)
    prepare(read_table(source), made, tmp_path / "duckdb")
    numbered.sample(frac=1, random_state=0).to_parquet(source, index=False)
    prepare_on_spark(source, made, tmp_path / "spark", session=spark, row="row")
    assert contents(tmp_path / "duckdb") == contents(tmp_path / "spark")
    numbered.assign(row=numbered["row"].where(numbered["row"] != 70, 60)).to_parquet(source, index=False)
    with pytest.raises(DataError, match="column 'row': 60 stands in several rows"):
        prepare_on_spark(source, made, tmp_path / "again", session=spark, row="row")


def test_repartitioned_rows_keep_their_order(spark: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    """Spark itself scatters the rows over files; the column brings them back."""
    (tmp_path / "source").mkdir()
    frame.assign(row=np.arange(len(frame))).to_parquet(tmp_path / "source" / "a.parquet", index=False)
    made = config(tmp_path / "source", k_core=0)
    prepare(read_table(tmp_path / "source"), made, tmp_path / "duckdb")
    spark.read.parquet(str(tmp_path / "source")).repartition(5).write.parquet(str(tmp_path / "scattered"))
    (tmp_path / "source").rename(tmp_path / "original")
    (tmp_path / "scattered").rename(tmp_path / "source")
    prepare_on_spark(f"file://{tmp_path}/source", made, tmp_path / "spark", session=spark, row="row")
    assert contents(tmp_path / "duckdb") == contents(tmp_path / "spark")


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_text_at_an_address(spark: Any, frame: pd.DataFrame, tmp_path: Path, name: str) -> None:
    frame.to_csv(tmp_path / name, index=False)
    made = config(tmp_path / name)
    prepare(read_table(tmp_path / name), made, tmp_path / "duckdb")
    prepare_on_spark(f"file://{tmp_path}/{name}", made, tmp_path / "spark", session=spark)
    assert contents(tmp_path / "duckdb") == contents(tmp_path / "spark")


@pytest.mark.parametrize(
    ("lines", "settings"),
    [
        ('1,"a\nb",964982703,\n1,2,,\n', {}),
        ("1,2,964982703,\n\n1,2,964982703000,\n1,2,964982703,\n", {}),
        ("1,2,964982703,\n ,2,964982703,\n", {}),
        ("1,2,2000-01-01,\n1,2,31/12/2001,\n", {}),
        ("1,2,7,\n1,2,7.5,\n", {"time_unit": "order", "time": "ts"}),
        ("1,2,964982703,four\n", {"value": "rating"}),
        ("1,2,964982703,\n", {"user": "whom"}),
        ("", {}),
    ],
)
def test_the_same_refusals(spark: Any, tmp_path: Path, lines: str, settings: dict[str, Any]) -> None:
    (tmp_path / "log.csv").write_text("user,item,ts,rating\n" + lines)
    one, two = refusals(tmp_path / "log.csv", spark, tmp_path, **settings)
    assert one == two


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (b"1,2,964982703\n1,2\n", "line 3: the row has more or fewer columns than the 3 of the header, found '1,2'"),
        (b"1,2,964982703\n1,2,964982703,4\n", "line 3: the row has more or fewer"),
        (b'1,"2,964982703\n', "line 2: the row has more or fewer"),
        (b'1,"2" x,964982703\n', "Spark gave up"),
        (b"1,2,964982703\n" * 1_000 + b"1,\xe9,964982703\n", "row 1001, column 'item': characters that are not UTF-8"),
        (b'1,2,964982703\n1, "2",964982703\n', "line 3, column 'item': characters that are not UTF-8, a blank before"),
    ],
)
def test_text_that_is_damaged(spark: Any, tmp_path: Path, lines: bytes, said: str) -> None:
    (tmp_path / "log.csv").write_bytes(b"user,item,ts\n" + lines)
    with pytest.raises(DataError) as caught:
        prepare_on_spark(tmp_path / "log.csv", config(tmp_path / "log.csv"), tmp_path / "spark", session=spark)
    assert f"{tmp_path}/log.csv" in str(caught.value)
    assert said in str(caught.value)


def test_a_refusal_names_the_part(spark: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[2_000, "item"] = 1.5
    folder = parts(frame, tmp_path / "log")
    _, said = refusals(folder, spark, tmp_path)
    row = 2_000 - len(frame) // 2 + 1
    assert f"{folder}/part=9/10.pq, row {row}, column 'item': no usable id, found '1.5'" in said


def test_parts_that_disagree(spark: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    folder = parts(frame, tmp_path / "log")
    frame.assign(item="x").to_parquet(folder / "11.parquet", index=False)
    with pytest.raises(DataError, match="Spark gave up"):
        prepare_on_spark(folder, config(folder), tmp_path / "spark", session=spark)


def test_a_value_that_was_only_guessed_is_left_out(spark: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.assign(rating=["four", *["5"] * (len(frame) - 1)]).to_csv(tmp_path / "log.csv", index=False)
    assert assert_same(tmp_path / "log.csv", spark, tmp_path).sequences.values is None
    with pytest.raises(ConfigError, match="min_value needs a rating"):
        prepare_on_spark(tmp_path / "log.csv", config(tmp_path / "log.csv", min_value=1), tmp_path / "x", session=spark)


def test_one_user(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,ts\n1,2,964982703\n1,3,964982703\n")
    with pytest.raises(DataError, match="belong to one user"):
        prepare_on_spark(tmp_path / "log.csv", config(tmp_path / "log.csv"), tmp_path / "spark", session=spark)


def test_the_callers_session_stays_as_it_is(spark: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    spark.conf.set("spark.sql.caseSensitive", "false")
    try:
        table = frame.assign(ts=pd.to_datetime(frame["ts"], unit="s").dt.strftime("%Y-%m-%d %H:%M:%S"), User="x")
        table.to_csv(tmp_path / "log.csv", index=False)
        assert_same(tmp_path / "log.csv", spark, tmp_path, user="user")
        assert spark.conf.get("spark.sql.session.timeZone") == "Asia/Tokyo"
        assert spark.conf.get("spark.sql.caseSensitive") == "false"
        assert spark.range(3).count() == 3
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")


def test_parts_on_another_disk_are_missed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"row": [0, 1]}), tmp_path / "part-00000.parquet")
    require_rows(tmp_path, 2)
    for folder, rows in ((tmp_path, 3), (tmp_path / "none", 2)):
        with pytest.raises(DataError, match="share that disk: set SEQREC_CACHE"):
            require_rows(folder, rows)


def test_without_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pyspark.sql import SparkSession

    monkeypatch.setattr(SparkSession, "getActiveSession", classmethod(lambda cls: None))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SeqrecError, match=r"Spark needs Java 17 or newer, and JAVA_HOME .* holds none"):
        prepare_on_spark(tmp_path / "log.csv", config(tmp_path / "log.csv"), tmp_path / "spark")
