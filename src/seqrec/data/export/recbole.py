"""RecBole's atomic files: our split as its benchmark files, the plain log, items, users, and configurations.

Read with RecBole 1.2.1. Where its rules meet ours:

- Benchmark files of a sequential model hold ready-made cases, since RecBole augments nothing then: the target in
  `item_id`, what came before in `item_id_list`. Training has a row for each event that has a history, as its own
  augmentation makes them.
- RecBole holds times as float32, where seconds of our days are 64 to 128 apart, and so many events tie. Its order is
  therefore `order`, an event's place in its history, which float32 holds exactly up to 16,777,216.
- `[PAD]`, what pandas reads as missing, quotes and blanks in item ids cannot pass through its reader.

B: rows of a block. H: items of all its histories.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from seqrec.data.export.events import Events
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Cases, Ints
from seqrec.data.splits import leave_one_out
from seqrec.errors import DataError

#: Items of all histories that are in memory as strings at a time.
HISTORY_ITEMS = 4_000_000
#: Texts that pandas takes for a missing value, and RecBole's own padding.
MISSING = (
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null", "[PAD]",
)  # fmt: skip


def write(data: PreparedData, folder: Path, name: str, max_length: int) -> None:
    """Write `<name>.inter`, `.item`, `.user`, `.train.inter`, `.valid.inter`, `.test.inter`, and what reads them."""
    events = Events(data)
    _refuse(events.user_ids, "user", r'["\t\r\n]')
    _refuse(events.item_ids, "item", r'["\s]')
    _write_log(events, folder / f"{name}.inter")
    _write_items(data, folder / f"{name}.item")
    _write_users(data, folder / f"{name}.user")
    for suffix, cases in (
        ("train", _training(data)),
        ("valid", data.cases("validation")),
        ("test", data.cases("test")),
    ):
        _write_cases(events, cases, folder / f"{name}.{suffix}.inter", max_length)
    _write_configs(data, folder, max_length)


def _refuse(ids: pa.Array, kind: str, pattern: str) -> None:
    bad = pc.or_(pc.match_substring_regex(ids, pattern), pc.is_in(ids, pa.array(MISSING)))
    if pc.any(bad).as_py():
        found = ids.filter(bad)[0].as_py()
        raise DataError(
            f"RecBole's files cannot hold the {kind} id {found!r}: its reader breaks at quotes, tabs and, within "
            "histories, blanks, and takes words such as NA and null for missing. Rename it in the source, or export "
            "for another toolkit."
        )


def _write_log(events: Events, path: Path) -> None:
    times, values = events.data.sequences.times, events.data.sequences.values
    per_unit = 1 if times is None or np.any(times % 1_000) else 1_000  # seconds, unless that loses something
    header = ["user_id:token", "item_id:token", "order:float"]
    header += (["timestamp:float"] if times is not None else []) + (["rating:float"] if values is not None else [])
    with path.open("wb") as file:
        _lines(file, [header])
        for block in events.blocks():
            columns = [events.users(block), events.items(block), _text(pa.array(events.order(block)))]
            if times is not None:
                columns.append(_text(pa.array(times[block] // per_unit)))
            if values is not None:
                columns.append(_text(pa.array(values[block], from_pandas=True)))  # NaN is null is empty
            _rows(file, columns)


def _training(data: PreparedData) -> Cases:
    """Each event of the training part but the first of its user."""
    starts, ends = data.sequences.starts, data.split.train_ends
    positions = np.arange(data.sequences.ends[-1])
    owners = np.repeat(np.arange(len(starts)), data.sequences.lengths)
    kept = (positions > starts[owners]) & (positions < ends[owners])
    return Cases(owners[kept], positions[kept])


def _write_cases(events: Events, cases: Cases, path: Path, max_length: int) -> None:
    """One row for each case: the user, the target, and the latest items before it."""
    sequences = events.data.sequences
    begins = np.maximum(sequences.starts[cases.users], cases.ends - max_length)
    lengths = cases.ends - begins
    if len(cases) and lengths.min() == 0:
        user = events.user_ids[int(cases.users[np.argmin(lengths)])].as_py()
        raise DataError(
            f"RecBole's sequential models need a history for every case, and one of user {user!r} has none."
        )
    block = max(1, HISTORY_ITEMS // max_length)
    with path.open("wb") as file:
        _lines(file, [["user_id:token", "item_id:token", "item_id_list:token_seq"]])
        for start in range(0, len(cases), block):
            rows = slice(start, start + block)
            users = events.user_ids.take(pa.array(cases.users[rows]))
            targets = events.item_ids.take(pa.array(sequences.items[cases.positions[rows]] - 1))
            _rows(file, [users, targets, _histories(events, begins[rows], lengths[rows])])


def _histories(events: Events, begins: Ints, lengths: Ints) -> pa.Array:
    """(B,) item ids of events begins..begins + lengths - 1, joined by blanks."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    positions_H = np.repeat(begins - offsets[:-1], lengths) + np.arange(offsets[-1])
    items = events.item_ids.take(pa.array(events.data.sequences.items[positions_H] - 1))
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), items), " ")


def _write_items(data: PreparedData, path: Path) -> None:
    names = data.catalogue
    rows = zip(
        names.ids,
        map(_clean, names.titles),
        (" ".join(re.sub(r"\s+", "_", _clean(category)) for category in found) for found in names.categories),
        ("" if year is None else str(year) for year in names.years),
        strict=True,
    )
    header = ["item_id:token", "title:token_seq", "categories:token_seq", "release_year:token"]
    with path.open("wb") as file:
        _lines(file, [header, *rows])


def _write_users(data: PreparedData, path: Path) -> None:
    table = data.user_table()
    known = {name: column for name, column in table.items() if name != "ids"}
    header = ["user_id:token", *(f"{re.sub(r'[^A-Za-z0-9_]', '_', name)}:token" for name in known)]
    columns = [["" if value is None else _clean(str(value)) for value in column] for column in known.values()]
    with path.open("wb") as file:
        _lines(file, [header, *zip(table["ids"], *columns, strict=True)])


def _clean(text: str) -> str:
    """Text without what RecBole's reader trips over; it is for reading only."""
    return re.sub(r"\s+", " ", text).replace('"', "'").strip()


def _write_configs(data: PreparedData, folder: Path, max_length: int) -> None:
    """`recbole.yaml` for our split; `recbole-own-split.yaml` where RecBole's leave-one-out is ours."""
    common: dict[str, Any] = {
        "field_separator": "\t",
        "seq_separator": " ",
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "order",
        "MAX_ITEM_LIST_LENGTH": max_length,
        "rm_dup_inter": None,
        "user_inter_num_interval": "[0,inf)",
        "item_inter_num_interval": "[0,inf)",
        "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
    }
    sides = {"item": ["item_id"], "user": ["user_id"]}  # all items are ranked, even those that never train
    benchmark = {
        "benchmark_filename": ["train", "valid", "test"],
        "alias_of_item_id": ["item_id_list"],
        "load_col": {"inter": ["user_id", "item_id", "item_id_list"], **sides},
    }
    _write_yaml(folder / "recbole.yaml", common | benchmark)
    if _is_leave_one_out(data):
        own = {"load_col": {"inter": ["user_id", "item_id", "order"], **sides}}
        _write_yaml(folder / "recbole-own-split.yaml", common | own)


def _is_leave_one_out(data: PreparedData) -> bool:
    """Whether RecBole's leave-one-out asks the same: it takes the second to last of three events for training."""
    ours, plain = data.split, leave_one_out(data.sequences)
    same = [(ours.train_ends, plain.train_ends)]
    same += [(ours.validation.positions, plain.validation.positions), (ours.test.positions, plain.test.positions)]
    return all(np.array_equal(a, b) for a, b in same) and not np.any(data.sequences.lengths == 3)


def _write_yaml(path: Path, config: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def _text(numbers: pa.Array) -> pa.Array:
    return pc.fill_null(pc.cast(numbers, pa.string()), "")


def _rows(file: BinaryIO, columns: Sequence[pa.Array]) -> None:
    """Append rows of string columns (B,), tab separated; the bytes are Arrow's own buffer."""
    if not len(columns[0]):
        return
    joined = pc.binary_join_element_wise(*columns, "\t")
    lines = pc.cast(pc.binary_join_element_wise(joined, "", "\n"), pa.large_string())
    offsets = np.frombuffer(lines.buffers()[1], np.int64)
    file.write(lines.buffers()[2].slice(0, int(offsets[len(lines)])))


def _lines(file: BinaryIO, rows: Iterable[Sequence[str]]) -> None:
    file.writelines(("\t".join(row) + "\n").encode() for row in rows)
