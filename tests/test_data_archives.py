"""Archives that mean harm, and those that are damaged."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.archives import extract, open_archive
from seqrec.errors import DataError


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


NOISE = hashlib.sha256(b"noise").digest() * 40


def write_zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def refused(path: Path, reason: str, **limits: int) -> None:
    with pytest.raises(DataError, match=reason) as caught, open_archive(path, **limits):
        pass
    assert str(path) in str(caught.value)


def test_a_good_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "good.zip", ("folder/", b""), ("folder/a..b.txt", b"text"))
    with open_archive(path) as archive:
        assert extract(archive, "folder/a..b.txt", tmp_path / "out" / "a").read_bytes() == b"text"
        with pytest.raises(DataError, match=r"no member 'c'"):
            extract(archive, "c", tmp_path / "out" / "c")
    assert left_in(tmp_path / "out") == ["a"]


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/out", "..\\out", "C:\\out", "\\\\host\\out"])
def test_zip_slip_is_refused(tmp_path: Path, name: str) -> None:
    member = zipfile.ZipInfo("placeholder")
    member.filename = name
    refused(write_zip(tmp_path / "slip.zip", (member, b"x")), "leads out of its folder")


def test_links_are_refused(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("link")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(write_zip(tmp_path / "link.zip", (member, b"/etc/passwd")), "is a link")


def test_bombs_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "bomb.zip", ("zeros", bytes(8 << 20)))
    refused(path, "zip bomb")
    refused(path, "the limit is 1,000", most_bytes=1000, most_expansion=10_000)


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "whole.zip", ("a", hashlib.sha256(b"").digest() * 1000)).read_bytes()
    for name, content in (("cut.zip", whole[:-30]), ("empty.zip", b""), ("page.zip", b"<html>")):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "not a whole zip")
    refused(tmp_path / "none.zip", "cannot be read")
    refused(tmp_path, "cannot be read")


def test_a_corrupt_member_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "bad.zip", ("a.txt", b"some text that is compressed" * 50))
    content = bytearray(path.read_bytes())
    content[45] ^= 0xFF
    path.write_bytes(content)
    with open_archive(path) as archive, pytest.raises(DataError, match=r"'a\.txt' is damaged"):
        extract(archive, "a.txt", tmp_path / "out" / "a.txt")
    assert left_in(tmp_path / "out") == []


def member(name: str, content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


def tar_bytes(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    content = tar_bytes(*members)
    pack = {".gz": gzip.compress, ".tgz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(content))
    return path


FOLDER = member("folder", type=tarfile.DIRTYPE)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2"])
def test_a_good_tar(tmp_path: Path, name: str) -> None:
    long = "folder/" + "long name " * 20
    path = write_tar(tmp_path / name, FOLDER, member("folder/a..b.txt", b"text"), member(long, NOISE))
    with open_archive(path) as archive:
        assert archive.members == ("folder/a..b.txt", long)
        assert extract(archive, long, tmp_path / "out" / "b").read_bytes() == NOISE
        assert extract(archive, "folder/a..b.txt", tmp_path / "out" / "a").read_bytes() == b"text"
        for absent in ("c", "folder"):
            with pytest.raises(DataError, match=f"no member '{absent}'"):
                extract(archive, absent, tmp_path / "out" / "c")
    assert left_in(tmp_path / "out") == ["a", "b"]


def test_what_an_archive_is_counts_not_its_name(tmp_path: Path) -> None:
    packed = write_tar(tmp_path / "a.tgz", member("a", b"text")).rename(tmp_path / "gzipped.tar")
    plain = write_tar(tmp_path / "b.tar", member("a", b"text")).rename(tmp_path / "plain.zip")
    zipped = write_zip(tmp_path / "c.zip", ("a", b"text")).rename(tmp_path / "zip.tar.gz")
    for path in (packed, plain, zipped):
        with open_archive(path) as archive:
            assert extract(archive, "a", tmp_path / "out").read_bytes() == b"text"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:\\evil"])
def test_a_tar_does_not_lead_out(tmp_path: Path, name: str) -> None:
    path = write_tar(tmp_path / "slip.tar.gz", member("good", b"x"), member(name, b"x"))
    refused(path, "member .*evil.* leads out of its folder")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = write_tar(tmp_path / "link.tar", member("good", b"x"), member("odd", type=kind, linkname="/etc/passwd"))
    refused(path, "member 'odd' is a link, a device or a sparse file")


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    pax = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member("holes", pax_headers=pax)[0])
    (tmp_path / "sparse.tar").write_bytes(buffer.getvalue())
    refused(tmp_path / "sparse.tar", "sparse file")


@pytest.mark.parametrize("name", ["bomb.tar.gz", "bomb.tar.bz2"])
def test_bombs_in_a_tar_are_refused(tmp_path: Path, name: str) -> None:
    path = write_tar(tmp_path / name, member("a", b"x"), member("zeros", bytes(8 << 20)))
    refused(path, r"with member 'zeros' it unpacks to 8,388,609 bytes; the limit is")
    refused(path, "the limit is 1,000", most_bytes=1000)
    with open_archive(path, most_expansion=1_000_000) as archive:
        assert len(archive.members) == 2


def test_a_bomb_behind_the_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tail.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes(member("a", b"x")) + bytes(64 << 20), 1))
    refused(path, "the limit is", most_expansion=1)


def test_a_header_that_claims_memory_is_refused(tmp_path: Path) -> None:
    claims, _ = member("././@LongLink", type=tarfile.GNUTYPE_LONGNAME)
    claims.size = 1 << 33
    path = tmp_path / "claims.tar"
    path.write_bytes(claims.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    refused(path, "a header claims 8,589,934,592 bytes")


WHOLE = tar_bytes(member("first", NOISE), member("second", NOISE * 2))
LAST = 512 + 1536 + 512 + 2560  # where the zeros begin that end a tar


@given(st.integers(0, LAST + 511))
def test_a_tar_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "cut.tar"
    path.write_bytes(WHOLE[:length])
    refused(path, "is not a whole tar file")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
@given(data=st.data())
def test_a_packed_tar_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, pack, data) -> None:  # type: ignore[no-untyped-def]
    packed = pack(WHOLE)
    path = tmp_path_factory.mktemp("cut") / "cut.tar.gz"
    path.write_bytes(packed[: data.draw(st.integers(0, len(packed) - 1))])
    refused(path, "is not a whole tar file")


def test_damage_within_a_tar_is_refused(tmp_path: Path) -> None:
    damaged = bytearray(WHOLE)
    damaged[512 + 1536 + 3] ^= 0xFF  # in the header of the second member
    (tmp_path / "header.tar").write_bytes(damaged)
    refused(tmp_path / "header.tar", "a header is damaged")
    packed = bytearray(gzip.compress(WHOLE))
    packed[-6] ^= 0xFF  # its checksum
    (tmp_path / "sum.tar.gz").write_bytes(packed)
    refused(tmp_path / "sum.tar.gz", "CRC check failed")


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    for name, content in (("empty.tar", b""), ("page.tgz", b"<html>"), ("text.tar.gz", gzip.compress(b"text" * 999))):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "is not a whole tar file")
    refused(tmp_path / "none.tar", "cannot be read")


def test_a_tar_that_is_cut_while_it_is_open(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", member("a", NOISE), member("b", NOISE))
    with open_archive(path) as archive:
        os.truncate(path, 600)
        with pytest.raises(DataError, match="'b' is damaged"):
            extract(archive, "b", tmp_path / "out" / "b")
    assert left_in(tmp_path / "out") == []
