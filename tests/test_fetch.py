"""Local files, the cache and the mirrors: checksums are compared before anything is used.  No internet needed."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aevb.data import fetch
from aevb.data.fetch import File, Store, cache_folder
from aevb.data.sources import load_data
from aevb.errors import DataError

GOOD = b"the published bytes" * 1000
CHECKSUM = "sha256:" + hashlib.sha256(GOOD).hexdigest()


class Server:
    """A web server on this machine: pages by path; anything else is a 404; `asked` lists the requests."""

    def __init__(self, pages: dict[str, bytes]) -> None:
        self.asked: list[str] = []
        self.pages = pages
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                if self.path == "/endless":
                    self.drip()
                    return
                content = pages.get(self.path.removeprefix("/cut"))
                self.send_response(200 if content else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write((content or b"")[: 100 if self.path.startswith("/cut") else None])

            def drip(self) -> None:
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(OSError):
                    for _ in range(2000):
                        self.wfile.write(b"a few bytes")
                        time.sleep(0.005)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("AEVB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AEVB_DATA", raising=False)
    server = Server({"/good": GOOD, "/bad": b"<html>quota exceeded</html>", "/short": GOOD[:-1]})
    yield server
    server.http.shutdown()
    server.http.server_close()


def published(server: Server, *paths: str, checksum: str | None = CHECKSUM) -> File:
    return File("set.gz", tuple(server.url + path for path in paths), checksum)


def leftovers() -> list[str]:
    return sorted(path.name for path in cache_folder().rglob("*") if path.is_file() or path.name.startswith(".part"))


@pytest.mark.parametrize("faulty", ["/bad", "/short", "/missing", "/cut/good"])
def test_a_faulty_mirror_leaves_nothing_and_the_next_is_used(server: Server, faulty: str) -> None:
    path = Store("set").get(published(server, faulty, "/good"))
    assert path.read_bytes() == GOOD
    assert server.asked == [faulty, "/good"]
    assert leftovers() == ["set.gz"]


def test_a_download_is_kept_and_a_damaged_copy_in_the_cache_is_replaced(server: Server) -> None:
    file = published(server, "/good")
    path = Store("set").get(file)
    assert path == cache_folder() / "set" / "set.gz"
    assert Store("set", download=False).get(file) == path
    assert len(server.asked) == 1
    path.write_bytes(GOOD[:100])
    assert Store("set").get(file).read_bytes() == GOOD
    assert len(server.asked) == 2


def test_md5_and_no_checksum(server: Server) -> None:
    md5 = "md5:" + hashlib.md5(GOOD).hexdigest()
    assert Store("a").get(published(server, "/bad", "/good", checksum=md5)).read_bytes() == GOOD
    assert Store("b").get(published(server, "/missing", "/bad", checksum=None)).read_bytes().startswith(b"<html>")


def test_without_a_checksum_a_cut_connection_is_still_seen(server: Server) -> None:
    with pytest.raises(DataError, match=r"IncompleteRead|Connection broken|bytes"):
        Store("set").get(published(server, "/cut/good", checksum=None))
    assert leftovers() == []


def test_when_all_mirrors_fail_each_is_named_with_its_fault(server: Server) -> None:
    with pytest.raises(DataError) as caught:
        Store("set").get(published(server, "/missing", "/bad"))
    message = str(caught.value)
    assert "set: set.gz could not be downloaded. Tried:" in message
    assert f"{server.url}/missing: 404" in message
    assert f"{server.url}/bad: what came is damaged or another file: expected sha256 {CHECKSUM[7:]}, got " in message
    assert "--data-dir FOLDER" in message
    assert "AEVB_DATA=FOLDER" in message
    assert leftovers() == []


def test_a_dead_address_is_named(server: Server) -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/x: .*refused"):
        Store("set").get(File("set.gz", ("http://127.0.0.1:9/x",), CHECKSUM))


@pytest.mark.parametrize("folder", ["my-set", "my_set", "."])
def test_local_files_come_before_any_download(server: Server, tmp_path: Path, folder: str) -> None:
    local = tmp_path / "mine" / folder / "set.gz"
    local.parent.mkdir(parents=True)
    local.write_bytes(GOOD)
    assert Store("my-set", tmp_path / "mine").get(published(server, "/good")) == local
    assert server.asked == []


def test_the_environment_names_the_folder_and_the_argument_wins(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "set.gz").write_bytes(GOOD)
    monkeypatch.setenv("AEVB_DATA", str(tmp_path / "one"))
    assert Store("set").find("set.gz") == tmp_path / "one" / "set.gz"
    assert Store("set", tmp_path / "two").find("set.gz") == tmp_path / "two" / "set.gz"
    monkeypatch.setenv("AEVB_DATA", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"the data folder '.*none' \(--data-dir or AEVB_DATA\) does not exist"):
        Store("set").get(published(server, "/good"))


def test_a_wrong_local_file_is_an_error_and_is_not_deleted(server: Server, tmp_path: Path) -> None:
    local = tmp_path / "set.gz"
    local.write_bytes(b"mine")
    with pytest.raises(
        DataError, match=rf"set\.gz is not the published file: expected sha256 {CHECKSUM[7:]}, got .*4 bytes"
    ):
        Store("set", tmp_path).get(published(server, "/good"))
    assert local.read_bytes() == b"mine"
    assert server.asked == []


def test_truncated_local_mnist_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b" + b"\0" * 42)
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte.gz is not the published file: expected sha256 440fcabf"
    ):
        load_data("mnist", data_dir=tmp_path)


def test_without_downloading_the_places_and_the_way_out_are_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"mnist: train-images.* is neither in .* nor in .*cache.*downloading is off.*AEVB_DATA"
    ):
        load_data("mnist", data_dir=tmp_path, download=False)


def test_a_file_that_is_too_large_or_too_slow_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "LARGEST", 100)
    with pytest.raises(DataError, match=r"/good: the file has 19,000 bytes, more than the 100 that are allowed"):
        Store("set").get(published(server, "/good"))
    with pytest.raises(DataError, match=r"/endless: more than the allowed 100 bytes arrived"):
        Store("set").get(published(server, "/endless"))
    monkeypatch.setattr(fetch, "LARGEST", 10**9)
    monkeypatch.setattr(fetch, "DEADLINE", 0.05)
    with pytest.raises(DataError, match=r"/endless: it took longer than 0 seconds, in which [\d,]+ bytes arrived"):
        Store("set").get(published(server, "/endless"))
    assert leftovers() == []


def test_what_comes_packed_is_not_unpacked(server: Server) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    server.pages["/packed"] = bomb
    checksum = "sha256:" + hashlib.sha256(bomb).hexdigest()
    assert Store("set").get(published(server, "/packed", checksum=checksum)).read_bytes() == bomb


def test_a_file_without_a_checksum_is_checked_before_it_is_kept(server: Server, tmp_path: Path) -> None:
    def check(path: Path) -> None:
        if path.read_bytes() != GOOD:
            raise DataError("it does not hold the rows")

    file = replace(published(server, "/bad", "/good", checksum=None), check=check)
    path = Store("set").get(file)
    assert (path.read_bytes(), server.asked) == (GOOD, ["/bad", "/good"])
    assert Store("set").get(file) == path
    assert len(server.asked) == 2
    path.write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"/bad: what came is damaged or another file: it does not hold the rows"):
        Store("set").get(replace(file, urls=file.urls[:1]))
    assert leftovers() == []  # what could not be read is gone
    local = tmp_path / "set.gz"
    local.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"set\.gz is not the published file: it does not hold the rows"):
        Store("set", tmp_path).get(file)
    assert local.exists()


def test_what_killed_downloads_left_is_swept_and_what_runs_is_not(server: Server) -> None:
    folder = cache_folder() / "set"
    for name, age in ((".part-old", 3 * fetch.DEADLINE), (".part-new", 0.0)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (time.time() - age,) * 2)
    Store("set").get(published(server, "/good"))
    assert leftovers() == [".part-new", "set.gz"]
