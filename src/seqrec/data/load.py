"""From a name, a path or a frame to prepared data, through the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrec.data.config import DataConfig
from seqrec.data.prepared import PreparedData
from seqrec.data.sources import SOURCES
from seqrec.errors import ConfigError, DataError, unknown_name
from seqrec.files import remove_abandoned
from seqrec.registry import resolve

if TYPE_CHECKING:
    from seqrec.data.interactions import Interactions
    from seqrec.data.prepare import Log

Report = Callable[[str], None]
#: Ends of names of files that are read together with the one that is named.
READ_TOGETHER = (".inter", ".item", ".user", ".ids.txt")
#: Settings that say how a table is read; a data set with a name knows its columns.
COLUMNS = {"user", "item", "time", "value", "time_unit"}


def load_data(source: Any = "ml-100k", *, report: Report = lambda line: None, **settings: Any) -> PreparedData:
    """Read, filter, order and split a log, or take what an earlier call prepared.

    Args:
        source: a data set with a name (`seqrec data list`), the path of a CSV, TSV or Parquet table, of a folder of
            Parquet parts or RecBole atomic files or of a prepared folder, or a pandas, polars or Arrow frame.
        report: told in words what is being done.
        settings: fields of `DataConfig`: columns (`user`, `item`, `time`, `value`, `time_unit`), filters (`k_core`,
            `min_value`, `since`, ...) and the split (`split`, `targets`, ...).

    Raises:
        UnknownNameError: no data set and no file has that name.
        DataError: the log cannot be used; the message names file, row and column.
        DownloadError: the data set could not be fetched.
    """
    if isinstance(source, (str, Path)):
        return prepare_source(DataConfig.parse({**settings, "source": str(source)}, "data."), report)
    from seqrec.data.sources.table import read_table

    config = DataConfig.parse({**settings, "source": "frame"}, "data.")
    interactions = read_table(source, **_columns(config), name="frame")
    return _prepare(lambda: interactions, interactions.fingerprint(), config, report)


def prepare_source(config: DataConfig, report: Report = lambda line: None) -> PreparedData:
    """As `load_data`, for what can be named in a configuration."""
    path = Path(config.source)
    if not _can_be(path):
        raise unknown_name("data set or file", config.source, SOURCES)
    given = sorted(config.model_dump(exclude_defaults=True).keys() - {"source"})
    if (path / "facts.json").is_file():
        if given:
            raise ConfigError(f"{path} is prepared already; {', '.join(given)} cannot be changed. Name the log itself.")
        return PreparedData.load(path)
    if _is_named(config.source):
        if columns := sorted(COLUMNS & set(given)):
            raise ConfigError(f"{config.source} knows its columns; {', '.join(columns)} are for tables.")
        return _prepare_named(config, report)
    if not path.exists():
        raise unknown_name("data set or file", config.source, SOURCES)
    return _prepare(lambda: read_source(config, report), _signature(path), config, report)


def _prepare_named(config: DataConfig, report: Report) -> PreparedData:
    from seqrec.data.download import cache_folder

    raw = cache_folder() / "raw" / config.source
    if _files(raw):
        return _prepare(lambda: read_source(config, report), _signature(raw), config, report)
    interactions = read_source(config, report)  # downloads into `raw`, unless the source makes its own data
    made = [interactions.fingerprint(), interactions.name, interactions.clock, interactions.revisits]
    content = _signature(raw) if _files(raw) else json.dumps(made)
    return _prepare(lambda: interactions, content, config, report)


def read_source(config: DataConfig, report: Report = lambda line: None) -> Interactions:
    """The log as it is, before any filter."""
    if _is_named(config.source):
        from seqrec.data.download import cache_folder

        load = resolve("data set", config.source, SOURCES)
        return load(config.source, cache=cache_folder(), report=report)
    path = Path(config.source)
    if path.suffix == ".inter" or (path.is_dir() and not any(path.rglob("*.parquet"))):
        from seqrec.data.sources.recbole import read_recbole

        given = {name: value for name, value in _columns(config).items() if value is not None}
        if config.time_unit == "order" and config.time is None:
            given["time"] = None  # the order of the file, as in a table
        return read_recbole(path, **given)
    from seqrec.data.sources.sampled import Known
    from seqrec.data.sources.table import read_table

    return Known.read(path).add_to(read_table(path, **_columns(config)))


def prepare_source_on_spark(config: DataConfig, master: str) -> PreparedData:
    """As `prepare_source`, for a table on a disk that Spark sees; the folder is the same, byte for byte.

    Args:
        master: where Spark runs: `local[4]`, `spark://host:7077`, `yarn`.
    """
    from seqrec.data.sources.sampled import Known
    from seqrec.data.spark import prepare_on_spark

    path = Path(config.source)
    if _is_named(config.source) or (path / "facts.json").is_file() or path.suffix == ".inter":
        raise ConfigError(f"{config.source}: Spark prepares tables: CSV, TSV, TXT and Parquet.")
    if not path.exists():
        raise unknown_name("file", config.source, ())
    if Known.read(path):
        raise ConfigError(
            f"{path}: a sample of a data set with a name is prepared without Spark, which does not read what lies "
            "beside its parts (titles, people)."
        )
    folder = _prepared_folder(_signature(path), config)
    return _cached(folder) or prepare_on_spark(path, config, folder, master=master)


def _prepare(read: Callable[[], Interactions], content: str, config: DataConfig, report: Report) -> PreparedData:
    from seqrec.data.prepare import finish

    folder = _prepared_folder(content, config)
    if (found := _cached(folder)) is not None:
        return found
    remove_abandoned(folder.parent, ".*")
    return finish(_ordered(read(), config, folder.parent, report), config, folder)


def _prepared_folder(content: str, config: DataConfig) -> Path:
    from seqrec.data.download import cache_folder
    from seqrec.data.prepare import prepared_name

    if config.vectors is not None:
        content += _signature(Path(config.vectors))
    return cache_folder() / "prepared" / prepared_name(content, config)


def _cached(folder: Path) -> PreparedData | None:
    if not folder.exists():
        return None
    try:
        return PreparedData.load(folder)
    except DataError as error:
        raise DataError(f"{error} (seqrec found it in its cache)") from error


def _ordered(interactions: Interactions, config: DataConfig, spool: Path, report: Report) -> Log:
    """A function of its own, so that the rows are let go before the histories are worked on."""
    from seqrec.data.prepare import order

    report(f"Preparing {len(interactions):,} events of {interactions.name}")
    return order(interactions, config, spool)


def _can_be(path: Path) -> bool:
    """Whether there may be files under that name: some are too long to be looked for."""
    try:
        path.exists()
    except OSError:
        return False
    return True


def _is_named(source: str) -> bool:
    """A registered data set, or one of another package: `my_package.my_module:load`."""
    return source in SOURCES or (":" in source and not Path(source).exists())


def _columns(config: DataConfig) -> dict[str, Any]:
    return config.model_dump(include=COLUMNS)


def raw_files(name: str) -> list[Path]:
    """What the cache holds of a named data set, before anything is prepared."""
    from seqrec.data.download import cache_folder

    return _files(cache_folder() / "raw" / name)


def _files(path: Path) -> list[Path]:
    """Files under `path`, without hidden ones and unfinished downloads."""
    files = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return sorted(file for file in files if file.suffix != ".part")


def _signature(path: Path) -> str:
    """Changes when a file under `path`, or one that is read with it, does: names, sizes, times of modification."""
    beside = {path.name, *(f"{path.stem}{suffix}" for suffix in READ_TOGETHER)}
    files = _files(path) if path.is_dir() else sorted(file for file in path.parent.iterdir() if file.name in beside)
    digest = hashlib.sha256(str(path.resolve()).encode())
    for file in files:
        state, name = file.stat(), file.relative_to(path if path.is_dir() else path.parent)
        digest.update(f"{name}\t{state.st_size}\t{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()
