"""From interactions to a prepared folder: ordered, filtered, split, memory-mapped, and named by what went in.

Columns are maps of files and work goes block by block: what is held of a log is a few bytes an event at most.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrec.data.catalogue import catalogue
from seqrec.data.config import DataConfig, milliseconds
from seqrec.data.facts import log_facts, split_facts
from seqrec.data.feature_building import build_features
from seqrec.data.features import FORMAT_VERSION as FEATURES_VERSION
from seqrec.data.filters import (
    as_sessions,
    in_short_sessions,
    k_core,
    of_busy_users,
    repeated,
    session_starts,
)
from seqrec.data.ordering import order_events, renumber_items, select
from seqrec.data.prepared import FORMAT_VERSION, PreparedData
from seqrec.data.sequences import Ints, Mask, Sequences
from seqrec.data.splits import split_by, target_hash
from seqrec.data.spool import save_array
from seqrec.errors import ConfigError, DataError
from seqrec.files import atomic_folder, write_json

if TYPE_CHECKING:
    import pyarrow as pa

    from seqrec.data.interactions import Interactions
    from seqrec.data.splits import Split


@dataclass(frozen=True)
class Log:
    """Ordered events of users 0..U-1 and what is known about them: what any reader, DuckDB or Spark, hands over.

    Attributes:
        name, items, users, clock, revisits: as in `Interactions`, whose events are not needed any more.
        sequences: histories in time, ties in the order of the source; `times` always, clock or not.
        user_ids, item_ids: id in the source of user 0, 1, ... and of item 1, 2, ...
        facts: `source_events` and `fingerprint`.
    """

    name: str
    sequences: Sequences
    user_ids: list[str]
    item_ids: list[str]
    facts: dict[str, Any]
    items: pa.Table | None = None
    users: pa.Table | None = None
    clock: bool = True
    revisits: bool | None = None


def prepare(interactions: Interactions, config: DataConfig, folder: Path) -> PreparedData:
    """Order, filter and split `interactions` into `folder`, which appears whole or not at all.

    Ties in time keep the order of the source (`row`).

    Raises:
        DataError: nothing is left after filtering, or nothing can be asked for.
        ConfigError: a setting does not fit the log.
        DiskError: the disk is full.
    """
    return finish(order(interactions, config, folder.parent), config, folder)


def order(interactions: Interactions, config: DataConfig, spool: Path) -> Log:
    """Histories of all rows that pass `min_value`, `since` and `until`; sorted on the disk of `spool`."""
    user_codes, user_ids = interactions.codes("user")
    item_codes, item_ids = interactions.codes("item")
    if len(user_ids) < 2:
        raise DataError(
            f"{interactions.name}: all events belong to one user ({user_ids[0]!r}); there is nobody to learn from. "
            "Is --user the right column?"
        )
    times, values = interactions.timestamps(), interactions.values()
    if (by_row := interactions.by_row()) is not None:
        user_codes, item_codes, times = user_codes[by_row], item_codes[by_row], times[by_row]
        values = None if values is None else values[by_row]
    refuse_unfit(interactions.name, config, clock=interactions.clock, valued=values is not None)
    keep = _row_mask(times, values, config)
    sequences = order_events(user_codes, item_codes, times, values, keep, spool)
    facts = {"source_events": len(interactions), "fingerprint": interactions.fingerprint()}
    return Log(
        name=interactions.name,
        sequences=sequences,
        user_ids=user_ids,
        item_ids=item_ids,
        facts=facts,
        items=interactions.items,
        users=interactions.users,
        clock=interactions.clock,
        revisits=interactions.revisits,
    )


def finish(log: Log, config: DataConfig, folder: Path) -> PreparedData:
    """Filter and split an ordered log into `folder`; one path, whoever did the ordering."""
    spool = folder.parent
    revisits = log.revisits if config.revisits is None else config.revisits
    first_only = config.repeats == "first" or (config.repeats == "auto" and revisits is False)
    sequences = log.sequences
    _refuse_empty(log, sequences, config, "min_value", "since", "until")
    if first_only:
        sequences = select(sequences, ~repeated(sequences), spool)
    if config.max_per_day:
        sequences = select(sequences, ~of_busy_users(sequences, config.max_per_day), spool)
    _refuse_empty(log, sequences, config, "max_per_day")
    sequences, owners, numbers = _histories(sequences, config, spool)
    _refuse_empty(log, sequences, config, "min_session")
    sequences = select(sequences, _core(sequences, config), spool)
    if not len(sequences.items):
        raise DataError(
            f"{log.name}: nothing is left of {log.facts['source_events']:,} events when every user and item needs "
            f"{config.k_core}. Lower it: --set data.k_core=2 (0 keeps everything)."
        )
    sequences, present = renumber_items(sequences, spool)
    kept = np.flatnonzero(sequences.lengths)
    sequences = replace(sequences, starts=sequences.starts[kept], ends=sequences.ends[kept])
    people = [log.user_ids[user] for user in owners[kept]]
    user_ids = people
    if numbers is not None:
        user_ids = [f"{user}#{number}" for user, number in zip(people, numbers[kept].tolist(), strict=True)]
    item_ids = [log.item_ids[item - 1] for item in present]
    split = split_by(sequences if log.clock else replace(sequences, times=None), people, config)
    _refuse_hollow(log.name, sequences, split, config)
    names = catalogue(item_ids, log.items)
    again = repeated(sequences)
    facts = {
        "format": FORMAT_VERSION,
        "name": log.name,
        "config": config.model_dump(mode="json"),
        "k_core": config.k_core,
        "kept": config.kept,
        **log.facts,
        **log_facts(sequences, again, log.clock),
        **split_facts(sequences, split, again),
        "repeats": "first" if first_only else "keep",
        "revisits": revisits,
        "clock": log.clock,
        "test_targets": target_hash(split.test, sequences, user_ids, names),
    }
    with atomic_folder(folder) as temporary:
        _write(temporary, sequences, split, log.clock)
        build_features(item_ids, log.items, people, log.users, config).save(temporary / "features")
        names.save(temporary / "items.json")
        write_json(temporary / "users.json", _known(people, log.users) | {"ids": user_ids})
        write_json(temporary / "facts.json", facts)
    return PreparedData.load(folder)


def prepared_name(content: str, config: DataConfig) -> str:
    """Folder name for the content that a fingerprint stands for, prepared as `config` says."""
    text = json.dumps([FORMAT_VERSION, FEATURES_VERSION, content, config.model_dump(mode="json")], sort_keys=True)
    return f"{Path(config.source).stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}".replace(":", "-")


def refuse_unfit(name: str, config: DataConfig, *, clock: bool, valued: bool) -> None:
    """Raise the ConfigError for filters that need what the log does not have."""
    timed = [key for key in ("since", "until", "max_per_day", "session_gap") if getattr(config, key) is not None]
    if timed and not clock:
        raise ConfigError(f"{name}: {', '.join(timed)} need clock times, and this log has none. Leave them out.")
    if config.min_value is not None and not valued:
        raise ConfigError(
            f"{name}: min_value needs a rating, and there is none. Name its column: --set data.value=COLUMN."
        )


def _row_mask(times: Ints, values: Any, config: DataConfig) -> Mask:
    """(N,) rows that pass what can be said of a row alone."""
    keep = np.ones(len(times), dtype=bool)
    if config.min_value is not None:
        keep &= np.asarray(values) >= config.min_value  # NaN, no rating, is not
    for date, sign in ((config.since, 1), (config.until, -1)):
        if date is not None:
            keep &= (times >= milliseconds(date)) == (sign > 0)
    return keep


def _histories(sequences: Sequences, config: DataConfig, spool: Path) -> tuple[Sequences, Ints, Ints | None]:
    """Histories of people or sessions, the user of each, and of sessions their number (from 1) with that user."""
    everyone = np.arange(len(sequences))
    if config.session_gap is None:
        return sequences, everyone, None
    if config.min_session:
        opens = session_starts(sequences, config.session_gap * 60_000)
        sequences = select(sequences, ~in_short_sessions(opens, config.min_session), spool)
    if config.histories == "people":
        return sequences, everyone, None
    sessions, owners = as_sessions(sequences, session_starts(sequences, config.session_gap * 60_000))
    first_of_user = np.searchsorted(owners, owners)
    return sessions, owners, np.arange(len(owners)) - first_of_user + 1


def _core(sequences: Sequences, config: DataConfig) -> Mask:
    users = np.repeat(np.arange(len(sequences), dtype=np.int32), sequences.lengths)
    least = config.min_session if config.histories == "sessions" else config.k_core
    return k_core(users, sequences.items, config.k_core, user_k=least or 0, once=config.k_core_once)


def _refuse_empty(log: Log, sequences: Sequences, config: DataConfig, *filters: str) -> None:
    """Raise the DataError for filters after which no event is left."""
    if len(sequences.items):
        return
    on = ", ".join(f"{name}={getattr(config, name)}" for name in filters if getattr(config, name) is not None)
    raise DataError(f"{log.name}: nothing is left of {log.facts['source_events']:,} events with {on}. Loosen it.")


def _refuse_hollow(name: str, sequences: Sequences, split: Split, config: DataConfig) -> None:
    """Raise the DataError for a split in which nothing is asked, or nothing can be learned."""
    parts = {"test": len(split.test), "validation": len(split.validation)}
    parts["training"] = int((split.train_ends - sequences.starts).sum())
    empty = [part for part, size in parts.items() if not size]
    if not empty:
        return
    longest, span = int(sequences.lengths.max()), "without clock times"
    if sequences.times is not None:
        span = " to ".join(
            str(np.datetime64(int(time), "ms"))[:10] for time in (sequences.times.min(), sequences.times.max())
        )
    remedy = {
        "temporal": f"The log is from {span}: choose validation_from and test_from within it.",
        "last_session": "It takes people with three sessions: choose another session_gap.",
        "new_users": f"There are {len(sequences):,} histories: choose larger shares for holdout.",
    }.get(
        config.split,
        f"The longest of {len(sequences):,} histories has {longest} events, and a training, a validation and a test "
        "event take three. Is --user the right column?",
    )
    raise DataError(f"{name}: there is nothing in the {empty[0]} part. Split: {split.words}. {remedy}")


def _write(folder: Path, sequences: Sequences, split: Split, clock: bool) -> None:
    for name, column in sequences.columns().items():
        if name != "times" or clock:
            save_array(folder / f"{name}.npy", column)
    save_array(folder / "offsets.npy", np.concatenate([sequences.starts[:1], sequences.ends]))
    save_array(folder / "train_ends.npy", split.train_ends)
    for part, cases in (("validation", split.validation), ("test", split.test)):
        save_array(folder / f"{part}.npy", np.stack([cases.users, cases.positions, cases.ends]))


def _known(ids: list[str], table: Any) -> dict[str, list[Any]]:
    if table is None:
        return {}
    known = {row["id"]: row for row in table.to_pylist()}
    columns = [name for name in table.column_names if name != "id"]
    return {name: [known.get(user, {}).get(name) for user in ids] for name in columns}
