"""Rows and tests of a comparison as Parquet, one line each, for whoever plots or counts further."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrec.experiments.compare.table import Comparison, Row, Test
from seqrec.experiments.seeds import Spread
from seqrec.files import atomic_file

if TYPE_CHECKING:
    import pyarrow as pa


def write_rows(comparison: Comparison, path: Path) -> None:
    """One line per row: `test.ndcg@10`, `test.ndcg@10.deviation`, `by_length.1-9`, `varied.model.max_length`, ...

    What a row lacks is null. Values of one varied setting that are not of one kind are text.
    """
    import pyarrow as pa

    flat = [_flat(row) for row in comparison.rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    columns = {name: _column(name, [row.get(name) for row in flat]) for name in names}
    _write(pa.table(columns), path)


def write_tests(comparison: Comparison, path: Path) -> None:
    """One line per test, with the fields of `Test`; the columns are there where nothing was tested too."""
    import pyarrow as pa

    kinds = {"float": pa.float64(), "int": pa.int64()}
    schema = pa.schema([(field.name, kinds.get(str(field.type), pa.string())) for field in fields(Test)])
    _write(pa.Table.from_pylist([asdict(test) for test in comparison.tests], schema=schema), path)


def _flat(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in vars(row).items():
        if not isinstance(value, dict):
            found[name] = list(value) if isinstance(value, tuple) else value
            continue
        for key, inner in value.items():
            if isinstance(inner, Spread):
                found[f"{name}.{key}"] = inner.mean
                found[f"{name}.{key}.deviation"] = inner.deviation
            else:
                found[f"{name}.{key}"] = inner
    return {"name": row.name, **found}


def _column(name: str, values: list[Any]) -> pa.Array:
    import pyarrow as pa

    if name == "seeds":
        return pa.array(values, pa.list_(pa.int64()))
    if name.startswith("varied."):
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1 and kinds != {int, float}:
            return pa.array([None if value is None else str(value) for value in values])
    whole = name in ("parameters", "beside")
    numbers = all(isinstance(value, int | float) for value in values if value is not None)
    return pa.array(values, pa.int64() if whole else None if not numbers or "varied." in name else pa.float64())


def _write(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
