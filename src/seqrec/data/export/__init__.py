"""A prepared data set as files of another toolkit, so that it answers exactly our questions.

A toolkit is one module here and one line in `EXPORTS`; its `write(data, folder, name, max_length)` fills the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from seqrec.errors import ConfigError
from seqrec.files import atomic_folder
from seqrec.registry import resolve

if TYPE_CHECKING:
    from seqrec.data.prepared import PreparedData

EXPORTS = {
    "recbole": "seqrec.data.export.recbole:write",
    "rectools": "seqrec.data.export.rectools:write",
    "replay": "seqrec.data.export.replay:write",
}


def export(data: PreparedData, toolkit: str, out: Path | str, *, max_length: int = 200) -> list[Path]:
    """Write `data` and its split for `toolkit` into the new folder `out`, which appears whole or not at all.

    Ids are those of the source. Every event stays, in our order; where a toolkit would sort, its times have no ties.

    Args:
        toolkit: one of `EXPORTS`, or `my_package.my_module:write`.
        max_length: latest events of a history in one row, where a toolkit's files hold histories (RecBole).

    Returns:
        The files, sorted.

    Raises:
        UnknownNameError: no such toolkit.
        ConfigError: `out` exists, or `max_length` is less than 1.
        DataError: the toolkit's format cannot hold an id or a case; the message has the first one.
        DiskError: the disk is full or may not be written.
    """
    write = resolve("toolkit", toolkit, EXPORTS)
    out = Path(out)
    if out.exists():
        raise ConfigError(f"{out} exists already and is left as it is. Choose another folder, or delete it.")
    if max_length < 1:
        raise ConfigError(f"max_length {max_length}: a history has at least one event.")
    with atomic_folder(out) as temporary:
        write(data, temporary, out.resolve().name, max_length)
    return sorted(out.iterdir())
