"""Damaged files of data: each ends in one sentence that names the file, none in a traceback, a hang or much memory."""

from __future__ import annotations

import io
import resource
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from PIL import Image

from aevb.data import arrays, images, npfiles
from aevb.data.arrays import array_dataset
from aevb.data.memory import free_memory
from aevb.data.sources import load_data
from aevb.errors import AevbWarning, DataError
from benchmarks.fuzz_data import array_file, fuzz

TABLE = np.random.default_rng(0).normal(size=(12, 3))


def headed(header: str, data: bytes = b"") -> bytes:
    """A .npy file with this header."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


def shaped(shape: str, data: bytes = b"") -> bytes:
    return headed(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n", data)


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def picture(side: int = 6, value: int = 7) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), value).save(file, "PNG")
    return file.getvalue()


def patched(content: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """The content with some bytes behind every mark, such as the signature of a member of a .zip, replaced."""
    out, at = bytearray(content), content.find(mark)
    while at >= 0:
        out[at + offset : at + offset + len(value)] = value
        at = content.find(mark, at + 1)
    return bytes(out)


NPZ, ZIP = zipped({"x.npy": array_file(TABLE)}), zipped({f"{i}.png": picture(value=i) for i in range(3)})
LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


def both(content: bytes, field: int, value: bytes) -> bytes:
    """A field of all members, in their own headers and in the directory."""
    return patched(patched(content, LOCAL, field, value), CENTRAL, field + 2, value)


DAMAGED = {
    "no array.npz": (zipped({"README.txt": b"hi"}), "holds the arrays none: name the one with the rows x"),
    "brace.npy": (array_file(TABLE).replace(b"}", b"y"), "cannot be read as arrays of numbers: "),
    "encrypted.npz": (both(NPZ, 6, b"\x01\x00"), "arrays of numbers: x.npy: .*encrypted"),
    "method.npz": (both(NPZ, 8, b"\x09\x00"), "compression method"),
    "version.npz": (both(NPZ, 4, b"\xff"), "zip file version"),
    "large.npy": (shaped("(1000000000000, 3)"), r"cut short \(24,000,000,000,000 bytes of numbers were expected, 0"),
    "minus.npy": (headed("-" * 9000 + "1"), "arrays of numbers: "),
    "lzma.npz": (zipped({"x.npy": array_file(TABLE)}, zipfile.ZIP_LZMA)[:80] + b"\0" * 400, "arrays of numbers: "),
    "overflow.npy": (shaped("(99999999999999999999999, 3)"), "cut short"),
    "truth.npy": (shaped("(True, 3)", bytes(24)), r"its header gives the shape \(True, 3\)"),
    "short.npy": (array_file(TABLE)[:-1], "cut short"),
    "long.npy": (array_file(TABLE) * 2, "longer than its header says; save one array a file"),
    "text.npy": (b"1,2,3\n4,5,6\n", r"does not begin as a .npy or .npz file does\. Write one from text with numpy\.s"),
    "empty.npy": (b"", "it does not begin as a .npy or .npz file does"),
    "crc.npz": (NPZ.replace(TABLE.tobytes()[:8], bytes(8)), "Bad CRC-32"),
    "utf8.zip": (zipped({"\xe9.png": picture()}).replace("\xe9".encode(), b"\xe9\x80"), "as a .zip of images: .*utf-8"),
    "version.zip": (both(ZIP, 4, b"\xff"), "zip file version"),
    "encrypted.zip": (both(ZIP, 6, b"\x01\x00"), r"0\.png cannot be read as an image: .*encrypted.*Repair or remove"),
    "deflate.zip": (
        zipped({"a.png": bytes(99)}, zipfile.ZIP_DEFLATED).replace(zlib.compress(bytes(99))[2:-4], b"\xff" * 5),
        "a.png cannot be read as an image",
    ),
    "nameless.zip": (zipped({"a.png": picture()}).replace(b"a.png", b"\0.png"), "a .zip of images"),
    "html.zip": (b"<html>404</html>", "cannot be read as a .zip of images: File is not a zip file"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_ends_in_one_sentence(tmp_path: Path, name: str) -> None:
    content, words = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AevbWarning)
        with pytest.raises(DataError, match=words) as caught:
            load_data(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("~nobodyhere/x.npy", "'~nobodyhere/x.npy' is not a path: .*home directory"),
        ("x" * 5000, "^'x{200}' is not a path: .*name too long"),
        ("a\0b.npy", r"no data set, file or folder 'a.*b\.npy'"),
    ],
)
def test_what_is_no_path_is_told_so(source: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_data(source)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("x", "X"), r"holds 'x' twice \(upper and lower case count as one\): which is meant\?"),
        (("x_train", "x_val"), "holds x_train, x_val, but no x_test. Add x_test; or give all rows as one array x"),
        (("x_test",), "holds x_test, but no x_train. Add x_train"),
        (("x_train", "x_val", "x_valid", "x_test"), "x_val and x_valid: which is to validate"),
        (("x_train", "y_train", "x_test"), "only some of the splits have labels. Add y_train, y_test"),
    ],
)
def test_arrays_whose_names_do_not_tell_are_refused(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    (tmp_path / "a.npz").write_bytes(
        zipped({f"{n}.npy": array_file(TABLE[:, 0] // 1 if n[0] == "y" else TABLE) for n in names})
    )
    with pytest.raises(DataError, match=f"a.npz.*{words}"):
        load_data(tmp_path / "a.npz")


@pytest.mark.parametrize("empty", ["x_train", "x_val", "x_test"])
def test_parts_without_rows_are_refused(tmp_path: Path, empty: str) -> None:
    parts = {name: TABLE[:0] if name == empty else TABLE for name in ("x_train", "x_val", "x_test")}
    np.savez(tmp_path / "a.npz", **parts)
    with pytest.raises(DataError, match=rf"a.npz: {empty} has shape \(0, 3\): no numbers. Fill it, or leave it out"):
        load_data(tmp_path / "a.npz")


def test_a_zip_that_has_a_name_twice_is_refused(tmp_path: Path) -> None:
    for name, member in (("p.zip", "a.png"), ("p.npz", "x.npy")):
        with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / name, "w") as archive:
            warnings.simplefilter("ignore")
            for value in (1, 2):
                archive.writestr(member, picture(value=value))
        with pytest.raises(DataError, match=r"holds '(a.png|x)' twice.*which is meant\?"):
            load_data(tmp_path / name)


def test_labels_called_target_are_read_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    x = np.arange(40.0).reshape(20, 2)
    np.savez(tmp_path / "a.npz", data=x, target=np.arange(20) % 2, columns=np.array(["a", "b"]), made=np.array({}))
    with pytest.raises(DataError, match=r"made.npy: it holds Python objects, and pickles are not read"):
        load_data(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", data=x, target=np.arange(20) % 2, columns=np.array(["a", "b"]))
    with pytest.warns(AevbWarning, match=r"a.npz: left out, the arrays columns \(1 in all\)"):
        data = load_data(tmp_path / "a.npz")
    assert np.array_equal(data.train.labels.numpy(), data.train.stored[:, 0].numpy() / 2 % 2)


def test_labels_too_large_for_int64_stay_themselves(tmp_path: Path) -> None:
    for labels, names in (
        (np.array([1e30, 2.0] * 6), ("2", str(int(1e30)))),
        (np.array([2**63, 5] * 6, np.uint64), ("5", str(2**63))),
        (np.array([-1, 3] * 6), ("-1", "3")),
        (np.array([b"\xe9t\xe9", b"a"] * 6), ("a", r"\xe9t\xe9")),
    ):
        np.savez(tmp_path / "a.npz", x=TABLE, y=labels)
        assert load_data(tmp_path / "a.npz").class_names == names


def test_a_sparse_matrix_with_an_index_beyond_its_shape_is_refused(tmp_path: Path) -> None:
    scipy.sparse.save_npz(tmp_path / "s.npz", scipy.sparse.csr_matrix(np.eye(5)))
    with np.load(tmp_path / "s.npz") as file:
        content = dict(file)
    content["indices"][2] = 10**6
    np.savez(tmp_path / "s.npz", **content)
    with pytest.raises(DataError, match=r"s.npz cannot be read as arrays of numbers: .*ind(ex|ices)"):
        load_data(tmp_path / "s.npz")


# Memory


def test_sizes_are_added_up_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.npy").write_bytes(array_file(TABLE))
    (tmp_path / "p.zip").write_bytes(zipped({f"{i}.png": picture(100) for i in range(3)}, zipfile.ZIP_DEFLATED))
    monkeypatch.setattr("aevb.data.memory.free_memory", lambda: 100.0)
    for name, words in (("a.npy", "12 rows of float32"), ("p.zip", "3 images")):
        with pytest.raises(DataError, match=rf"{name} needs 0.00 GiB of memory for {words}, and 0.00 GiB are free"):
            load_data(tmp_path / name)


def test_free_memory_is_below_a_limit_on_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < free_memory() < 2**60
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**30, 2**30))
    assert free_memory() < 2**30


def test_large_pictures_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    class Pool(images.ThreadPoolExecutor):
        def __init__(self, workers: int) -> None:
            used.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(images, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(images.os, "cpu_count", lambda: 8)
    (tmp_path / "p.zip").write_bytes(zipped({f"{i}.png": picture(100) for i in range(3)}))
    for most, workers in ((2**26, 8), (3 * 100**2, 3), (100, 1)):
        monkeypatch.setattr(images, "AT_ONCE", most)
        load_data(tmp_path / "p.zip")
        assert used.pop() == workers


# Many


def test_many_damaged_files_end_well() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = fuzz(800, seed=10**9)
    assert not counts.failed
    assert counts.accepted > 30
    assert counts.refused > 500
    assert counts.slowest < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**21


def test_the_fuzz_sees_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no failure does not mean that nothing was looked at."""

    def broken(*_: object) -> Callable[..., None]:
        raise KeyError("a bug")

    monkeypatch.setattr(arrays, "classes", broken)
    monkeypatch.setattr(npfiles, "reading", broken)
    assert sum(fuzz(40, seed=0).failed.values()) > 10


def test_an_array_or_a_tensor_is_split_as_a_file_is(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", TABLE)
    expected = load_data(tmp_path / "x.npy", seed=3)
    for x in (TABLE, torch.from_numpy(TABLE), torch.from_numpy(TABLE).requires_grad_()):
        data = load_data(x, seed=3)
        assert torch.equal(data.train.stored, expected.train.stored)
        assert torch.equal(data.test.stored, expected.test.stored)
    assert load_data(np.asfortranarray(TABLE)).shape == (3,)
    for x, words in (([[1.0], [2.0, 3.0]], "array cannot be read as numbers"), ("a b", "no data set, file or folder")):
        with pytest.raises(DataError, match=words):
            load_data(x)
    with pytest.raises(DataError, match=r"array: size=8 is for a folder or a .zip of images"):
        load_data(TABLE, size=8)


def test_columns_that_are_constant_in_train_alone_are_named() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4))
    train = np.random.RandomState(0).permutation(50)[:40]
    x[train, 2] = 5.0
    with pytest.warns(AevbWarning, match=r"constant in the train rows only: 1 of 4 columns \(2, counted from 0\)"):
        array_dataset(x)
    x[:, 3] = 1.0
    with pytest.warns(AevbWarning, match=r"array: constant in the train rows: 1 of 4 columns \(3, counted from 0\)"):
        array_dataset(x)


def test_a_class_without_train_rows_is_named() -> None:
    x, y = np.random.default_rng(0).normal(size=(50, 4)), np.zeros(50, int)
    y[np.random.RandomState(0).permutation(50)[45]] = 1  # a test row
    with pytest.warns(AevbWarning, match=r"array: the classes 1 \(counted from 0.*have no train rows"):
        assert array_dataset(x, y).classes == 2


@pytest.mark.parametrize("seed", [-2, 2**32])
def test_a_seed_that_cannot_shuffle_is_refused(seed: int) -> None:
    with pytest.raises(DataError, match=rf"data.seed={seed}: the seed of the shuffle must be a whole number from 0"):
        array_dataset(TABLE, seed=seed)
