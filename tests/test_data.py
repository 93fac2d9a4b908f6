"""The data floor: what values mean, how splits are made, what is refused and in which words."""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from sklearn.datasets import load_digits

from aevb.data import dataset, readers
from aevb.data.arrays import array_dataset, permutation
from aevb.data.dataset import Dataset, Split, Streamed, Values, placed
from aevb.data.readers import matlab_images, read_idx, read_mat, read_mat_apart, read_pickled_array
from aevb.data.sources import SOURCES, load_data, read_omniglot, read_silhouettes
from aevb.errors import DataError, ShapeError

DATA = Path(os.environ.get("AEVB_DATA") or Path(__file__).parents[2] / "shared" / "data")


def local(*names: str) -> Path:
    """The real files, or a skip that says what is missing."""
    if not (DATA / names[0] / names[1]).is_file():
        pytest.skip(f"no {'/'.join(names)} in {DATA}: set AEVB_DATA to a folder with the original files")
    return DATA


def byte_split(values: Values, n: int = 256) -> Split:
    return Split(torch.arange(n, dtype=torch.uint8)[:, None], None, values)


# What values mean


@pytest.mark.parametrize(
    ("values", "support", "expected"),
    [
        (Values("threshold"), "binary", [0, 0, 1, 1]),
        (Values("grey"), "unit", [0, 127 / 255, 128 / 255, 1]),
        (Values("grey", divisor=256.0), "unit", [0, 127 / 256, 128 / 256, 255 / 256]),
        (Values("levels"), "levels", [0, 127 / 255, 128 / 255, 1]),
        (Values("raw"), "real", [0, 127, 128, 255]),
    ],
)
def test_values_of_bytes(values: Values, support: str, expected: list[float]) -> None:
    x = byte_split(values)[[0, 127, 128, 255]]
    assert x.dtype == torch.float32
    assert values.support == support
    torch.testing.assert_close(x[:, 0], torch.tensor(expected, dtype=torch.float32))


def test_threshold_of_odd_and_of_two_levels() -> None:
    digits = byte_split(Values("threshold", levels=17, divisor=16.0), 17)[:]
    assert digits.sum() == 8  # 9..16: 8 is below 17/2
    assert byte_split(Values("threshold", levels=2), 2)[:].flatten().tolist() == [0, 1]


def test_stored_floats_are_probabilities() -> None:
    stored = torch.tensor([[0.0], [0.25], [0.5], [1.0]])
    assert Split(stored, None, Values("threshold"))[:].flatten().tolist() == [0, 0, 1, 1]
    draws = Values("dynamic")(stored.expand(4, 40_000)).mean(1)
    assert draws[0] == 0
    assert draws[3] == 1
    assert abs(draws[1] - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 40_000)


def test_dynamic_draws_are_fresh_have_the_right_mean_and_follow_the_seed() -> None:
    split = byte_split(Values("dynamic"))
    torch.manual_seed(1)
    first, second = split[:], split[:]
    torch.manual_seed(1)
    assert torch.equal(split[:], first)
    assert not torch.equal(first, second)
    n = 4000
    mean = torch.stack([split[:] for _ in range(n)]).double().mean(0)[:, 0]
    p = torch.arange(256).double() / 255
    error = (p * (1 - p) / n).sqrt()
    assert ((mean - p).abs() <= 4 * error).all()
    z = ((mean - p) / error)[1:-1]
    assert abs(z.mean()) < 4 / math.sqrt(254)  # no common bias, such as s/256 for s/255


def test_frozen_is_one_draw_that_neither_reads_nor_moves_the_global_generator() -> None:
    split = byte_split(Values("dynamic"))
    state = torch.get_rng_state()
    frozen = split.frozen(3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(frozen[:], split.frozen(3)[:])
    assert torch.equal(frozen[:], frozen[:])
    assert torch.equal(torch.cat([frozen[i : i + 1] for i in range(256)]), frozen[:])
    assert not torch.equal(frozen[:], split.frozen(4)[:])
    assert (frozen.values.kind, frozen.values.levels, frozen.stored.dtype) == ("threshold", 2, torch.uint8)
    assert frozen[[0]].item() == 0
    assert frozen[[255]].item() == 1


def test_a_black_pixel_never_lights_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.rand may return 0 itself, once in 2²⁴ draws: three pixels of every epoch of MNIST."""
    monkeypatch.setattr(torch, "rand", lambda size, **_: torch.zeros(size))
    split = byte_split(Values("dynamic"))
    for x in (split[:], split.frozen()[:]):
        assert x[:2, 0].tolist() == [0, 1]


def test_frozen_has_the_right_mean_across_blocks() -> None:
    stored = torch.full((10_000, 10), 64, dtype=torch.uint8)
    bits = Split(stored, None, Values("dynamic")).frozen().stored
    p = 64 / 255
    assert abs(bits.double().mean() - p) < 4 * math.sqrt(p * (1 - p) / 100_000)
    assert not torch.equal(bits[:4096], bits[4096:8192])


def test_only_dynamic_values_change_when_frozen() -> None:
    split = byte_split(Values("levels"))
    assert split.frozen() is split


def test_standardized_rows_have_mean_zero_and_std_one_and_constants_become_zero() -> None:
    stored = torch.randn(9000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 30.0, 0.0]) + 0.1
    x = Split(stored, None, Values("standardized").fitted(stored))[:].double()
    assert x[:, :2].mean(0).abs().max() < 1e-5
    assert (x[:, :2].std(0, correction=0) - 1).abs().max() < 1e-5
    assert x[:, 2].abs().max() < 1e-6
    with pytest.raises(DataError, match=r"need a mean and a std"):
        Values("standardized")(stored)


# Splits and data sets


def test_indexing_by_tensor_slice_and_list_agrees() -> None:
    split = byte_split(Values("raw"))
    for index in (torch.tensor([3, 4, 5]), slice(3, 6), [3, 4, 5]):
        assert split[index].flatten().tolist() == [3, 4, 5]
    assert split[torch.tensor([7, 7])].shape == (2, 1)


def test_take_shape_length_and_repr() -> None:
    split = Split(torch.zeros(5, 1, 2, 3), torch.arange(5), Values("grey", divisor=1.0))
    assert (len(split), split.shape, len(split.take(2)), len(split.take(9))) == (5, (1, 2, 3), 2, 5)
    assert split.take(2).labels.tolist() == [0, 1]
    assert repr(split) == "Split(5 of (1, 2, 3), grey from float32, with labels, on cpu)"


def test_split_to_moves_everything() -> None:
    stored = torch.randn(4, 2)
    values = Values("standardized").fitted(stored)
    moved = Split(stored, torch.arange(4), values).to("meta")
    where = (moved.stored, moved.labels, moved.values.mean, moved.values.std)
    assert {tensor.device.type for tensor in where} == {"meta"}


@pytest.mark.parametrize(
    ("stored", "labels", "error", "words"),
    [
        (torch.zeros(3, 2, dtype=torch.float64), None, DataError, "uint8 or float32, not torch.float64"),
        (torch.zeros(3, 2), torch.zeros(3), DataError, "labels must be int64, not torch.float32"),
        (torch.zeros(3, 2), torch.arange(4), ShapeError, r"3 rows need labels of shape \(3,\), not \(4,\)"),
    ],
)
def test_split_refuses(stored: torch.Tensor, labels: torch.Tensor | None, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Split(stored, labels)


def test_dataset_freezes_validation_and_test_but_not_train() -> None:
    split = byte_split(Values("dynamic"))
    data = Dataset("bytes", split, split, split)
    kinds = [part.values.kind for part in (data.train, data.validation, data.test)]
    assert kinds == ["dynamic", "threshold", "threshold"]
    assert (data.support, data.shape) == ("binary", (1,))
    assert torch.equal(data.to("cpu").test.stored, data.test.stored)


def test_dataset_refuses_parts_of_different_shape() -> None:
    a, b = Split(torch.zeros(3, 2)), Split(torch.zeros(3, 4))
    with pytest.raises(ShapeError, match=r"odd: a test row is \(4,\), but a train row is \(2,\)"):
        Dataset("odd", a, a, b)


# Known sources


def row_numbers(data: Dataset, rows: np.ndarray) -> list[list[int]]:
    """Which rows of a source the parts hold; rows (N, ...) must be distinct."""
    place = {row.tobytes(): i for i, row in enumerate(rows)}
    return [[place[row.numpy().tobytes()] for row in part.stored] for part in (data.train, data.validation, data.test)]


def test_digits_are_cut_into_disjoint_covering_parts_by_the_seed() -> None:
    data, again, other = load_data("digits"), load_data("digits"), load_data("digits", seed=1)
    assert (len(data.train), len(data.validation), len(data.test), data.shape) == (1197, 300, 300, (1, 8, 8))
    assert torch.equal(data.train.stored, again.train.stored)
    assert torch.equal(data.test.stored, again.test.stored)
    assert not torch.equal(data.train.stored, other.train.stored)
    grey = load_data("digits", values="grey")
    x, y = load_digits(return_X_y=True)
    parts = row_numbers(grey, x.astype(np.uint8).reshape(-1, 1, 8, 8))
    assert sorted(i for part in parts for i in part) == list(range(1797))
    assert np.array_equal(grey.train.labels.numpy(), y[parts[0]])
    assert grey.train[:].max() == 1


def test_digits_are_the_same_where_scikit_learn_keeps_them_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data("digits")
    monkeypatch.setattr(readers, "find_spec", lambda name: None)
    other = load_data("digits")
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(data, part).stored, getattr(other, part).stored)
        assert torch.equal(getattr(data, part).labels, getattr(other, part).labels)


def test_digits_have_seventeen_levels_by_default() -> None:
    data = load_data("digits")
    assert (data.recipe, data.train.values.kind, data.train.values.levels) == ("digits", "levels", 17)
    torch.testing.assert_close(data.train[:].double() * 16, data.train.stored.double())


def test_dynamic_digits_have_the_grey_levels_as_their_mean() -> None:
    data = load_data("digits", values="dynamic")
    mean = data.train[:].mean()
    assert abs(mean - data.train.stored.double().mean() / 16) < 4 * math.sqrt(0.25 / data.train.stored.numel())


def plain_mnist(part: str, folder: str) -> tuple[np.ndarray, np.ndarray]:
    """An independent reading of the idx files."""
    with gzip.open(DATA / folder / f"{part}-images-idx3-ubyte.gz") as file:
        x = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 28, 28)
    with gzip.open(DATA / folder / f"{part}-labels-idx1-ubyte.gz") as file:
        return x, np.frombuffer(file.read()[8:], np.uint8)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_and_fashion_are_the_files_rows(name: str) -> None:
    folder = name.replace("-", "_")
    base = local(folder, "train-images-idx3-ubyte.gz")
    data = load_data(name, data_dir=base, download=False)
    (x, y), (x_test, y_test) = plain_mnist("train", folder), plain_mnist("t10k", folder)
    assert (len(data.train), len(data.validation), len(data.test)) == (50_000, 10_000, 10_000)
    assert np.array_equal(data.train.stored[:, 0].numpy(), x[:50_000])
    assert np.array_equal(data.validation.stored[:, 0].numpy(), x[50_000:])
    assert np.array_equal(data.test.stored[:, 0].numpy(), x_test)
    assert np.array_equal(data.validation.labels.numpy(), y[50_000:])
    assert np.array_equal(data.test.labels.numpy(), y_test)
    assert data.train[:1000].mean().item() == pytest.approx(x[:1000].mean() / 255, abs=1e-6)
    if name == "mnist":
        assert y[:5].tolist() == [5, 0, 4, 1, 9]
        assert data.train.stored.double().mean().item() == pytest.approx(x[:50_000].mean(), rel=1e-12)
        whole = torch.cat([data.train.stored, data.validation.stored]).double().mean().item() / 255
        assert whole == pytest.approx(0.1307, abs=5e-5)  # the mean by which everybody normalizes MNIST


def frey_baseline(data: Dataset) -> tuple[float, float]:
    """Mean log-density, nats, of train and test under one independent Gaussian per pixel, fitted to train by ML."""
    train, test = data.train[:].double().flatten(1), data.test[:].double().flatten(1)
    gaussian = torch.distributions.Normal(train.mean(0), train.std(0, correction=0))
    return tuple(gaussian.log_prob(x).sum(1).mean().item() for x in (train, test))


def test_frey_baseline_is_the_plateau_of_the_2013_papers_figure() -> None:
    """Wake-sleep in Figure 2 of arXiv 1312.6114 stays at 578.6 (train) and 569.3 (test): 560 independent Gaussians.

    The number fixes the divisor (255 gives 576.4), the counts and the shuffle (other seeds: 577.4 ± 2.1, test 575 ± 9).
    """
    base = local("frey", "frey_faces.npy")
    data = load_data("frey", data_dir=base, download=False)
    train, test = frey_baseline(data)
    assert train == pytest.approx(578.6, abs=0.5)
    assert test == pytest.approx(569.3, abs=3)
    assert (len(data.train), len(data.validation), len(data.test), data.shape) == (1600, 0, 365, (1, 28, 20))
    assert data.validation[:].shape == (0, 1, 28, 20)


def test_frey_parts_are_disjoint_and_validation_comes_from_train() -> None:
    base = local("frey", "frey_faces.npy")
    faces = np.load(base / "frey" / "frey_faces.npy").reshape(-1, 1, 28, 20)
    data = load_data("frey", data_dir=base / "frey", validation=0.1, download=False)
    parts = row_numbers(data, faces)
    assert [len(part) for part in parts] == [1440, 160, 365]
    assert sorted(i for part in parts for i in part) == list(range(1965))
    assert torch.equal(data.test.stored, load_data("frey", data_dir=base, download=False).test.stored)


def test_a_damaged_local_frey_file_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "frey_faces.npy", np.zeros((1965, 28, 20), np.uint8))
    with pytest.raises(DataError, match=r"frey_faces.npy does not hold the Frey faces: expected sha256 2438b.*got "):
        load_data("frey", data_dir=tmp_path, download=False)
    (tmp_path / "frey_faces.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"frey_faces.npy cannot be read as arrays"):
        load_data("frey", data_dir=tmp_path, download=False)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1e-9])
def test_validation_must_be_a_share(share: float) -> None:
    base = local("frey", "frey_faces.npy")
    with pytest.raises(DataError, match=r"must be a share between 0 and 1"):
        load_data("frey", data_dir=base, validation=share, download=False)


def test_validation_is_refused_where_there_is_one() -> None:
    with pytest.raises(DataError, match=r"digits has a validation split of its own \(300 rows\): leave it out"):
        load_data("digits", validation=0.1)


def test_every_source_says_what_it_is() -> None:
    recipes = {name: (source.recipe, source.values.kind) for name, source in SOURCES.items()}
    assert recipes == {
        "digits": ("digits", "levels"),
        "mnist": ("mnist", "grey"),
        "fashion-mnist": ("mnist", "grey"),
        "frey": ("aevb-frey", "grey"),
        "omniglot": ("bernoulli", "threshold"),
        "caltech-silhouettes": ("bernoulli", "threshold"),
        "sprites": ("bernoulli", "threshold"),
    }
    for name, source in SOURCES.items():
        assert source.name == name
        assert all((source.title, source.description, source.licence, source.citation))
    assert SOURCES["frey"].values.divisor == 256
    assert SOURCES["omniglot"].counts == (24345 - 1345, 1345, 8070)
    assert "No checksum" in SOURCES["caltech-silhouettes"].description


def test_the_shuffle_of_a_seed_never_changes() -> None:
    assert permutation(8, 0).tolist() == [6, 2, 1, 7, 3, 0, 5, 4]
    assert sorted(permutation(100, 5)) == list(range(100))


# Formats


def test_matlab_pixels_are_column_major() -> None:
    image = np.zeros((28, 28))
    image[3, 20] = 1  # row 3, column 20
    x = matlab_images(image.flatten(order="F")[None])
    assert x.shape == (1, 1, 28, 28)
    assert np.argwhere(x[0, 0]).tolist() == [[3, 20]]


def test_omniglot_is_read_from_matlab(tmp_path: Path) -> None:
    data, test = (np.random.default_rng(i).integers(0, 2, (784, n)).astype(float) for i, n in enumerate((30, 8)))
    scipy.io.savemat(tmp_path / "chardata.mat", {"data": data, "testdata": test})
    parts = read_omniglot(tmp_path / "chardata.mat", 5, seed=0)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [25, 5, 8]
    assert np.array_equal(parts.test.x, matlab_images(test.T))
    both = np.concatenate([parts.train.x, parts.validation.x]).reshape(30, -1)
    assert {row.tobytes() for row in both} == {row.tobytes() for row in matlab_images(data.T)}


def silhouettes(path: Path) -> None:
    """A small file like Marlin's: object 0, background 1, labels from 1."""
    x = np.ones((4, 784), np.uint8)
    x[:, 0] = 0
    parts, y = ("train", "val", "test"), np.array([[1], [2], [101], [3]])
    scipy.io.savemat(path, {f"{part}_data": x for part in parts} | {f"{part}_labels": y for part in parts})


def test_silhouettes_are_inverted_and_labels_start_at_zero(tmp_path: Path) -> None:
    silhouettes(tmp_path / "c.mat")
    parts = read_silhouettes(tmp_path / "c.mat")
    assert parts.train.x[0].sum() == 1
    assert parts.train.x[0, 0, 0, 0] == 1
    assert parts.validation.labels.tolist() == [0, 1, 100, 2]


def test_a_file_with_other_counts_is_not_the_published_one(tmp_path: Path) -> None:
    silhouettes(tmp_path / SOURCES["caltech-silhouettes"].files[0].name)
    with pytest.raises(DataError, match=r"caltech-.*: the files hold \(4, 4, 4\) rows .* not \(4100, 2264, 2307"):
        load_data("caltech-silhouettes", data_dir=tmp_path, download=False)


def test_a_damaged_matlab_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.mat").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 9)
    with pytest.raises(
        DataError, match=r"c.mat cannot be read as a MATLAB file with a, b: .*remove it to have it down"
    ):
        read_mat(tmp_path / "c.mat", ("a", "b"))
    scipy.io.savemat(tmp_path / "c.mat", {"a": np.zeros(3)})
    with pytest.raises(DataError, match=r"with a, b: it holds no b\. Replace it"):
        read_mat(tmp_path / "c.mat", ("a", "b"))


def idx(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_idx_files_are_read_and_damage_is_named(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    whole = gzip.compress(bytes([0, 0, 8, 3]) + np.array(x.shape, ">i4").tobytes() + x.tobytes())
    assert np.array_equal(read_idx(idx(tmp_path / "x.gz", whole)), x)
    short = gzip.compress(bytes([0, 0, 8, 3]) + np.array(x.shape, ">i4").tobytes() + x.tobytes()[:-1])
    for bad in (whole[:-12], whole[:5], b"<html>not found</html>", b"", short, gzip.compress(b"\0")):
        with pytest.raises(DataError, match=r"bad.gz cannot be read as an idx file: "):
            read_idx(idx(tmp_path / "bad.gz", bad))


PYTHON_2_PICKLE = (
    b"(lp0\ncnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntp3\nS'b'\np4\ntp5\nRp6\n"
    b"(I1\n(I2\nI3\ntp7\ncnumpy\ndtype\np8\n(S'u1'\np9\nI0\nI1\ntp10\nRp11\n(I3\nS'|'\np12\nNNNI-1\nI-1\nI0\n"
    b"tp13\nbI00\nS'\\x00\\x01\\x02\\x03\\xfe\\xff'\np14\ntp15\nba."
)


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("attacked",)


def test_pickled_arrays_are_read_and_nothing_else_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "faces.pkl"
    path.write_bytes(PYTHON_2_PICKLE)
    assert read_pickled_array(path).tolist() == [[0, 1, 2], [3, 254, 255]]
    for protocol in (0, 2):
        path.write_bytes(pickle.dumps([np.arange(6, dtype=np.uint8)], protocol=protocol))
        assert read_pickled_array(path).tolist() == [0, 1, 2, 3, 4, 5]
    for content, words in [
        (pickle.dumps(Attack()), "mkdir is not allowed in a pickle of arrays"),
        (pickle.dumps({"x": 1}), "it holds dict"),
        (b"nonsense", "faces.pkl cannot be read as a pickled array"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_pickled_array(path)
    assert not (tmp_path / "attacked").exists()


def forged(kind: bytes, state: bytes, content: bytes = b"S'\\x41\\x41\\x41\\x41\\x41\\x41\\x41\\x41'\n") -> bytes:
    """A pickle like `PYTHON_2_PICKLE` of one number, with another dtype and another state of it."""
    array = b"(lp0\ncnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntp3\nS'b'\np4\ntp5\nRp6\n"
    array += b"(I1\n(I1\ntp7\n"
    return (
        array
        + b"cnumpy\ndtype\np8\n(S'"
        + kind
        + b"'\nI0\nI1\ntp10\nRp11\n"
        + state
        + b"bI00\n"
        + content
        + b"tbtp15\nba."
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        # an object field with its flag cleared: the bytes of the array would be taken for pointers
        (
            forged(b"V8", b"(I3\nS'|'\nN(S'a'\nt(dS'a'\n(cnumpy\ndtype\n(S'O'\nI0\nI1\ntRI0\ntsI8\nI1\nI0\nt"),
            r"numpy.dtype\('V8'\) is not a type of numbers",
        ),
        (forged(b"O8", b"(I3\nS'|'\nNNNI-1\nI-1\nI63\nt"), r"numpy.dtype\('O8'\) is not a type of numbers"),
        (forged(b"u8", b"(I3\nS'<'\nN(S'a'\nt(dI-1\nI-1\nI0\nt"), "the state of its dtype"),
        (b"cnumpy\ndtype\n(dS'dtype'\nI1\nsb.", "gives a state to what has none"),
        (b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.", "the codec 'rot13'"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.", "an array of another class"),
        (b"\x80\x02]q\x00h\x00a.", "it holds list"),  # a list in itself
        (b"(I" + b"9" * 5000 + b"\n.", "cannot be read as a pickled array"),
        (PYTHON_2_PICKLE.replace(b"I3\ntp7", b"I4\ntp7"), "cannot reshape"),
    ],
)
def test_forged_pickles_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "faces.pkl").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_pickled_array(tmp_path / "faces.pkl")


def test_damaged_pickles_never_end_in_a_traceback(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path, told = tmp_path / "faces.pkl", []
    for _ in range(300):
        content = bytearray(PYTHON_2_PICKLE)
        content[random.integers(0, len(content))] = random.integers(0, 256)
        path.write_bytes(content)
        with contextlib.suppress(DataError):
            told.append(read_pickled_array(path).dtype.name)
    assert 2 < len(told) < 295
    assert set(told) <= {"uint8", "int8", "bool"}


def test_a_matlab_file_that_ends_the_reader_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scipy.io.savemat(tmp_path / "c.mat", {"a": np.arange(3.0), "b": np.eye(2)})
    content = read_mat_apart(tmp_path / "c.mat", ("a", "b"))
    assert content["a"].tolist() == [[0, 1, 2]]
    assert content["b"].tolist() == [[1, 0], [0, 1]]
    with pytest.raises(DataError, match=r"c.mat cannot be read as a MATLAB file with z: it holds no z\. Replace it"):
        read_mat_apart(tmp_path / "c.mat", ("z",))
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -SEGV $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(DataError, match=r"with a: SciPy's reader failed on it\. Replace it"):
        read_mat_apart(tmp_path / "c.mat", ("a",))


# Arrays


def test_float_tables_are_standardized_by_the_train_rows(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(5, 3, (50, 4))
    np.save(tmp_path / "table.npy", x)
    data = load_data(tmp_path / "table.npy")
    assert (data.name, data.recipe, data.support) == ("table", "gaussian", "real")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [40, 5, 5]
    order = permutation(50, 0)
    np.testing.assert_allclose(data.train.values.mean, x[order[:40]].mean(0), rtol=1e-5)
    np.testing.assert_allclose(data.train.values.std, x[order[:40]].std(0), rtol=1e-5)
    expected = (x[order[45:]] - x[order[:40]].mean(0)) / x[order[:40]].std(0)
    np.testing.assert_allclose(data.test[:], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("x", "shape", "recipe", "kind"),
    [
        (np.full((10, 5, 6), 9, np.uint8), (1, 5, 6), "conv", "levels"),
        (np.full((10, 5, 6, 3), 9, np.uint8), (3, 5, 6), "conv", "levels"),
        (np.full((10, 5, 6, 4), 9, np.int64), (4, 5, 6), "conv", "levels"),
        (np.full((10, 3, 5, 6), 9, np.uint8), (3, 5, 6), "conv", "levels"),
        (np.arange(20.0).reshape(10, 2) % 2, (2,), "bernoulli", "threshold"),
        (np.ones((10, 5, 6), bool), (1, 5, 6), "bernoulli", "threshold"),
        (np.full((10, 5), 9, np.uint8), (5,), "gaussian", "standardized"),
        (np.full((10, 5), -9), (5,), "gaussian", "standardized"),
        (np.full((10, 5, 6), 0.5), (1, 5, 6), "gaussian", "standardized"),
    ],
)
def test_what_an_array_is_taken_for(x: np.ndarray, shape: tuple[int, ...], recipe: str, kind: str) -> None:
    data = array_dataset(x)
    assert (data.shape, data.recipe, data.train.values.kind) == (shape, recipe, kind)
    assert data.train[:2].shape == (2, *shape)
    if kind == "threshold":
        assert (data.train.values.levels, data.train.stored.dtype) == (2, torch.uint8)
        assert torch.equal(data.train[:], data.train.stored.float())


def test_channels_move_with_their_pixels() -> None:
    x = np.random.default_rng(0).integers(0, 256, (12, 5, 6, 3), np.uint8)
    data = array_dataset(x)
    assert np.array_equal(data.train.stored.numpy(), x[permutation(12, 0)[:10]].transpose(0, 3, 1, 2))


def test_floats_in_the_unit_interval_may_be_grey_or_dynamic_but_not_levels() -> None:
    x = np.random.default_rng(0).uniform(size=(30, 2))
    grey = array_dataset(x, values="grey")
    assert torch.equal(grey.train[:], grey.train.stored)
    assert array_dataset(x, values="dynamic").train[:].unique().tolist() == [0, 1]
    with pytest.raises(DataError, match=r"values='levels' does not fit float64 numbers from .* to .*Possible: dynamic"):
        array_dataset(x, values="levels")


@pytest.mark.parametrize("kind", ["dynamic", "grey", "threshold", "levels", "gray"])
def test_values_that_do_not_fit_real_numbers_are_refused(kind: str) -> None:
    x = np.random.default_rng(0).normal(size=(30, 2))
    with pytest.raises(DataError, match=f"values='{kind}' does not fit.* Possible: raw, standardized"):
        array_dataset(x, values=kind)


def test_a_misspelt_kind_gets_a_suggestion() -> None:
    with pytest.raises(DataError, match=r"digits: values='gray' .*Did you mean 'grey'"):
        load_data("digits", values="gray")


def test_npz_with_rows_and_labels(tmp_path: Path) -> None:
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20)
    np.savez(tmp_path / "a.npz", X=x, y=y)
    data = load_data(str(tmp_path / "a.npz"))
    assert np.array_equal(data.train.stored[:, 0].numpy(), 2 * data.train.labels.numpy())
    np.savez(tmp_path / "b.npz", pixels=x)
    assert load_data(tmp_path / "b.npz").train.labels is None
    np.savez(tmp_path / "c.npz", images=x, labels=np.array(["cat", "ant"])[y % 2])
    data = load_data(tmp_path / "c.npz")
    assert data.class_names == ("ant", "cat")
    assert np.array_equal(data.test.labels.numpy(), 1 - data.test.stored[:, 0].numpy() / 2 % 2)


def test_npz_that_is_split_already(tmp_path: Path) -> None:
    x = np.arange(80.0).reshape(40, 2)
    np.savez(tmp_path / "a.npz", x_train=x[:30], y_train=np.arange(30), x_test=x[30:], y_test=np.arange(30, 40))
    data = load_data(tmp_path / "a.npz", seed=7)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [27, 3, 10]
    order = permutation(30, 7)  # sorted rows would else make the last classes of train the validation split
    assert np.array_equal(torch.cat([data.train.stored, data.validation.stored]).numpy(), x[order])
    assert np.array_equal(torch.cat([data.train.labels, data.validation.labels]).numpy(), order)
    assert np.array_equal(data.test.stored.numpy(), x[30:])
    np.testing.assert_allclose(data.train.values.mean, x[order[:27]].mean(0))
    np.savez(tmp_path / "b.npz", x_train=x[:30], x_val=x[30:34], x_test=x[34:])
    data = load_data(tmp_path / "b.npz")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [30, 4, 6]
    np.savez(tmp_path / "c.npz", x_train=x[:30], x_test=x[30:, :1])
    with pytest.raises(DataError, match=r"c.npz: the splits differ in the shape of a row"):
        load_data(tmp_path / "c.npz")


def test_real_tables_load() -> None:
    base = local("adbench", "38_thyroid.npz")
    data = load_data(base / "adbench" / "38_thyroid.npz")
    assert (len(data.train), data.shape, data.recipe) == (3772 - 2 * 377, (6,), "gaussian")
    assert sum((part.labels == 1).sum().item() for part in (data.train, data.validation, data.test)) == 93


def test_numbers_that_are_not_finite_are_counted_and_placed() -> None:
    x = np.zeros((100, 3))
    x[[4, 7, 9], 0], x[7, 2] = np.nan, np.inf
    words = (
        r"table: 4 values in 3 of 100 rows are NaN \(3\) or infinite \(1\); .* are 4, 7, 9, counted .* Fill or remove"
    )
    with pytest.raises(DataError, match=words):
        array_dataset(x, name="table")
    x[20:, 1] = 1e300
    words = r"84 values in 83 of 100 rows are NaN \(3\) or infinite \(1\) or too large for float32 \(80\); .* 20, 21, "
    with pytest.raises(DataError, match=words):
        array_dataset(x)


def test_numbers_that_are_too_large_are_not_called_infinite() -> None:
    x = np.zeros((100, 3))
    x[40, 1] = -1e300
    with pytest.raises(DataError, match=r"^array: 1 values in 1 of 100 rows are too large for float32; .* Divide them"):
        array_dataset(x)


def test_rows_that_are_not_finite_are_counted_in_all_pieces() -> None:
    x = np.zeros((3_000_000, 2), np.float32)
    x[::1_000_000] = np.nan
    with pytest.raises(
        DataError, match=r"6 values in 3 of 3,000,000 rows are NaN; .* are 0, 1000000, 2000000, counted"
    ):
        array_dataset(x)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros(9), r"array has shape \(9,\); rows × columns or images"),
        (np.float64(3), r"array has shape \(\); rows"),
        (np.zeros((9, 0)), r"array has shape \(9, 0\); rows"),
        (np.zeros((2, 4)), "array has 2 rows; at least 3 are needed"),
        (np.array([["a"], ["b"], ["c"]]), "array holds <U1 and not numbers"),
        (np.zeros((4, 4), complex), "array holds complex128 and not numbers"),
    ],
)
def test_arrays_that_are_no_data_are_refused(x: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        array_dataset(x)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.zeros(9), r"the labels have shape \(9,\); 10 rows need \(10,\)"),
        (np.zeros((10, 2)), r"the labels have shape \(10, 2\)"),
        (np.full(10, 0.5), r"the labels \(float64\) are not whole numbers or words"),
        (np.full(10, np.nan), "are not whole numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(y: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        array_dataset(np.zeros((10, 2)), y)


def test_array_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([[1], "a"], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "object.npz", x=np.array([[1], "a"], dtype=object))
    np.save(tmp_path / "short.npy", np.zeros((9, 9)))
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-5])
    (tmp_path / "text.npy").write_text("1,2,3")
    np.savez(tmp_path / "cut.npz", x=np.zeros((9, 9)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-40])
    for name in ("object.npy", "object.npz", "short.npy", "text.npy", "cut.npz"):
        with pytest.raises(DataError, match=f"{name} cannot be read as arrays of numbers: "):
            load_data(tmp_path / name)
    np.savez(tmp_path / "two.npz", a=np.zeros((9, 9)), b=np.zeros((9, 9)))
    with pytest.raises(DataError, match=r"two.npz holds the arrays a, b: name the one with the rows x"):
        load_data(tmp_path / "two.npz")


# Names and paths


def test_unknown_names_get_the_nearest_and_the_other_ways(tmp_path: Path) -> None:
    words = r"no data set, file or folder 'mnits'. Did you mean 'mnist'.*Possible: .*\.npy or \.npz.*folder.*\.zip"
    with pytest.raises(DataError, match=words):
        load_data("mnits")
    with pytest.raises(DataError, match=r"Did you mean 'fashion-mnist'"):
        load_data("Fashion_MNIST")
    (tmp_path / "t.xlsx").write_text("")
    with pytest.raises(DataError, match=r"t.xlsx is a .xlsx file; a table .*\.csv.*, a .npy, .npz or .zip"):
        load_data(tmp_path / "t.xlsx")


# Images


def picture(path: Path, size: tuple[int, int] = (6, 4), mode: str = "L", value: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (value, *range(1, 4)) if mode in ("RGB", "RGBA") else value
    Image.new(mode, size, colour[: len(mode)] if isinstance(colour, tuple) else colour).save(path)
    return path


def test_a_folder_of_real_images() -> None:
    base = local("cifar10_images", "0000.png") / "cifar10_images"
    data = load_data(base)
    assert (data.name, data.shape, data.recipe, data.train.values.kind) == (
        "cifar10_images",
        (3, 32, 32),
        "conv",
        "levels",
    )
    files = sorted(base.glob("*.png"))
    first = np.asarray(Image.open(files[permutation(len(files), 0)[0]])).transpose(2, 0, 1)
    assert np.array_equal(data.train.stored[0].numpy(), first)
    assert sum(map(len, (data.train, data.validation, data.test))) == len(files)


def test_grey_stays_grey_and_a_colour_makes_all_rgb(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / f"{i}.png", value=i)
    data = load_data(tmp_path)
    assert (data.shape, data.train.labels) == ((1, 4, 6), None)
    assert data.train.stored[0].unique().tolist() == [permutation(4, 0)[0]]
    picture(tmp_path / "deeper" / "9.PNG", mode="RGBA", value=200)
    stored = load_data(tmp_path, values="raw")
    rows = torch.cat([part.stored for part in (stored.train, stored.validation, stored.test)])
    assert rows.shape == (5, 3, 4, 6)
    assert sorted(rows[:, 0, 0, 0].tolist()) == [0, 1, 2, 3, 254]
    assert rows[rows[:, 0, 0, 0] == 254][0, :, 1, 1].tolist() == [254, 252, 252]  # alpha 3 of (200, 1, 2), on white


def test_subfolders_name_the_classes_in_a_folder_and_in_a_zip(tmp_path: Path) -> None:
    for i, name in enumerate(("dog", "cat", "cat/black", "dog")):
        picture(tmp_path / "pictures" / name / f"{i}.bmp", value=10 if "cat" in name else 20)
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for path in (tmp_path / "pictures").rglob("*.bmp"):
            archive.write(path, path.relative_to(tmp_path))
        archive.writestr("__MACOSX/pictures/._0.bmp", b"resource fork")
        archive.writestr("readme.txt", "no image")
    for place in ("pictures", "p.zip"):
        data = load_data(tmp_path / place)
        assert data.class_names == ("cat", "dog")
        assert (data.train.stored[:, 0, 0, 0] == 10 + 10 * data.train.labels).all()
    assert load_data(tmp_path / "p.zip").name == "p"
    picture(tmp_path / "pictures" / "loose.bmp")
    assert load_data(tmp_path / "pictures").train.labels is None


def test_image_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no images \(\.png, .*nor do its subfolders"):
        load_data(tmp_path)
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"has 2 rows; at least 3"):
        load_data(tmp_path)
    odd = picture(tmp_path / "c.png", size=(5, 4))
    with pytest.raises(DataError, match=r"c.png is 5×4 pixels, but a.png is 6×4 \(width × height\).* resize or crop"):
        load_data(tmp_path)
    odd.write_bytes(b"no png at all")
    with pytest.raises(
        DataError, match=r"c.png cannot be read as an image: it does not begin like an image.*\. Repair or remove it"
    ):
        load_data(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6), np.uint8)).save(odd)
    odd.write_bytes(odd.read_bytes()[:50])
    with pytest.raises(DataError, match=r"c.png cannot be read as an image"):
        load_data(tmp_path)
    Image.fromarray(np.full((4, 6), 999, np.uint16)).save(odd)
    with pytest.raises(DataError, match=r"c.png has more than 8 bits a channel"):
        load_data(tmp_path)


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/evil.png", "C:/evil.png", "..\\evil.png"])
def test_a_zip_whose_member_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr(name, picture(tmp_path / "a.png").read_bytes())
    with pytest.raises(DataError, match=r"the member '.*evil\.png' is a link or points out of the archive"):
        load_data(tmp_path / "p.zip")


def test_a_zip_with_a_link_or_broken_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"the member 'link.png' is a link"):
        load_data(tmp_path / "p.zip")
    (tmp_path / "p.zip").write_bytes(b"PK broken")
    with pytest.raises(DataError, match=r"p.zip cannot be read as a .zip"):
        load_data(tmp_path / "p.zip")


def test_rows_that_do_not_fit_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same batches, whether a split is moved whole or batch by batch."""
    rows = torch.arange(600, dtype=torch.uint8).remainder(17).reshape(100, 6)
    split, index = Split(rows, None, Values("levels", levels=17)), torch.tensor([3, 99, 3, 0])
    assert isinstance(placed(split, "cpu"), Split)
    monkeypatch.setattr(dataset, "free_memory", lambda device: 1199.0)
    streamed = placed(split, "cpu")
    assert isinstance(streamed, Streamed)
    assert len(streamed) == 100
    assert torch.equal(streamed[index], split[index])
    monkeypatch.setattr(dataset, "free_memory", lambda device: 1200.0)
    assert isinstance(placed(split, "cpu"), Split)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([[[1.0, np.nan]]] * 5), "5 values in 5 of 5 rows are NaN"),
        (np.zeros(5), r"has shape \(5,\)"),
        (np.zeros((2, 3)), "has 2 rows; at least 3 are needed"),
    ],
)
def test_errors_about_a_file_name_its_path(x: np.ndarray, message: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "table.npy"
    path.parent.mkdir()
    np.save(path, x)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}:? {message}"):
        load_data(path)
