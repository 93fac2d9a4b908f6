"""The data sets known by name, and `load_data`, which takes such a name or a path to one's own data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aevb.data.addresses import reaching
from aevb.data.arrays import Reading, array_dataset, choose_values, load_array
from aevb.data.damage import reading, reason
from aevb.data.dataset import Dataset
from aevb.data.endings import is_frame, is_table
from aevb.data.facts import Holes
from aevb.data.fetch import File, Store
from aevb.data.forms import gathered
from aevb.data.images import few, load_images
from aevb.data.npfiles import arrays_in
from aevb.data.pictures import Fit
from aevb.data.pieces import Array
from aevb.data.readers import matlab_images, read_digits, read_idx, read_mat, read_mat_apart, read_pickled_array
from aevb.data.splits import Parts, Rows, divide, hold_out, numbered, tenths
from aevb.data.sprites import SHAPES, sprites
from aevb.data.tabular import dataset_name, load_table, numbers_of
from aevb.data.values import Values
from aevb.errors import DataError, suggest

Counts = tuple[int, int, int]
BINARY = Values("threshold", levels=2, divisor=1.0)
FREY_BYTES = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"


@dataclass(frozen=True)
class Source:
    """A data set known by name: what it is, how to read it, what to do with it by default.

    `counts` are the rows of train, validation and test, which `load(store, seed)` gives. `values` is the default
    meaning of the numbers, and `recipe` the default recipe. `shuffled`: whether the seed makes the splits.
    """

    name: str
    title: str
    description: str
    shape: tuple[int, ...]
    counts: Counts
    values: Values
    recipe: str
    licence: str
    citation: str
    load: Callable[[Store, int], Parts]
    class_names: tuple[str, ...] | None = None
    files: tuple[File, ...] = ()
    shuffled: bool = False


@reaching
def load_data(
    source: Any,
    *,
    values: str | None = None,
    axes: str | None = None,
    size: int | None = None,
    crop: str | None = None,
    data_dir: str | Path | None = None,
    seed: int = 0,
    download: bool = True,
    validation: float | None = None,
    columns: Mapping[str, str] | None = None,
) -> Dataset:
    """Load a data set by its name (see `SOURCES`), from a file, a folder, a frame or an array.

    Files are tables (.csv and other text, .parquet, .h5ad), arrays (.npy, .npz) or a .zip of images; a folder holds
    images, or Parquet files.

    Args:
        source: a name, a path, an address such as s3://bucket/table.parquet, or an array or a tensor (N, ...), which
            is split as a file is. Numbers (N, F) of which some are NaN are a table with holes. A data set of PyTorch
            or a `DataLoader` is read as a whole; its items are x, (x,) or (x, label). A frame of pandas, polars or
            Arrow, or a dict of columns, is a table.
        values: what the numbers mean, if not the default: a kind of `Values`.
        axes: where the channels of an array of images are, if that is ambiguous: "first", "last" or "none".
        size: the side, in pixels, of the squares to which a folder or a .zip of images is resized.
        crop: how: "centre" takes the middle square of each image, "stretch" all of it; None takes only squares.
        data_dir: a folder with files that were fetched before, searched first; else the environment variable AEVB_DATA.
        seed: of the shuffle that makes the splits, where there are no official ones.
        download: whether files that are not here may be downloaded.
        validation: a share of train to hold out, for a source that has no validation rows (frey).
        columns: the kinds of columns of a table that should not be guessed, such as {"age": "count"}.

    Raises:
        DataError: unknown name, missing or damaged files, numbers that are not finite, `values` that do not fit the
            numbers, images of several sizes without `size`, or too little memory.
    """
    how, kind = Reading(values, axes, seed), _read_as(source, values, bool(columns))
    if kind == "table":
        return _shuffled(_without_share(_table(source, how, columns), validation), seed)
    _check_options(source, kind, axes, size)
    if columns:
        raise DataError(f"{_called(source)}: kinds of columns are for tables, such as .csv. Leave them out.")
    if kind == "published":
        data = _published(SOURCES[source], Store(source, data_dir, download), values, seed, validation)
        return _shuffled(data, seed) if SOURCES[source].shuffled else data
    try:
        data = _own(Path(source).expanduser(), Fit(size, crop), how) if _is_path(source) else _array(source, how)
    except Holes:
        if values is not None or not _may_have_holes(source):
            raise
        data = _table(source, how, columns)
    return _shuffled(_without_share(data, validation), seed)


def _shuffled(data: Dataset, seed: int) -> Dataset:
    return replace(data, seed=int(seed))


def _may_have_holes(source: Any) -> bool:
    """Whether a source of numbers can be read as a table instead: one array, without labels or splits."""
    return Path(source).suffix.lower() == ".npy" if _is_path(source) else hasattr(source, "ndim")


def _is_path(source: Any) -> bool:
    return isinstance(source, str | os.PathLike)


def _called(source: Any) -> str:
    """What to call a source in messages."""
    return str(source) if _is_path(source) else "array"


def _read_as(source: Any, values: str | None, kinds: bool = False) -> str:
    """«published», «table», «array» or «pictures»: as what a source is read."""
    if is_frame(source):
        return "table"
    if _is_path(source) and source in SOURCES:
        return "published"
    kind = kind_of(str(source)) if _is_path(source) else "array"
    return "table" if kind == "array" and (values == "columns" or (values is None and kinds)) else kind


def _without_share(data: Dataset, validation: float | None) -> Dataset:
    """The data.  DataError where a share to validate was asked of data that have such a split."""
    if validation is not None:
        raise DataError(f"{data.name} has a validation split of its own ({len(data.validation):,} rows): leave it out")
    return data


def _array(source: Any, how: Reading) -> Dataset:
    """An array, a tensor, a data set of PyTorch or a loader."""
    return array_dataset(*gathered(source), **asdict(how))


def _table(source: Any, how: Reading, columns: Mapping[str, str] | None) -> Dataset:
    """A table as its columns say, or one of numbers alone as an array, where the values are to be those of one."""
    source = str(Path(source).expanduser()) if _is_path(source) else source
    if how.values in (None, "columns"):
        return load_table(source, columns, how.seed)
    if columns:
        raise DataError(
            f"{_called(source)}: values={how.values!r} reads numbers without kinds of columns. Leave one out."
        )
    from aevb.data.tables import frame_of, read_frame

    frame = read_frame(source) if _is_path(source) else frame_of(source)
    return array_dataset(numbers_of(frame), name=dataset_name(frame), **asdict(how))


def _check_options(source: Any, kind: str, axes: str | None, size: int | None) -> None:
    """Raise a `DataError` for an option that is for another kind of source."""
    source = _called(source)
    if axes is not None and kind != "array":
        raise DataError(f"{source}: axes={axes!r} is for arrays of images, .npy or .npz; here the channels are known")
    if size is not None and kind != "pictures":
        raise DataError(f"{source}: size={size} is for a folder or a .zip of images")


@reaching
def kind_of(source: str) -> str:
    """«array», «table» or «pictures»: what a path stands for.

    Raises:
        DataError: there is no such thing, or it is a file of another kind.
    """
    path = existing(source)
    ending = path.suffix.lower()
    if is_table(path):
        return "table"
    if path.is_dir() or ending == ".zip":
        return "pictures"
    if ending in (".npy", ".npz"):
        return "array"
    raise DataError(
        f"{source} is a {ending or 'nameless'} file; a table (.csv, .tsv, .parquet, .h5ad), a .npy, .npz or .zip"
        " (of images) file can be read"
    )


def existing(source: str) -> Path:
    """The path of a file or a folder.  DataError where there is none, or none can be."""
    try:
        path = Path(source).expanduser()
        there = path.is_dir() or path.is_file()
    except (OSError, ValueError, RuntimeError) as fault:  # a name too long, with a NUL, or of nobody's home
        raise DataError(f"{few([source])[:200]!r} is not a path: {reason(fault)[:200]}") from fault
    if not there:
        hint = suggest(source.lower().replace("_", "-"), SOURCES)
        raise DataError(
            f"there is no data set, file or folder {source!r}.{hint} A path to a table (.csv, .parquet), a .npy or"
            " .npz file, a folder of images or a .zip of images works too."
        )
    return path


def is_table_at(source: str) -> bool:
    """Whether this is the path of a table, and no name of a data set."""
    return source not in SOURCES and kind_of(source) == "table"


def _published(source: Source, store: Store, values: str | None, seed: int, validation: float | None) -> Dataset:
    parts = source.load(store, seed)
    _check_counts(source, parts)
    if validation is not None:
        parts = hold_out(parts, validation, seed, source.name)
    splits = parts.splits(choose_values(values, source.values, parts.train.x, source.name), source.name)
    about = (source.description, source.citation, source.licence)
    return Dataset(source.name, *splits, source.recipe, source.class_names, *about)


def _check_counts(source: Source, parts: Parts) -> None:
    counts = (len(parts.train), len(parts.validation), len(parts.test))
    if counts != source.counts or parts.train.x.shape[1:] != source.shape:
        raise DataError(
            f"{source.name}: the files hold {counts} rows of {parts.train.x.shape[1:]}, not {source.counts} of"
            f" {source.shape}: they are not the published ones"
        )


def _own(path: Path, fit: Fit, how: Reading) -> Dataset:
    if path.is_file() and path.suffix.lower() != ".zip":
        return load_array(path, **asdict(how))
    images = load_images(path, fit, how.seed)
    train, validation, _ = tenths(len(images.x), str(path))
    rows = Rows(images.x, images.labels, np.array(images.files))
    parts = Parts(rows[:train], rows[train : train + validation], rows[train + validation :])
    name = path.resolve().stem if path.is_file() else path.resolve().name
    splits = parts.splits(choose_values(how.values, Values("levels"), images.x, str(path)), str(path))
    return Dataset(name, *splits, "conv", images.class_names)


# Loaders: (store, seed) -> parts


def _digits(store: Store, seed: int) -> Parts:
    x, y = read_digits()
    return divide(Rows(x.astype(np.uint8).reshape(-1, 1, 8, 8), y.astype(np.int64)), SOURCES["digits"].counts, seed)


def _idx(store: Store, seed: int) -> Parts:
    x, y, x_test, y_test = (read_idx(store.get(file)) for file in SOURCES[store.folder].files)
    train, test = numbered(Rows(x[:, None], y), Rows(x_test[:, None], y_test))
    return Parts(train[:50_000], train[50_000:], test)


def _frey(store: Store, seed: int) -> Parts:
    local = store.find("frey_faces.npy")
    path = local or store.get(SOURCES["frey"].files[0])
    x = only_array(path) if local else read_pickled_array(path)
    got = hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()
    if got != FREY_BYTES:
        raise DataError(f"{path} does not hold the Frey faces: expected sha256 {FREY_BYTES} of the pixels, got {got}")
    return divide(Rows(x.reshape(-1, 1, 28, 20)), SOURCES["frey"].counts, seed)


def only_array(path: Path) -> Array:
    """The array in a file that holds one.  DataError if it is damaged or holds others."""
    arrays = arrays_in(path)
    if set(arrays) != {"x"}:
        raise DataError(f"{path} holds the arrays {', '.join(arrays) or 'none'}: one array, x, is needed")
    return arrays["x"].whole(path)


def _sprites(store: Store, seed: int) -> Parts:
    return divide(sprites(), SOURCES["sprites"].counts, seed)


def read_omniglot(path: Path, held: int, seed: int) -> Parts:
    """The characters of chardata.mat: `data` and `testdata`, (784, N), of which `held` of train are for validation."""
    content = read_mat(path, ("data", "testdata"))
    train, test = numbered(*(Rows(matlab_images(x.T)) for x in content.values()))
    cut = divide(train, (len(train) - held, held, 0), seed)
    return Parts(cut.train, cut.validation, test)


def _omniglot(store: Store, seed: int) -> Parts:
    source = SOURCES["omniglot"]
    return read_omniglot(store.get(source.files[0]), source.counts[1], seed)


def read_silhouettes(path: Path, read: Callable[[Path, tuple[str, ...]], dict[str, Array]] = read_mat) -> Parts:
    """The splits of the file; objects become 1 and the background 0 (the file has it inverted), labels start at 0."""
    names = [(f"{part}_data", f"{part}_labels") for part in ("train", "val", "test")]
    content = read(path, tuple(name for pair in names for name in pair))
    rows = (Rows(1 - matlab_images(content[x]), content[y].reshape(-1).astype(np.int64) - 1) for x, y in names)
    return Parts(*numbered(*rows))


def _check_silhouettes(path: Path) -> None:
    """Raise DataError unless the file holds as many rows as the published one, which has no published checksum."""
    with reading(path, "the Caltech silhouettes"):
        _check_counts(SOURCES["caltech-silhouettes"], read_silhouettes(path, read_mat_apart))


def _silhouettes(store: Store, seed: int) -> Parts:
    return read_silhouettes(store.get(SOURCES["caltech-silhouettes"].files[0]))


# What there is


def _idx_files(mirrors: tuple[str, ...], checksums: tuple[str, ...]) -> tuple[File, ...]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    files = (f"{name}-ubyte.gz" for name in names)
    return tuple(File(f, tuple(m + f for m in mirrors), f"sha256:{c}") for f, c in zip(files, checksums, strict=True))


MNIST_FILES = _idx_files(
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
FASHION_FILES = _idx_files(
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)
FREY_FILE = File(
    "freyfaces.pkl",
    (
        "https://raw.githubusercontent.com/jmtomczak/vae_vampprior/bb6ff3e58036adbea448e82d7bc55593d605b52c"
        "/datasets/Freyfaces/freyfaces.pkl",
    ),
    "sha256:3b69410c6a5fd6e03f09012905168be3712373a094a776f7e58fcd0670d2138a",
)
OMNIGLOT_FILE = File(
    "chardata.mat",
    ("https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/chardata.mat",),
    "md5:21ecaf34373511aa7691cf2e0802aa3d",
)
SILHOUETTES_FILE = File(
    "caltech101_silhouettes_28_split1.mat",
    ("https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28_split1.mat",),
    check=_check_silhouettes,
)
TEN = tuple("0123456789")
CLOTHES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="digits",
            title="Digits",
            description="1,797 handwritten digits of 8×8 pixels with 17 grey levels. They come with scikit-learn: no"
            " download.",
            shape=(1, 8, 8),
            counts=(1197, 300, 300),
            values=Values("levels", levels=17, divisor=16.0),
            recipe="digits",
            licence="CC BY 4.0 (UCI Machine Learning Repository)",
            citation="E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, 1998",
            load=_digits,
            shuffled=True,
            class_names=TEN,
        ),
        Source(
            name="mnist",
            title="MNIST",
            description="70,000 handwritten digits of 28×28 pixels. Validation: the last 10,000 of the train file.",
            shape=(1, 28, 28),
            counts=(50_000, 10_000, 10_000),
            values=Values("grey"),
            recipe="mnist",
            licence="none in the files; widely given as CC BY-SA 3.0, © Y. LeCun and C. Cortes",
            citation="LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998",
            load=_idx,
            class_names=TEN,
            files=MNIST_FILES,
        ),
        Source(
            name="fashion-mnist",
            title="Fashion-MNIST",
            description="70,000 photographs of clothes, 28×28 pixels. Validation: the last 10,000 of the train file.",
            shape=(1, 28, 28),
            counts=(50_000, 10_000, 10_000),
            values=Values("grey"),
            recipe="mnist",
            licence="MIT, © 2017 Zalando SE",
            citation="Xiao, Rasul, Vollgraf: Fashion-MNIST, arXiv 1708.07747, 2017",
            load=_idx,
            class_names=tuple(CLOTHES.split(",")),
            files=FASHION_FILES,
        ),
        Source(
            name="frey",
            title="Frey Face",
            description="1,965 video frames of one face, 28×20 pixels, as x/256 like the 2013 paper. Shuffled: 1,600 to"
            " train, 365 to test, none to validate (validation=0.1 takes some from train). Frames resemble"
            " their neighbours, so a shuffled test set is not a strict test.",
            shape=(1, 28, 20),
            counts=(1600, 0, 365),
            values=Values("grey", divisor=256.0),
            recipe="aevb-frey",
            licence="none found; research use by custom",
            citation="B. Frey; from S. Roweis's data page, New York University",
            load=_frey,
            shuffled=True,
            files=(FREY_FILE,),
        ),
        Source(
            name="omniglot",
            title="Omniglot 28×28",
            description="32,415 handwritten characters of 50 alphabets, binary, as cut by Burda et al. for the IWAE."
            " Validation: 1,345 of the train characters, shuffled.",
            shape=(1, 28, 28),
            counts=(23_000, 1_345, 8_070),
            values=BINARY,
            recipe="bernoulli",
            licence="MIT, © 2015 Brenden Lake",
            citation="Lake, Salakhutdinov, Tenenbaum, Science 350, 2015; this version: Burda, Grosse, Salakhutdinov,"
            " arXiv 1509.00519",
            load=_omniglot,
            shuffled=True,
            files=(OMNIGLOT_FILE,),
        ),
        Source(
            name="caltech-silhouettes",
            title="Caltech 101 Silhouettes",
            description="8,671 outlines of objects, 28×28 pixels, binary, in the file's own splits; object 1,"
            " background 0. No checksum of the file is known: only its counts are checked.",
            shape=(1, 28, 28),
            counts=(4_100, 2_264, 2_307),
            values=BINARY,
            recipe="bernoulli",
            licence="none found",
            citation="Marlin, Swersky, Chen, de Freitas: Inductive principles for restricted Boltzmann machine"
            " learning, AISTATS 2010",
            load=_silhouettes,
            files=(SILHOUETTES_FILE,),
        ),
        Source(
            name="sprites",
            title="Sprites",
            description="4,608 binary pictures of 32×32 pixels, made here: every combination of shape (3), scale (4),"
            " orientation (6), x (8) and y (8) once, for measures of disentanglement. No download. Labels are shapes;"
            " aevb.factors_of gives all factors.",
            shape=(1, 32, 32),
            counts=(3_608, 500, 500),
            values=BINARY,
            recipe="bernoulli",
            licence="Apache 2.0, as aevb",
            citation="in the manner of Matthey, Higgins, Hassabis, Lerchner: dSprites, 2017",
            load=_sprites,
            shuffled=True,
            class_names=SHAPES,
        ),
    )
}
