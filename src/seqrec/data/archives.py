"""Zip and tar archives that are not trusted: every member is judged before any is unpacked."""

from __future__ import annotations

import bz2
import errno
import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, cast

from seqrec.errors import DataError
from seqrec.files import atomic_file

CHUNK = 1 << 18
MOST_BYTES = 64 << 30  # more than the largest public log, less than a disk
MOST_EXPANSION = 200  # text deflates 3 to 20 times, constant bytes about 1,030 times
FREE_BYTES = 1 << 20  # what may expand at any rate
MOST_HEADER = 1 << 24  # tarfile reads long names and PAX headers whole, whatever length they claim

#: Suffixes of what `open_archive` reads. It looks at the content: a gzipped tar may well be called `.tar`.
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2")
_AGAIN = "Delete it and get it again."
#: What gzip and bz2 say of their data has no number; a place before the start and a name too long are the archive's.
_NOT_THE_DISK = (None, errno.EINVAL, errno.ENAMETOOLONG)
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError, NotImplementedError)


@dataclass(frozen=True)
class Archive:
    """An open archive whose members are all safe to unpack.

    Attributes:
        path: where it lies.
        members: names of its files, without folders, in the order of the archive; a name may occur twice.
    """

    path: Path
    members: tuple[str, ...]
    _open: Callable[[str], IO[bytes]] = field(repr=False)


@contextmanager
def open_archive(
    path: Path, *, most_bytes: int = MOST_BYTES, most_expansion: int = MOST_EXPANSION
) -> Iterator[Archive]:
    """Open a `.zip`, `.tar`, `.tar.gz` or `.tar.bz2`; unpack members with `extract`.

    A compressed tar is read through once to judge its members, and once more to unpack some in their order.

    Args:
        most_bytes: limit on what all members come to, unpacked.
        most_expansion: limit on unpacked size over packed size above 1 MiB: of each member of a zip, of a whole tar.

    Raises:
        DataError: not a whole archive, or a member that leads out of its folder, is a link or a device, or expands
            absurdly.
    """
    opened = _open_tar if _is_tar(path) else _open_zip
    with opened(path, most_bytes, most_expansion) as archive:
        yield archive


def extract(archive: Archive, member: str, target: Path) -> Path:
    """Write one member of an open archive to `target`, atomically.

    Raises:
        DataError: the member is not there, cut short or corrupt.
        DiskError: the disk is full or the folder may not be written.
    """
    if member not in archive.members:
        raise DataError(f"{archive.path} has no member {member!r}. It holds {', '.join(archive.members[:12])}.")
    damaged = f"{archive.path}: {member!r} is damaged ({{}}). Delete the archive and get it again."
    try:
        with atomic_file(target) as temporary, archive._open(member) as packed, temporary.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, CHUNK)
    except _DAMAGE as error:
        raise DataError(damaged.format(error)) from error
    except OSError as error:
        if error.errno not in _NOT_THE_DISK:
            raise
        raise DataError(damaged.format(error)) from error
    return target


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Give the path of an archive.") from error


def _is_tar(path: Path) -> bool:
    """By content; where that says nothing, by name."""
    first = _first_bytes(path)
    if first.startswith(b"PK"):
        return False
    packed = first.startswith((b"\x1f\x8b", b"BZh"))
    return packed or first[257:262] == b"ustar" or path.name.lower().endswith(ARCHIVE_SUFFIXES[1:])


@contextmanager
def _open_zip(path: Path, most_bytes: int, most_expansion: int) -> Iterator[Archive]:
    try:
        packed = zipfile.ZipFile(path)
    except (*_DAMAGE, OSError) as error:
        raise DataError(f"{path} is not a whole zip file ({error}). {_AGAIN}") from error
    with packed:
        for member in packed.infolist():
            if reason := _unsafe_in_zip(member, most_expansion):
                raise _refused(path, member.filename, reason)
        if (total := sum(member.file_size for member in packed.infolist())) > most_bytes:
            raise _too_large(path, total, most_bytes)
        files = tuple(member.filename for member in packed.infolist() if not member.is_dir())
        yield Archive(path, files, packed.open)


def _unsafe_in_zip(member: zipfile.ZipInfo, most_expansion: int) -> str | None:
    """Why a member must not be unpacked; None when it may be."""
    if _leads_out(member.filename):
        return "leads out of its folder"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.file_size > FREE_BYTES and member.file_size > most_expansion * max(member.compress_size, 1):
        return f"expands from {member.compress_size:,} to {member.file_size:,} bytes, as only a zip bomb does"
    return None


@contextmanager
def _open_tar(path: Path, most_bytes: int, most_expansion: int) -> Iterator[Archive]:
    most = min(most_bytes, max(FREE_BYTES, most_expansion * path.stat().st_size))
    with _Unpacked(path, most) as stream:
        try:
            packed = tarfile.TarFile(fileobj=cast("IO[bytes]", stream))  # which only reads, seeks and tells
            files = _judged(path, packed, most)
            _refuse_a_cut_end(stream, packed.offset)
        except (*_DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise DataError(f"{path} cannot be read ({error.strerror}). Give the path of an archive.") from error
            raise DataError(f"{path} is not a whole tar file ({error}). {_AGAIN}") from error

        def unpack(name: str) -> IO[bytes]:
            found = packed.extractfile(files[name])
            assert found is not None, "only regular files are in `files`"
            return found

        yield Archive(path, tuple(member.name for member in packed.getmembers() if member.isreg()), unpack)


def _judged(path: Path, packed: tarfile.TarFile, most: int) -> dict[str, tarfile.TarInfo]:
    """The files of a tar by name. Each is judged before the one after it is looked for, which unpacks it."""
    files, total = {}, 0
    for member in packed:
        if _leads_out(member.name):
            raise _refused(path, member.name, "leads out of its folder")
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise _refused(path, member.name, "is a link, a device or a sparse file, not a plain file")
        if (total := total + member.size) > most:
            raise _too_large(path, total, most, member.name)
        if member.isreg():
            files[member.name] = member
    return files


def _refuse_a_cut_end(stream: _Unpacked, offset: int) -> None:
    """A tar ends in zeros, which tarfile does not miss; and reading to the end tests the checksum of gzip."""
    stream.seek(offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise EOFError("its end is missing, or a header is damaged")
    while stream.read(CHUNK):
        pass


class _Unpacked:
    """The bytes of a tar, decompressed; more than `most` of them, or too many at once, are refused."""

    def __init__(self, path: Path, most: int) -> None:
        self._path, self._most = path, most
        first = _first_bytes(path)
        opener = gzip.open if first.startswith(b"\x1f\x8b") else bz2.open if first.startswith(b"BZh") else open
        self._file = cast("IO[bytes]", opener(path, "rb"))

    def __enter__(self) -> _Unpacked:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        if size > MOST_HEADER:
            raise DataError(f"{self._path}: a header claims {size:,} bytes. The archive was not unpacked.")
        self._refuse_beyond(self._file.tell())
        return self._file.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        self._refuse_beyond(position)
        return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()

    def _refuse_beyond(self, position: int) -> None:
        # Headers and padding come on top of what the members hold.
        if position > 2 * self._most + MOST_HEADER:
            raise _too_large(self._path, position, self._most)


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or name[1:2] == ":"


def _refused(path: Path, member: str, reason: str) -> DataError:
    return DataError(f"{path}: member {member!r} {reason}. The archive was not unpacked. Get it from its publisher.")


def _too_large(path: Path, total: int, most: int, member: str | None = None) -> DataError:
    where = f"{path}: with member {member!r} it" if member else f"{path}"
    return DataError(
        f"{where} unpacks to {total:,} bytes; the limit is {most:,}. It was not unpacked. "
        "Unpack what you trust yourself, and give the folder."
    )
