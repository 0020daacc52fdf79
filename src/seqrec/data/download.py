"""Getting raw files: mirrors in turn, resumed, checked and renamed into place."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from seqrec.data.archives import CHUNK, extract, open_archive
from seqrec.errors import DownloadError
from seqrec.files import DiskError, atomic_file, sha256_file

#: Told (bytes so far, bytes in all or None when the server does not say).
Progress = Callable[[int, int | None], None]

TIMEOUT_SECONDS = 10.0
ATTEMPTS = 5  # at one mirror, each of which must have brought something


def cache_folder() -> Path:
    """Where downloads and prepared data are kept: `$SEQREC_CACHE`, else `~/.cache/seqrec`. It may not exist yet."""
    chosen = os.environ.get("SEQREC_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "seqrec"


def md5_file(path: Path) -> str:
    """Hex MD5 of a file's bytes: what some publishers give. It finds damage, not malice."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fetch(
    name: str,
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download `target` from the first of `urls` that delivers it, unless it is already there and right.

    An interrupted download stays as `<target>.part`; it is continued, by any mirror, when a checksum can tell
    whether the pieces fit. Two processes that want the same file take turns.

    Args:
        name: the data set, for messages.
        sha256, md5: hex digests that the file must have; None is not checked.

    Raises:
        DownloadError: no mirror delivered the file; the message has every mirror's reason.
        DiskError: the disk is full or the folder may not be written.
    """
    part = target.with_name(f"{target.name}.part")
    failures = []
    with _alone(target.parent):
        if target.is_file() and not _wrong(target, sha256, md5):
            return target
        if not (sha256 or md5):  # nothing could tell whether an old piece fits
            part.unlink(missing_ok=True)
        for url in urls:
            try:
                with atomic_file(target) as temporary:
                    _from_mirror(url, part, lambda: _wrong(part, sha256, md5), progress)
                    part.replace(temporary)
                return target
            except _MirrorError as error:
                failures.append(f"  {url}: {error}")
    raise DownloadError(
        f"{name} could not be downloaded:\n" + "\n".join(failures) + "\n"
        f"Check the network and repeat, or get the file some other way and run: seqrec data add {name} PATH"
    )


def fetch_from_wheel(requirement: str, prefix: str, sha256: Mapping[str, str], folder: Path) -> list[Path]:
    """Take files out of a wheel that pip downloads, from wherever this machine's pip is set up to look.

    Nothing is installed or run: only a wheel is accepted, never a source distribution.

    Args:
        requirement: exact, such as `recbole==1.2.1`.
        prefix: folder inside the wheel, such as `recbole/dataset_example/ml-100k/`.
        sha256: file name under `prefix` -> hex SHA-256 of its bytes.
        folder: where the files go, each whole or not at all, in the order of `sha256`.

    Raises:
        DownloadError: pip failed, or the wheel holds other bytes under that name.
        DataError: the wheel has no such member.
    """
    with tempfile.TemporaryDirectory() as temporary:
        wheel = _pip_download(requirement, Path(temporary))
        with open_archive(wheel) as archive:
            for member, expected in sha256.items():
                copy = extract(archive, prefix + member, Path(temporary) / "members" / member)
                if (found := sha256_file(copy)) != expected:
                    raise DownloadError(
                        f"{wheel.name}: {prefix + member} has SHA-256 {found}, not {expected}. "
                        "Your package index serves another file under that version; it was not used."
                    )
        for member in sha256:
            with atomic_file(folder / member) as place:
                shutil.copyfile(Path(temporary) / "members" / member, place)
    return [folder / member for member in sha256]


class _MirrorError(Exception):
    """One mirror did not deliver; the next is tried."""


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time in `folder`. The lock is on the folder itself: nothing is left behind."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{folder} cannot be made ({error.strerror}). Set SEQREC_CACHE to another folder.") from error
    try:
        import fcntl
    except ImportError:  # Windows: two simultaneous first downloads may cost one of them a retry
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _wrong(path: Path, sha256: str | None, md5: str | None) -> str | None:
    """Why the file is not the one wanted; None when it is."""
    for kind, expected, digest in (("SHA-256", sha256, sha256_file), ("MD5", md5, md5_file)):
        if expected is not None and (found := digest(path)) != expected.lower():
            return f"what arrived ({_size(path):,} bytes) has {kind} {found}, not {expected}"
    return None


def _from_mirror(url: str, part: Path, wrong: Callable[[], str | None], progress: Progress | None) -> None:
    """Fill `part` with the right bytes or raise `_MirrorError`; wrong bytes do not stay."""
    continued = _size(part) > 0
    _continue_while_it_grows(url, part, progress)
    reason = wrong()
    if reason and continued:  # the piece from before was of another file: once more from the start
        part.unlink()
        _continue_while_it_grows(url, part, progress)
        reason = wrong()
    if reason:
        part.unlink()
        raise _MirrorError(reason)


def _continue_while_it_grows(url: str, part: Path, progress: Progress | None) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        before = _size(part)
        try:
            _transfer(url, part, progress)
            return
        except _MirrorError:
            if _size(part) <= before or attempt == ATTEMPTS:
                raise


def _transfer(url: str, part: Path, progress: Progress | None) -> None:
    """One request: append to `part` what it lacks, or replace it when the server does not continue."""
    done = _size(part)
    headers = {"User-Agent": "seqrec"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        request = urllib.request.Request(url, headers=headers)
        # urlopen would keep for good the proxies that were set when the process first used it
        response = urllib.request.build_opener().open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and done:
            return  # nothing is left to send: the checksum decides
        raise _MirrorError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _MirrorError(_reason(error)) from error
    with response:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            done = 0  # it sends everything again
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if done else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
    if total is not None and done < total:
        raise _MirrorError(f"stopped after {done:,} of {total:,} bytes")


def _chunks(response: IO[bytes]) -> Iterator[bytes]:
    """The body. Only network errors are the mirror's: a full disk is raised where the file is written."""
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _MirrorError(_reason(error)) from error
        if not chunk:
            return
        yield chunk


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__


def _pip_download(requirement: str, folder: Path) -> Path:
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise DownloadError(f"pip download {requirement} did not end within 10 minutes.") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = done.stderr.strip().splitlines()[-3:] or [f"exit code {done.returncode}, {len(wheels)} wheels"]
        raise DownloadError(f"pip download {requirement} failed: " + " / ".join(lines))
    return wheels[0]
