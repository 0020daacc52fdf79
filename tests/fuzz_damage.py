"""Random damage for `fuzz_readers`: to the content of files, and to what it is packed in."""

from __future__ import annotations

import bz2
import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Callable
from random import Random

from fuzz_seeds import Files

NUMBERS = [b"99999999999999999999", b"9" * 400, b"1e400", b"1e308", b"-1", b"-0.0", b"nan", b"inf", b"0x10", b"1_0",
           b"4102444799999", b"9223372036854775807", b"-9223372036854775808", b"1.5", b"",
           b"1e-320", "١٢".encode()]  # fmt: skip
MARKS = [b"\0", b"\r", b"\n", b"\r\n", b"\t", b"\x1a", b"\x1c\x1d\x1e\x1f", b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80",
         b'"', b"'", b'""', b'"""', b"\\", b"\\u", b"\\ud800", b"\\x", b"\\N{DASH}", b",", b"::", b"|", b"{", b"}",
         b"[", b"]", b"nan", b"None", b"null", b" ", "\u2028".encode(), "e\u0301".encode(), b"$1,2", b"#"]  # fmt: skip
NESTS = [b"[", b"{", b'{"a":', b"{'a':", b"[[", b"(", b"-", b'"', b"\\", b"\n", b"[]", b"{u'"]
Damage = Callable[[bytes, Random], bytes]


def damaged(files: Files, random: Random) -> Files:
    """The same files with one to four damages in them, most of them in one file."""
    files = dict(files)
    name = random.choice(list(files))
    for _ in range(random.choice([1, 1, 2, 4])):
        files[name] = random.choice(DAMAGES)(files[name], random)
        if random.random() < 0.1:
            name = random.choice(list(files))
    return files


def packed(files: Files, archive: str, random: Random | None) -> Files:
    """Files as they lie on disk: `.gz` and `.bz2` packed, all in one archive where there is one.

    Args:
        archive: its name; empty where the files lie in the folder.
        random: damages one in five of what is packed; None damages nothing.
    """
    packers = {"gz": lambda data: gzip.compress(data, 1, mtime=0), "bz2": bz2.compress}
    files = {name: packers.get(name.rpartition(".")[2], bytes)(data) for name, data in files.items()}
    if archive:
        files = {archive: (_zipped if archive.endswith(".zip") else _tarred)(files, archive)}
    if (
        random
        and random.random() < 0.2
        and (binary := [name for name in files if name.endswith(("gz", "bz2", "zip", "tar"))])
    ):
        name = random.choice(binary)
        files[name] = random.choice([_flip, _cut, _remove, _repeat, _garbage])(files[name], random)
    return files


def _zipped(files: Files, _: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name, data in files.items():
            packed.writestr(zipfile.ZipInfo(f"folder/{name}"), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _tarred(files: Files, archive: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, data in files.items():
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), 1, mtime=0) if archive.endswith("gz") else buffer.getvalue()


def _span(data: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.choice([1, 2, 8, 40, 200]))


def _flip(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 3, 10]) if data else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _remove(data: bytes, random: Random) -> bytes:
    start, end = _span(data, random)
    return data[:start] + data[end:]


def _repeat(data: bytes, random: Random) -> bytes:
    start, end = _span(data, random)
    return data[:end] + data[start:end] * random.choice([1, 1, 5, 1000]) + data[end:]


def _move(data: bytes, random: Random) -> bytes:
    (start, end), to = _span(data, random), random.randrange(len(data) + 1)
    return data[:to] + data[start:end] + data[to:]


def _mark(data: bytes, random: Random) -> bytes:
    start, end = _span(data, random)
    return data[:start] + random.choice(MARKS) + data[random.choice([start, end]) :]


def _number(data: bytes, random: Random) -> bytes:
    found = list(re.finditer(rb"\d+", data))
    if not found:
        return data
    start, end = random.choice(found).span()
    return data[:start] + random.choice(NUMBERS) + data[end:]


def _nest(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(NESTS) * random.choice([2, 100, 3_000, 200_000]) + data[at:]


def _lines(data: bytes, random: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    random.shuffle(lines)
    return b"".join(lines)


def _cell(data: bytes, random: Random) -> bytes:
    """One cell of a table takes the place of another."""
    cells = re.split(rb"([,\t;|\n]|::)", data)
    first, second = random.randrange(len(cells)), random.randrange(len(cells))
    cells[first] = cells[second]
    return b"".join(cells)


def _large(data: bytes, random: Random) -> bytes:
    """Lines over and over: what is read in blocks has some."""
    if random.random() < 0.9:
        return _mark(data, random)
    head, _, rest = data.partition(b"\n")
    return head + b"\n" + rest * (random.choice([100_000, 3_000_000]) // (len(rest) + 1))


def _garbage(data: bytes, random: Random) -> bytes:
    noise = random.randbytes(random.choice([0, 1, 100, 5_000]))
    return random.choice([noise, gzip.compress(noise), bz2.compress(noise), b"PK\3\4" + noise, data + noise])


DAMAGES: list[Damage] = [_flip, _cut, _remove, _repeat, _move, _mark, _mark, _number, _number, _nest, _lines, _cell,
                         _cell, _large]  # fmt: skip
