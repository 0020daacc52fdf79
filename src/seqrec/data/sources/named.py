"""What data sets with a name share: their place in the cache, files in folders and archives, taking a file over."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from seqrec.data.archives import ARCHIVE_SUFFIXES, Archive, extract, open_archive
from seqrec.data.download import fetch, md5_file
from seqrec.data.sources.text import Dialect, Source, text_file
from seqrec.errors import DataError, DownloadError
from seqrec.files import atomic_file, read_json, scratch_folder, sha256_file, write_json

Report = Callable[[str], None]

#: One column per line: four control characters that no text holds in a row.
WHOLE_LINES = Dialect("\x1c\x1d\x1e\x1f", "", header=False)
#: Beside what `seqrec data add` took over: what it was.
RECORD = "added.json"


@dataclass(frozen=True)
class Added:
    """What `seqrec data add` took in.

    Attributes:
        name: the data set.
        path: the copy in the cache: a file, or the folder where there are several.
        sha256, md5: hex digests of the file; of several, of their names and digests.
        official: whether `md5` is what the publisher gives; None where there is nothing to compare with.
        rows: how many events were read from it.
    """

    name: str
    path: Path
    sha256: str
    md5: str
    official: bool | None
    rows: int


def raw_folder(name: str, cache: Path) -> Path:
    """Where the raw files of a data set belong."""
    return cache / "raw" / name


def raw_source(folder: Path) -> Path | None:
    """The archive in a folder of raw files, else the folder itself; None where it holds nothing.

    Raises:
        DataError: several archives.
    """
    files = [file for file in _files(folder) if file.name != RECORD and file.suffix != ".part"]
    archives = [file for file in files if file.name.lower().endswith(ARCHIVE_SUFFIXES)]
    if len(archives) > 1:
        raise DataError(f"{folder} holds {', '.join(file.name for file in archives)}. Leave one of them there.")
    return archives[0] if archives else folder if files else None


def keep(name: str, files: Mapping[str, Path], cache: Path, *, rows: int, md5: str | None = None) -> Added:
    """Copy files that the user brought to where `load` looks, after they have been read.

    Copies from an earlier call that are not replaced are removed. `added.json` beside the copies records what is
    returned.

    Args:
        files: name in the cache -> the file to copy.
        rows: how many events were read from them.
        md5: the publisher's hex MD5, where there is one; only for a single file.

    Raises:
        DiskError: the disk is full or the folder may not be written.
    """
    folder = raw_folder(name, cache)
    for target, path in files.items():
        with atomic_file(folder / target) as temporary:
            shutil.copyfile(path, temporary)
    for stale in _added_before(folder) - set(files):
        (folder / stale).unlink(missing_ok=True)
    sha256s, md5s = ({target: digest(folder / target) for target in files} for digest in (sha256_file, md5_file))
    found = _one_of(md5s, "md5")
    added = Added(
        name=name,
        path=folder / next(iter(files)) if len(files) == 1 else folder,
        sha256=_one_of(sha256s, "sha256"),
        md5=found,
        official=None if md5 is None else found == md5,
        rows=rows,
    )
    write_json(folder / RECORD, {**asdict(added), "path": added.path.name, "files": sha256s})
    return added


def keep_source(name: str, path: Path, wanted: Sequence[str], cache: Path, **facts: Any) -> Added:
    """`keep` for what `open_members` reads: the archive, or of a folder the files called as one of `wanted`."""
    if path.is_dir():
        return keep(name, {file.name: file for file in _files(path) if file.name in wanted}, cache, **facts)
    lower = path.name.lower()
    suffix = max((end for end in ARCHIVE_SUFFIXES if lower.endswith(end)), key=len, default=".zip")
    return keep(name, {name + suffix: path}, cache, **facts)


def not_downloadable(name: str, page: str, what: str) -> DownloadError:
    """The error for a data set that is not here and that only people can get, since they agree to its terms."""
    return DownloadError(
        f"{name} is not here, and its terms have to be agreed to before it is downloaded. Get {what} from the {page}, "
        f"then run: seqrec data add {name} PATH"
    )


def obtain(name: str, urls: Sequence[str], target: Path, *, publisher: str, report: Report, md5: str | None) -> None:
    """Download an archive, telling how far it is every tenth of the way.

    Raises:
        DownloadError: no mirror delivered it, or what arrived is no archive.
    """
    report(f"Downloading {name} from {publisher}")
    fetch(name, urls, target, md5=md5, progress=every_tenth(report))
    if md5 is None:
        _refuse_pages(target)


@contextmanager
def open_members(path: Path, cache: Path) -> Iterator[Members]:
    """Open a folder or an archive to read files out of it by their names.

    What is unpacked lies on the cache's disk while the block runs: /tmp may be memory, and logs are large.

    Raises:
        DataError: the archive is damaged or unsafe.
        DiskError: the cache may not be written.
    """
    if path.is_dir():
        yield Members(path, [str(file) for file in _files(path)], lambda file: (Path(file), file))
        return
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder(cache / "spool"))
        archive = stack.enter_context(open_archive(path))
        inner = [member for member in archive.members if member.lower().endswith(ARCHIVE_SUFFIXES)]
        if len(inner) == 1:  # Yelp's zip holds a tar and the terms of use
            file = extract(archive, inner[0], scratch / "inner" / PurePosixPath(inner[0]).name)
            archive = stack.enter_context(open_archive(file))
        yield Members(path, archive.members, partial(_unpacked, path, archive, scratch))


class Members:
    """Files by their names, in whatever folder they lie; those of an archive are unpacked when asked for."""

    def __init__(self, path: Path, paths: Sequence[str], get: Callable[[str], tuple[Path, str]]) -> None:
        self.path = path
        self._paths, self._get = paths, get

    def _named(self, name: str) -> list[str]:
        return [path for path in self._paths if PurePath(path).name == name]

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return bool(self._named(name))

    def file(self, name: str) -> tuple[Path, str]:
        """A file to read, and what errors call it.

        Raises:
            DataError: there is none of that name, or several; or it is damaged.
        """
        found = self._named(name)
        if len(found) != 1:
            held = ", ".join(self._paths[:12]) or "nothing"
            raise DataError(f"{self.path}: {name} should be in it once, is {len(found)} times. It holds {held}.")
        return self._get(found[0])

    def text(self, name: str, dialect: Dialect, names: Sequence[str] | None = None) -> Source:
        """A delimited text file as a source; `names` are its columns where it has no header."""
        file, where = self.file(name)
        return text_file(file, dialect, names, where=where)

    def lines(self, name: str, encoding: str = "utf-8") -> Source:
        """A text file as one column, `line`, for what separates its fields where it should not."""
        source = self.text(name, replace(WHOLE_LINES, encoding=encoding), ("line",))
        loose = source.relation.removesuffix(")") + ", strict_mode = false)"  # any line may end in CR, LF or both
        return replace(source, relation=f"(SELECT c0 FROM {loose} WHERE c0 IS NOT NULL) AS lines")


def _unpacked(path: Path, archive: Archive, scratch: Path, member: str) -> tuple[Path, str]:
    file = scratch / PurePosixPath(member).name
    return (file if file.exists() else extract(archive, member, file)), f"{path}: {member}"


def _files(folder: Path) -> list[Path]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts))


def _added_before(folder: Path) -> set[str]:
    """Names of the files that an earlier `keep` put here."""
    try:
        files = read_json(folder / RECORD).get("files", {})
    except (OSError, ValueError, AttributeError):
        return set()
    return {PurePosixPath(file).name for file in files}


def _one_of(digests: Mapping[str, str], kind: str) -> str:
    """The digest of the only file; of several, of the lines `digest  name`."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    listing = "".join(f"{digest}  {file}\n" for file, digest in sorted(digests.items()))
    return hashlib.new(kind, listing.encode(), usedforsecurity=False).hexdigest()


def every_tenth(report: Report) -> Callable[[int, int | None], None]:
    """Tell how far a download is, every tenth of it."""
    told = 0

    def progress(done: int, total: int | None) -> None:
        nonlocal told
        if total and done * 10 // total > told:
            told = done * 10 // total
            report(f"{told * 10}% of {total / 2**20:.1f} MiB")

    return progress


def _refuse_pages(archive: Path) -> None:
    """Without a checksum, the login page of a network would pass for the archive and stay in the cache."""
    try:
        with open_archive(archive):
            pass
    except DataError as error:
        archive.unlink()
        raise DownloadError(f"What arrived was not used: {error}") from error
