"""From interactions to a prepared folder: filtered, ordered, split, memory-mapped, and named by what went in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from seqrec.data.catalogue import catalogue
from seqrec.data.config import DataConfig
from seqrec.data.filters import k_core
from seqrec.data.prepared import FORMAT_VERSION, PreparedData
from seqrec.data.sequences import Cases, Ints, Sequences
from seqrec.data.splits import Split, leave_one_out, target_hash
from seqrec.errors import DataError
from seqrec.files import atomic_folder, write_json

if TYPE_CHECKING:
    from seqrec.data.interactions import Interactions


def prepare(interactions: Interactions, config: DataConfig, folder: Path) -> PreparedData:
    """Filter, order and split `interactions` into `folder`, which appears whole or not at all.

    Ties in time keep the order of the source (`row`).

    Raises:
        DataError: nothing is left after filtering, or no user has three events.
    """
    user_codes, user_ids = interactions.codes("user")
    item_codes, item_ids = interactions.codes("item")
    if len(user_ids) < 2:
        raise DataError(
            f"{interactions.name}: all events belong to one user ({user_ids[0]!r}); there is nobody to learn from. "
            "Is --user the right column?"
        )
    kept = k_core(user_codes, item_codes, config.k_core)
    if not kept.any():
        raise DataError(
            f"{interactions.name}: nothing is left of {len(kept):,} events when every user and item needs "
            f"{config.k_core}. Lower it: --set data.k_core=2 (0 keeps everything)."
        )
    user_codes, user_ids = _renumber(user_codes[kept], user_ids)
    item_codes, item_ids = _renumber(item_codes[kept], item_ids)
    times = interactions.timestamps()[kept]
    rows = interactions.events["row"].to_numpy()[kept]
    order = np.lexsort((rows, times, user_codes))
    ends = np.cumsum(np.bincount(user_codes))
    sequences = Sequences(
        items=(item_codes[order] + 1).astype(np.int32),
        starts=np.concatenate([[0], ends[:-1]]),
        ends=ends,
        num_items=len(item_ids),
        times=times[order],
    )
    split = leave_one_out(sequences)
    if len(split.test) == 0:
        longest = int(sequences.lengths.max())
        raise DataError(
            f"{interactions.name}: no user has the three events that a history, a validation and a test item "
            f"take (the longest history has {longest}). Is --user the right column?"
        )
    known = catalogue(item_ids, interactions.items)
    facts = _facts(interactions, config, sequences, split) | {
        "test_targets": target_hash(split.test, sequences, user_ids, known)
    }
    with atomic_folder(folder) as temporary:
        _write(temporary, sequences, split, interactions.clock)
        known.save(temporary / "items.json")
        write_json(temporary / "users.json", {"ids": user_ids} | _known(user_ids, interactions.users))
        write_json(temporary / "facts.json", facts)
    return PreparedData.load(folder)


def prepared_name(content: str, config: DataConfig) -> str:
    """Folder name for the content that a fingerprint stands for, prepared as `config` says."""
    text = json.dumps([FORMAT_VERSION, content, config.model_dump()], sort_keys=True)
    return f"{Path(config.source).stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}".replace(":", "-")


def _write(folder: Path, sequences: Sequences, split: Split, clock: bool) -> None:
    np.save(folder / "items.npy", sequences.items)
    np.save(folder / "offsets.npy", np.concatenate([sequences.starts[:1], sequences.ends]))
    np.save(folder / "train_ends.npy", split.train_ends)
    if clock and sequences.times is not None:
        np.save(folder / "times.npy", sequences.times)
    for part, cases in (("validation", split.validation), ("test", split.test)):
        np.save(folder / f"{part}.npy", np.stack([cases.users, cases.positions]))


def _facts(interactions: Interactions, config: DataConfig, sequences: Sequences, split: Split) -> dict[str, Any]:
    lengths = sequences.lengths
    facts: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "name": interactions.name,
        "fingerprint": interactions.fingerprint(),
        "config": config.model_dump(),
        "k_core": config.k_core,
        "source_events": len(interactions),
        "users": len(sequences),
        "items": sequences.num_items,
        "events": sequences.num_events,
        "density": sequences.num_events / (len(sequences) * sequences.num_items),
        "length": {
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "mean": float(lengths.mean()),
            "max": int(lengths.max()),
        },
        "test_cases": len(split.test),
        "duplicate_rows": _duplicates(sequences),
        "tied_targets": _tied_share(sequences, split.test),
        "repeated_targets": _repeated_share(sequences, split.test),
        "clock": interactions.clock,
    }
    if interactions.clock and sequences.times is not None:
        facts["first"], facts["last"] = (str(np.datetime64(int(t), "ms"))[:10] for t in _span(sequences.times))
    return facts


def _span(times: Ints) -> tuple[int, int]:
    return int(times.min()), int(times.max())


def _tied_share(sequences: Sequences, cases: Cases) -> float:
    """Share of targets that happened at the very time of the event before them: their order is the file's."""
    assert sequences.times is not None
    return float(np.mean(sequences.times[cases.positions] == sequences.times[cases.positions - 1]))


def _duplicates(sequences: Sequences) -> int:
    """How many events repeat another one: same user, item and time. They are kept; music is full of them."""
    assert sequences.times is not None
    users = np.repeat(np.arange(len(sequences)), sequences.lengths)
    with_next = (users[1:] == users[:-1]) & (sequences.times[1:] == sequences.times[:-1])
    tied = np.concatenate([with_next, [False]]) | np.concatenate([[False], with_next])
    keys = np.stack([users[tied], sequences.times[tied], sequences.items[tied]])
    return int(tied.sum() - np.unique(keys, axis=1).shape[1])


def _repeated_share(sequences: Sequences, cases: Cases) -> float:
    """Share of targets that occur earlier in the same history."""
    repeated = [
        sequences.items[position] in sequences.items[sequences.starts[user] : position]
        for user, position in zip(cases.users, cases.positions, strict=True)
    ]
    return float(np.mean(repeated))


def _renumber(codes: npt.NDArray[np.int32], ids: list[str]) -> tuple[npt.NDArray[np.int32], list[str]]:
    present, compact = np.unique(codes, return_inverse=True)
    return compact.astype(np.int32), [ids[code] for code in present]


def _known(ids: list[str], table: Any) -> dict[str, list[Any]]:
    if table is None:
        return {}
    known = {row["id"]: row for row in table.to_pylist()}
    columns = [name for name in table.column_names if name != "id"]
    return {name: [known.get(user, {}).get(name) for user in ids] for name in columns}
