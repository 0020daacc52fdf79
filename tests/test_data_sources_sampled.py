"""What a data set with a name knows goes along with a sample of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec.data.config import DataConfig
from seqrec.data.interactions import Interactions, encode_ids
from seqrec.data.load import load_data, prepare_source_on_spark, read_source
from seqrec.data.sampling import sample
from seqrec.errors import ConfigError, DataError


def test_what_a_data_set_knows_stays_with_its_sample(tmp_path: Path) -> None:
    sample("test_data_sources_sampled:plays", tmp_path / "first", ["last=20"])
    sample(tmp_path / "first", tmp_path / "second", ["users=0.5"])
    asked = {"user": "user", "item": "item", "time": "timestamp"}
    found = read_source(DataConfig(source=str(tmp_path / "second"), **asked))
    assert found.revisits is True
    assert found.items is not None
    assert found.items.to_pylist() == [
        {"id": f"i{k}", "title": f"Song {k}", "categories": ["rock"]} for k in (1, 3, 5, 7, 9)
    ]
    assert found.users is not None
    ids = sorted(set(pd.read_parquet(tmp_path / "second")["user"]))
    assert 0 < len(ids) < 20
    assert sorted(found.users["id"].to_pylist()) == ids

    whole, part = load_data("test_data_sources_sampled:plays", k_core=2), load_data(tmp_path / "second", k_core=2)
    assert (whole.facts["revisits"], part.facts["revisits"]) == (True, True)
    assert part.catalogue.titles == ["Song 1", "Song 3", "Song 5", "Song 7", "Song 9"]
    assert set(part.features().items) == set(whole.features().items) == {"title", "categories"}
    assert set(part.features().users) == {"gender"}
    with pytest.raises(ConfigError, match="without Spark"):
        prepare_source_on_spark(DataConfig(source=str(tmp_path / "second"), **asked), "local[1]")


def plays(name: str, *, cache: Path, report: Any) -> Interactions:
    """Twenty people who play five songs of ten again and again; of one more person nothing is played."""
    count = 600
    events = pa.table(
        {
            "row": pa.array(range(count)),
            "user": encode_ids(pa.array([f"u{k // 30}" for k in range(count)])),
            "item": encode_ids(pa.array([f"i{2 * k % 10 + 1}" for k in range(count)])),
            "timestamp": pa.array(1_600_000_000_000 + 60_000 * k for k in range(count)),
        }
    )
    songs = [{"id": f"i{k}", "title": f"Song {k}", "categories": ["rock"]} for k in range(10)]
    people = [{"id": f"u{k}", "gender": "F" if k % 2 else "M"} for k in range(21)]
    return Interactions("plays", events, pa.Table.from_pylist(songs), pa.Table.from_pylist(people), revisits=True)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("_items.parquet", b"PAR1"),
        ("_users.parquet", b""),
        ("_items.parquet", None),
        ("_sample.json", b"{"),
        ("_sample.json", b"[]"),
    ],
)
def test_damage_beside_a_sample_is_named(tmp_path: Path, file: str, content: bytes | None) -> None:
    sample("test_data_sources_sampled:plays", tmp_path / "out", ["last=20"])
    if content is None:
        pq.write_table(pa.table({"name": ["i1"]}), tmp_path / "out" / file)
    else:
        (tmp_path / "out" / file).write_bytes(content)
    with pytest.raises(DataError, match=file):
        read_source(DataConfig(source=str(tmp_path / "out")))
    with pytest.raises(DataError, match=file):
        sample(tmp_path / "out", tmp_path / "again", ["last=2"])
