"""Downloads against a real local server, wheels against the real pip."""

from __future__ import annotations

import hashlib
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from seqrec.data.download import cache_folder, fetch, fetch_from_wheel
from seqrec.errors import DataError, DownloadError

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """`/file` continues, `/whole` does not, `/cut` stops half way once, `/stub` always, `/other` is another file."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        wanted = self.headers.get("Range")
        server.seen.append((self.path, wanted))
        if self.path == "/gone":
            self.send_error(404)
            return
        body = b"another file" if self.path == "/other" else BODY
        start = 0
        if wanted and self.path != "/whole":
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        first_time = sum(path == self.path for path, _ in server.seen) == 1
        cut = self.path == "/stub" or (self.path == "/cut" and first_time)
        self.wfile.write(body[start : len(body) // 2] if cut else body[start:])

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    seen: list[tuple[str, str | None]]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.seen = []
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetch_checks_reports_and_leaves_only_the_file(server: Server, tmp_path: Path) -> None:
    heard: list[tuple[int, int | None]] = []
    target = tmp_path / "new" / "log.zip"
    path = fetch("log", [server.url("/file")], target, sha256=SHA256, progress=lambda *now: heard.append(now))
    assert path.read_bytes() == BODY
    assert left_in(target.parent) == ["log.zip"]
    assert heard[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_a_file_that_is_right_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "log.zip"
    target.write_bytes(BODY)
    fetch("log", [server.url("/file")], target, md5=MD5)
    assert server.seen == []
    target.write_bytes(b"damaged")
    fetch("log", [server.url("/file")], target, md5=MD5)
    assert target.read_bytes() == BODY


def test_an_earlier_part_is_continued(server: Server, tmp_path: Path) -> None:
    (tmp_path / "log.zip.part").write_bytes(BODY[:300_000])
    fetch("log", [server.url("/file")], tmp_path / "log.zip", sha256=SHA256)
    assert server.seen == [("/file", "bytes=300000-")]
    assert left_in(tmp_path) == ["log.zip"]


@pytest.mark.parametrize("part", [b"x" * 1000, BODY + b"too long", BODY], ids=["foreign", "too long", "complete"])
def test_a_part_is_used_only_if_the_whole_is_right(server: Server, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "log.zip.part").write_bytes(part)
    fetch("log", [server.url("/file")], tmp_path / "log.zip", sha256=SHA256)
    assert (tmp_path / "log.zip").read_bytes() == BODY


def test_without_a_checksum_no_old_part_is_trusted(server: Server, tmp_path: Path) -> None:
    (tmp_path / "log.zip.part").write_bytes(b"x" * 1000)
    fetch("log", [server.url("/file")], tmp_path / "log.zip")
    assert (tmp_path / "log.zip").read_bytes() == BODY
    assert server.seen == [("/file", None)]


def test_a_server_that_does_not_continue_sends_everything(server: Server, tmp_path: Path) -> None:
    (tmp_path / "log.zip.part").write_bytes(BODY[:300_000])
    fetch("log", [server.url("/whole")], tmp_path / "log.zip", sha256=SHA256)
    assert (tmp_path / "log.zip").read_bytes() == BODY


def test_a_transfer_that_stops_is_taken_up_again(server: Server, tmp_path: Path) -> None:
    fetch("log", [server.url("/cut")], tmp_path / "log.zip", sha256=SHA256)
    assert (tmp_path / "log.zip").read_bytes() == BODY
    assert server.seen == [("/cut", None), ("/cut", f"bytes={len(BODY) // 2}-")]


def test_a_transfer_that_always_stops_fails_and_keeps_its_part(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"stopped after 524,288 of 1,048,576 bytes"):
        fetch("log", [server.url("/stub")], tmp_path / "log.zip", sha256=SHA256)
    assert left_in(tmp_path) == ["log.zip.part"]
    fetch("log", [server.url("/file")], tmp_path / "log.zip", sha256=SHA256)
    assert server.seen[-1] == ("/file", f"bytes={len(BODY) // 2}-")


def test_dead_mirrors_are_passed_over(server: Server, tmp_path: Path) -> None:
    urls = ["http://127.0.0.1:1/log.zip", server.url("/gone"), server.url("/other"), server.url("/file")]
    assert fetch("log", urls, tmp_path / "log.zip", sha256=SHA256).read_bytes() == BODY


def test_every_failure_is_listed_with_what_to_do(server: Server, tmp_path: Path) -> None:
    urls = ["http://127.0.0.1:1/log.zip", server.url("/gone"), server.url("/other"), "no url at all"]
    with pytest.raises(DownloadError) as caught:
        fetch("log", urls, tmp_path / "log.zip", sha256=SHA256)
    said = str(caught.value)
    assert all(url in said for url in urls)
    for reason in ("refused", "404", "SHA-256", "seqrec data add log PATH"):
        assert reason in said
    assert left_in(tmp_path) == []


def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=fetch, args=("log", [server.url("/file")], tmp_path / "log.zip"), kwargs={"md5": MD5})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "log.zip").read_bytes() == BODY
    assert len(server.seen) == 1
    assert left_in(tmp_path) == ["log.zip"]


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEQREC_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("SEQREC_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "seqrec"


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A wheel that the real pip finds in a folder and nowhere else."""
    links = tmp_path / "links"
    links.mkdir()
    with zipfile.ZipFile(links / "tiny_log-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny/log.inter", "a")
        archive.writestr("tiny_log-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-log\nVersion: 1.0\n")
        archive.writestr(
            "tiny_log-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_log-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return "tiny-log==1.0"


def test_a_member_of_a_wheel(wheel: str, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"a").hexdigest()
    (path,) = fetch_from_wheel(wheel, "tiny/", {"log.inter": digest}, tmp_path / "raw")
    assert path.read_text() == "a"
    with pytest.raises(DownloadError, match="not 00"):
        fetch_from_wheel(wheel, "tiny/", {"log.inter": "00"}, tmp_path / "other")
    with pytest.raises(DataError, match=r"no member 'tiny/none'"):
        fetch_from_wheel(wheel, "tiny/", {"none": digest}, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_wheel_that_pip_does_not_find(wheel: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"pip download tiny-log==9.9 failed: .*tiny-log==9.9"):
        fetch_from_wheel("tiny-log==9.9", "tiny/", {"log.inter": "00"}, tmp_path)
