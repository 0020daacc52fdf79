"""Files that are either whole or not there: atomic writes, and hashes of what was written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from seqrec.errors import SeqrecError

#: Seconds after which a temporary folder is nobody's.
ABANDONED = 7 * 86_400


class DiskError(SeqrecError):
    """The disk is full or may not be written; what was there before is untouched."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Full and read-only disks are a `DiskError` that names `path`, which is being written in the block."""
    try:
        yield
    except OSError as error:
        # numpy's tofile says how much it wrote, without a number.
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and "requested and" in str(error)):
            raise DiskError(f"The disk is full: {path} was not written. Free some space and repeat.") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise DiskError(f"{path} may not be written ({error.strerror}). Choose another folder.") from error
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it over `path` only if the block succeeds.

    Raises:
        DiskError: the disk is full or the folder may not be written.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` only if the block succeeds.

    When another process has made `path` meanwhile, its folder stands and ours is dropped: the
    content of such a folder is a function of its name.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        temporary.mkdir()
        try:
            yield temporary
            try:
                temporary.rename(path)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A new folder in `folder` that is removed when the block ends; what processes that were killed left goes first.

    Raises:
        DiskError: the disk is full or `folder` may not be written.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder, "tmp*")
        place = TemporaryDirectory(dir=folder)
    with place as name:
        yield Path(name)


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove temporary folders that nothing was made in for a week: whoever made them was killed."""
    for path in folder.glob(pattern):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                shutil.rmtree(path)


def _beside(path: Path) -> Path:
    """A new name in the same folder; made by whoever uses it, so that the user's umask applies."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def append_line(path: Path, line: str) -> None:
    """Add one line of text to a file.

    Raises:
        DiskError: the disk is full or the file may not be written.
    """
    with explained(path), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: it is not JSON."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False), encoding="utf-8")


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
