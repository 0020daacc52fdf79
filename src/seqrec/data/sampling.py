"""Samples of logs that need not fit into memory: steps in a row, in DuckDB, written as a folder of Parquet parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from seqrec.data.config import DataConfig
from seqrec.data.profile import Profile, profile
from seqrec.data.raw_log import RawLog, open_log
from seqrec.data.sampling_steps import (
    SEED,
    Cap,
    Every,
    Last,
    Log,
    MinEvents,
    MinItemEvents,
    Rows,
    Step,
    Stratified,
    Users,
    Window,
)
from seqrec.data.sources.sampled import RECORD
from seqrec.errors import ConfigError, DataError, unknown_name
from seqrec.files import atomic_folder, write_json
from seqrec.version import VERSION

Report = Callable[[str], None]

#: Name of a step, which is also its first field, to its class.
STEPS: dict[str, type[Step]] = {
    "rows": Rows,
    "stratified": Stratified,
    "every": Every,
    "since": Window,
    "until": Window,
    "users": Users,
    "last": Last,
    "cap": Cap,
    "min_events": MinEvents,
    "min_item_events": MinItemEvents,
}
#: Several steps under one name.
RECIPES: dict[str, tuple[str, ...]] = {"music4all": ("min_events=5", "cap=1000", "users=0.05")}

#: A row group, and a part, end at so many rows or bytes, whichever comes first.
GROUP_ROWS, GROUP_BYTES = 1 << 20, 128 << 20
PART_ROWS, PART_BYTES = 8 << 20, 256 << 20
BATCH_ROWS = 1 << 17


@dataclass(frozen=True)
class Sample:
    """A sample that was written.

    Attributes:
        folder: its parts and `_sample.json`.
        steps: as they were asked for.
        before, after: the log and the sample in numbers.
    """

    folder: Path
    steps: tuple[Step, ...]
    before: Profile
    after: Profile


def sample(
    source: str | Path,
    out: str | Path,
    steps: Sequence[str | Step],
    *,
    seed: int = SEED,
    memory: str = "4GB",
    report: Report = lambda line: None,
    **columns: Any,
) -> Sample:
    """Take steps one after the other and write what is left.

    The parts hold every column of the source in the order of the source, and `row`, the position there (a column that
    is called so already is kept instead). Beside them `_sample.json` says where they come from, and lies what the data
    set knows of the items and users that are left. The folder appears whole or not at all. Source, steps and seed
    decide the sample; machine, memory and threads do not.

    Args:
        source: a table, a folder of Parquet parts or of RecBole files, or a data set with a name.
        out: a folder that does not exist yet.
        steps: `name=value`, as `parse_step` reads them, or `Step`s; their order counts.
        seed: for steps that are random.
        memory: what DuckDB may use; beyond it, it works on the disk of the cache.
        report: told in words what is being done.
        columns: `user`, `item`, `time`, `time_unit` of tables.

    Raises:
        ConfigError: an unknown step, a bad value, or `out` exists.
        DataError: the log cannot be used, or nothing is left; the message names the place.
        DiskError: the disk is full; nothing half-written is left.
    """
    folder = Path(out)
    parsed = tuple(step if isinstance(step, Step) else parse_step(step, seed) for step in steps)
    if not parsed:
        raise ConfigError(f"No step given. Steps: {', '.join(STEPS)}; such as users=0.05.")
    if folder.exists():
        raise ConfigError(f"{folder} exists already. Choose another folder, or remove it first.")
    config = DataConfig.parse({**columns, "source": str(source)}, "data.")
    with open_log(config, memory=memory, report=report) as raw:
        report(f"Counting {raw.where}")
        before = profile(raw.connection, raw.log)
        if before.unusable:
            raw.refuse_unusable()
        if not before.rows:
            raise DataError(f"{raw.where}: there are no rows in it.")
        left = take(raw.connection, raw.log, parsed, report)
        after = profile(raw.connection, left)
        if not after.rows:
            raise DataError(
                f"{raw.where}: nothing is left of {before.rows:,} rows after {', '.join(map(str, parsed))}."
            )
        report(f"Writing {after.rows:,} of {before.rows:,} rows to {folder}")
        with atomic_folder(folder) as temporary:
            parts = _write(raw.connection, left, temporary)
            if raw.known:
                raw.known.save(temporary, *(_ids(raw.connection, left, column) for column in ("item", "user")))
            write_json(temporary / RECORD, _record(raw, parsed, seed, before, after, parts))
    return Sample(folder, parsed, before, after)


def take(connection: Any, log: Log, steps: Sequence[Step], report: Report = lambda line: None) -> Log:
    """What the steps leave of a log: views in the connection, and small tables of groups.

    `users` is taken before user-wise steps, with the same result, and its events are then held (on disk where memory
    ends), so that the source is read once for all later steps.
    """
    ordered = users_first(steps)
    held = sum(isinstance(step, Users) for step in ordered[: _prefix(ordered)])
    for k, step in enumerate(ordered):
        groups = f"groups_{k}"
        if (sql := step.groups(log)) is not None:
            report(f"{step}: looking at every group")
            connection.execute(f"CREATE TEMP TABLE {groups} AS {sql}")
        kind = "TABLE" if k == held - 1 else "VIEW"
        if kind == "TABLE":
            report(f"{step}: reading the log")
        connection.execute(f"CREATE TEMP {kind} log_{k} AS {step.kept(log, groups)}")
        log = dataclasses.replace(log, relation=f"log_{k}")
    return log


def users_first(steps: Sequence[Step]) -> list[Step]:
    """The same sample with `users` moved before the user-wise steps that it follows: less is left to work on."""
    end = _prefix(steps)
    return sorted(steps[:end], key=lambda step: not isinstance(step, Users)) + list(steps[end:])


def _prefix(steps: Sequence[Step]) -> int:
    """How many steps at the beginning are user-wise."""
    return next((k for k, step in enumerate(steps) if not step.user_wise), len(steps))


def parse_step(text: str, seed: int = SEED) -> Step:
    """A step from `name=value`, with options after commas: `users=0.05`, `every=10,offset=3`.

    Args:
        seed: for steps that are random and name none.

    Raises:
        UnknownNameError: no such step.
        ConfigError: an unknown option, or a value that cannot be; the message names it.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    given = {name.strip(): value.strip() for name, _, value in pairs}
    name = next(iter(given))
    if name not in STEPS:
        raise unknown_name("step", name, STEPS)
    kinds = {f.name: str(f.type) for f in dataclasses.fields(STEPS[name])}  # type: ignore[arg-type]
    if unknown := [option for option in given if option not in kinds]:
        raise ConfigError(f"{text}: {name} has no option {unknown[0]!r}. Options: {', '.join(kinds)}.")
    if len(given) < len(pairs) or not all(given.values()):
        raise ConfigError(f"{text}: write it as {name}=VALUE, options after commas, each once.")
    values = {option: _value(text, option, value, kinds[option]) for option, value in given.items()}
    if "seed" in kinds:
        values.setdefault("seed", seed)
    return STEPS[name](**values)


def _value(text: str, option: str, value: str, kind: str) -> Any:
    if kind not in ("int", "float"):
        return value
    try:
        return int(value) if kind == "int" else float(value)
    except ValueError:
        wanted = "a whole number" if kind == "int" else "a number"
        raise ConfigError(f"{text}: {option} is {wanted}, not {value!r}.") from None


def _write(connection: Any, log: Log, folder: Path) -> list[str]:
    """Write the log as `part-00000.parquet`, ...; their names."""
    own = [] if any(name.lower() == "row" for name in log.columns) else ["row"]
    columns = own + [f"{column} AS {_identifier(name)}" for name, column in log.columns.items()]
    query = f"SELECT {', '.join(columns)} FROM {log.relation}"
    parts: list[str] = []
    with connection.sql(query).to_arrow_reader(BATCH_ROWS) as reader, closing(_groups(reader)) as groups:
        group = next(groups, None)
        while group is not None:
            parts.append(f"part-{len(parts):05d}.parquet")
            rows = 0
            with (
                (folder / parts[-1]).open("wb") as file,
                pq.ParquetWriter(file, reader.schema, compression="zstd") as out,
            ):
                while group is not None and rows < PART_ROWS and file.tell() < PART_BYTES:
                    out.write_table(group, row_group_size=len(group))
                    rows += len(group)
                    group = next(groups, None)
    return parts


def _ids(connection: Any, log: Log, column: str) -> pa.Array:
    """The users or items of a log, in no order."""
    found = connection.sql(f'SELECT DISTINCT "{column}" FROM {log.relation}').to_arrow_table()
    return found.column(0).combine_chunks()


def _groups(reader: pa.RecordBatchReader) -> Generator[pa.Table]:
    """Batches gathered into row groups."""
    held: list[pa.RecordBatch] = []
    for batch in reader:
        held.append(batch)
        if sum(map(len, held)) >= GROUP_ROWS or sum(b.nbytes for b in held) >= GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _record(
    raw: RawLog, steps: Sequence[Step], seed: int, before: Profile, after: Profile, parts: Sequence[str]
) -> dict[str, Any]:
    return {
        "format": 1,
        "source": raw.where,
        "columns": raw.roles,
        "time_unit": raw.time_unit,
        "clock": raw.log.clock,
        "revisits": raw.known.revisits,
        "steps": [str(step) for step in steps],
        "seed": seed,
        "before": before.facts(),
        "after": after.facts(),
        "parts": list(parts),
        "seqrec": VERSION,
        "duckdb": duckdb.__version__,
    }


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
