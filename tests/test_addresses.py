"""Data at addresses: the same numbers as from a file of this machine, read once, and errors that name the address."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_cli import good, mistake

from aevb import Recipe, load_data
from aevb.data import addresses
from aevb.data.addresses import bare, is_address, local
from aevb.data.tables import read_frame
from aevb.data.unsplit import read_unsplit
from aevb.errors import DataError
from aevb.runs.sources import given, named
from aevb.runs.store import fingerprints

random = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEVB_CACHE", str(tmp_path / "cache"))


def rows(n: int = 60) -> pa.Table:
    x = random.standard_normal(n)
    words = [("low", "high")[i % 2] for i in range(n)]
    return pa.table({"x": x, "y": 2 * x + random.standard_normal(n), "word": words})


def parquet(place: Path) -> Path:
    pq.write_table(rows(), place / "table.parquet")
    return place / "table.parquet"


def text(place: Path) -> Path:
    lines = [f"{x:.4f},{y:.4f},{w}" for x, y, w in zip(*rows().to_pydict().values(), strict=True)]
    (place / "table.csv.gz").write_bytes(gzip.compress("\n".join(["x,y,word", *lines]).encode()))
    return place / "table.csv.gz"


def array(place: Path) -> Path:
    np.save(place / "some rows.npy", random.standard_normal((50, 4)))
    return place / "some rows.npy"


def folder(place: Path) -> Path:
    whole, inside = rows(), place / "folder" / "2024"
    inside.mkdir(parents=True)
    for i in range(3):
        pq.write_table(whole.slice(20 * i, 20), inside / f"{i}.parquet")
    return place / "folder"


class Bucket:
    """A store of objects on this machine, which answers as S3 does; `read` lists the keys whose content was read."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.read = files, list[str]()
        self.time = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                bucket.answer(self, False)

            def do_GET(self) -> None:
                bucket.answer(self, True)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def answer(self, to: BaseHTTPRequestHandler, whole: bool) -> None:
        url = urlsplit(to.path)
        key = unquote(url.path).removeprefix("/mine").removeprefix("/")
        if "list-type" in url.query:
            prefix = unquote(url.query.split("prefix=")[1].split("&")[0]) if "prefix=" in url.query else ""
            return self.send(to, 200, self.listing(prefix), whole)
        if key not in self.files:
            return self.send(to, 404, b"<Error><Code>NoSuchKey</Code></Error>", whole)
        content, asked = self.files[key], to.headers.get("Range")
        self.read += [key] * whole
        if asked:
            first, last = asked.removeprefix("bytes=").split("-")
            content = content[int(first) : int(last) + 1]
        return self.send(to, 206 if asked else 200, content, whole)

    def send(self, to: BaseHTTPRequestHandler, status: int, content: bytes, whole: bool) -> None:
        to.send_response(status)
        to.send_header("Content-Length", str(len(content)))
        to.send_header("Last-Modified", format_datetime(self.time, usegmt=True))
        to.send_header("Content-Type", "application/xml" if content.startswith(b"<") else "binary/octet-stream")
        to.end_headers()
        if whole:
            to.wfile.write(content)

    def listing(self, prefix: str) -> bytes:
        stamp = self.time.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        each = [
            f"<Contents><Key>{k}</Key><LastModified>{stamp}</LastModified><Size>{len(v)}</Size></Contents>"
            for k, v in sorted(self.files.items())
            if k.startswith(prefix)
        ]
        head = f"<Name>mine</Name><Prefix>{prefix}</Prefix><KeyCount>{len(each)}</KeyCount>"
        body = f"{head}<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{''.join(each)}"
        return f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>{body}</ListBucketResult>'.encode()

    def address(self, key: str) -> str:
        port = self.server.server_address[1]
        return f"s3://mine/{quote(key)}?scheme=http&region=us-east-1&endpoint_override=127.0.0.1%3A{port}"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)
    store = Bucket({})
    threading.Thread(target=store.server.serve_forever, daemon=True).start()
    yield store
    store.server.shutdown()


def uploaded(bucket: Bucket, path: Path) -> str:
    """The address of a file or a folder after it was put into the bucket."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        bucket.files[file.relative_to(path.parent).as_posix()] = file.read_bytes()
    return bucket.address(path.name)


def check_same(address: str, path: Path) -> None:
    """The rows at an address are those at a path, in every split and in their order, with the same fingerprints."""
    there, ours = load_data(address), load_data(path)
    assert fingerprints(there) == fingerprints(ours)
    assert there.name == ours.name
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(there, part).stored, getattr(ours, part).stored)
    assert np.array_equal(read_unsplit(address).x, read_unsplit(str(path)).x)


MADE = (parquet, text, array, folder)


@pytest.mark.parametrize("made", MADE)
def test_a_file_address_is_the_file_itself(made: Any, tmp_path: Path) -> None:
    path = made(tmp_path)
    address = path.as_uri()
    assert is_address(address)
    check_same(address, path)
    assert local(address) == path  # which is not copied
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("made", MADE)
def test_objects_of_a_store_are_the_files(made: Any, tmp_path: Path, bucket: Bucket) -> None:
    """By pyarrow's own client of S3, from a server of this machine."""
    path = made(tmp_path)
    check_same(uploaded(bucket, path), path)


def test_what_has_not_changed_is_read_once(tmp_path: Path, bucket: Bucket) -> None:
    address = uploaded(bucket, folder(tmp_path))
    first = read_frame(address).table.to_arrow()
    assert sorted(bucket.read) == sorted(bucket.files)
    bucket.read.clear()
    assert read_frame(address).table.to_arrow().equals(first)
    assert bucket.read == []
    del bucket.files["folder/2024/1.parquet"]
    pq.write_table(rows(7), tmp_path / "new.parquet")
    bucket.files["folder/2024/2.parquet"] = (tmp_path / "new.parquet").read_bytes()
    assert len(read_frame(address)) == 20 + 7  # one is gone, one is another
    assert bucket.read == ["folder/2024/2.parquet"]


def test_a_later_time_of_the_same_size_is_read_again(tmp_path: Path, bucket: Bucket) -> None:
    address = uploaded(bucket, array(tmp_path))
    before = read_unsplit(address).x
    np.save(tmp_path / "some rows.npy", before + 1)
    uploaded(bucket, tmp_path / "some rows.npy")
    bucket.time = bucket.time.replace(hour=8)
    assert np.array_equal(read_unsplit(address).x, before + 1)


def test_a_copy_that_broke_off_is_made_anew(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written of it never has the name of the file."""
    path = array(tmp_path)
    address = uploaded(bucket, path)
    with monkeypatch.context() as patch:
        patch.setattr("os.utime", lambda *_, **__: 1 / 0)
        with pytest.raises(DataError, match=r"s3://mine/some%20rows.npy.* cannot be read"):
            local(address)
    assert [file.name for file in (tmp_path / "cache").rglob("*.npy*")] == ["some rows.npy.part"]
    check_same(address, path)
    assert [file.name for file in (tmp_path / "cache").rglob("*.npy*")] == ["some rows.npy"]


def test_errors_name_the_address(tmp_path: Path, bucket: Bucket) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    address = uploaded(bucket, tmp_path / "bad.parquet")
    for read in (load_data, read_frame, read_unsplit):
        with pytest.raises(DataError) as fault:
            read(address)
        assert str(fault.value).startswith(f"{address} cannot be read as a Parquet file: ")
    with pytest.raises(DataError, match=r"there is no file and no folder of files at s3://mine/none.csv"):
        load_data(bucket.address("none.csv"))
    with pytest.raises(DataError, match=r"no data set, file or folder '.*none.csv'"):
        load_data((tmp_path / "none.csv").as_uri())


def test_what_pyarrow_cannot_reach_is_said_with_the_cure() -> None:
    with pytest.raises(
        DataError, match=r"ftp:// cannot be read. Addresses begin with s3://, gs://.* Download the data"
    ):
        load_data("ftp://here/table.csv")
    with pytest.raises(
        DataError, match=r"abfs://box/key.csv cannot be read as an address of pyarrow's file systems: .*acc"
    ):
        load_data("abfs://box/key.csv")


def test_too_little_room_names_the_variable_of_the_cache(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = uploaded(bucket, array(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(
        DataError, match=r"needs 0.00 GB of disk in .*cache.* for its copy.* another disk by AEVB_CACHE"
    ):
        local(address)


def test_a_name_that_points_outside_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow.fs import FileType

    names = ["bucket/folder/1.parquet", "bucket/folder/../../../2.parquet"]
    infos = [SimpleNamespace(path=name, type=FileType.File) for name in names]
    top = SimpleNamespace(type=FileType.Directory)
    system = SimpleNamespace(get_file_info=lambda asked: top if asked == "bucket/folder" else infos)
    with pytest.raises(DataError, match=r"'../../../2.parquet' points out of the folder"):
        addresses.files_at(system, "bucket/folder")


def test_a_run_remembers_the_address_and_keeps_no_copy(tmp_path: Path, bucket: Bucket) -> None:
    for address in (uploaded(bucket, parquet(tmp_path)), (tmp_path / "table.parquet").as_uri()):
        recipe, data = given(Recipe.load("table"), address)
        assert recipe.source().source == address
        assert named(recipe, data) == (recipe, False)
    assert bare("s3://mine/table.parquet?region=us-east-1") == "s3://mine/table.parquet"
    assert bare("what?.csv") == "what?.csv"


def test_the_command_line_takes_addresses(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, data, encode, score and impute give what they give for the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AEVB_RUNS", raising=False)
    parquet(tmp_path)
    holes = rows(20).set_column(1, "y", pa.array([None if i % 3 == 0 else float(i) for i in range(20)]))
    pq.write_table(holes, "new.parquet")
    address, new = uploaded(bucket, tmp_path / "table.parquet"), uploaded(bucket, tmp_path / "new.parquet")
    small = ("--samples", 300, "--batch", 20, "--latent", 1, "--no-figures")
    good("train", "table.parquet", "--out", "runs/path", *small)
    good("train", address, "--out", "runs/address", *small)
    weights = [(tmp_path / "runs" / run / "weights.safetensors").read_bytes() for run in ("path", "address")]
    assert weights[0] == weights[1]
    assert not (tmp_path / "runs" / "address" / "data.safetensors").exists()
    assert "word" in good("data", address)
    for verb, ending in (("encode", "npy"), ("score", "csv"), ("impute", "csv")):
        for run, source in (("path", "new.parquet"), ("address", new)):
            good(verb, f"runs/{run}", source, "--out", f"{run}.{ending}")
        assert Path(f"path.{ending}").read_bytes() == Path(f"address.{ending}").read_bytes(), verb
    good("evaluate", "runs/path", "--data", address)
    assert "ftp:// cannot be read" in mistake("encode", "runs/path", "ftp://here/new.csv")
