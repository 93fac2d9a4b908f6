"""Folders and .zips of pictures: formats, bits, orientation, transparency, palettes, frames; and axes of arrays of
them.
"""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from PIL import Image

from aevb.data import sparse
from aevb.data.arrays import array_dataset
from aevb.data.dataset import Dataset
from aevb.data.images import load_images
from aevb.data.pictures import Fit, avif_bits
from aevb.data.sources import load_data
from aevb.data.unsplit import read_unsplit
from aevb.errors import AevbWarning, DataError
from aevb.runs.recipe import Recipe
from aevb.runs.sources import read


def pixels(n: int = 3, shape: tuple[int, ...] = (4, 6)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8)


def filled(folder: Path, suffix: str, images: list[Image.Image], **options: object) -> Path:
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(images):
        image.save(folder / f"{i}{suffix}", **options)
    return folder


def everything(data: Dataset) -> np.ndarray:
    return torch.cat([data.train.stored, data.validation.stored, data.test.stored]).numpy()


# Formats


@pytest.mark.parametrize(
    "suffix", [".tif", ".tiff", ".png", ".bmp", ".ppm", ".pnm", ".tga", ".pcx", ".sgi", ".PNG", ".TiFF"]
)
def test_every_lossless_format_is_read_pixel_for_pixel(tmp_path: Path, suffix: str) -> None:
    x = pixels(shape=(4, 6, 3))
    found = load_images(filled(tmp_path / "p", suffix, [Image.fromarray(p) for p in x])).x
    assert np.array_equal(found, x.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".jpg", ".webp", ".gif", ".jp2", ".avif"])
def test_other_formats_are_read_too(tmp_path: Path, suffix: str) -> None:
    Image.init()
    if suffix not in Image.registered_extensions():
        pytest.skip(f"this Pillow does not read {suffix}")
    level = np.full((16, 16), 100, np.uint8)
    found = load_images(filled(tmp_path / "p", suffix, [Image.fromarray(level)])).x
    assert np.abs(found.astype(int) - 100).max() <= 3


def test_a_grey_pgm_stays_grey(tmp_path: Path) -> None:
    x = pixels()
    assert np.array_equal(load_images(filled(tmp_path / "p", ".pgm", [Image.fromarray(p) for p in x])).x, x[:, None])


def test_mixed_endings_are_all_read(tmp_path: Path) -> None:
    x = pixels(12)
    for i, p in enumerate(x):
        Image.fromarray(p).save(tmp_path / f"{i:02}{'.png' if i % 2 else '.tiff'}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(load_images(tmp_path).x, x[:, None])


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    filled(tmp_path, ".png", [Image.fromarray(p) for p in pixels()])
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "x.heic").write_bytes(b"")
    (tmp_path / ".DS_Store").write_bytes(b"")
    words = r"left out, since not readable as images: deeper/x.heic, labels.csv \(2 in all\)$"
    with pytest.warns(AevbWarning, match=words):
        assert len(load_images(tmp_path).x) == 3
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(tmp_path / "0.png", "0.png")
        archive.writestr("notes.txt", "")
    with pytest.warns(AevbWarning, match=r"not readable as images: notes.txt \(1 in all\)"):
        load_images(tmp_path / "z.zip")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"holds no images \(\.png.*; there are other files \(a.txt\)"):
        load_images(tmp_path / "empty")


# Bits


def deep_png(path: Path, x: np.ndarray, colour: int) -> None:
    """A PNG (H, W, C) with 16 bits a channel; colour type 0: grey, 2: RGB, 4: grey and alpha, 6: RGBA."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", x.shape[1], x.shape[0], 16, colour, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in x)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


DEEP = r"b\.\w+ has more than 8 bits a channel.*save it with 8 bits, or give the pixels as an array \(\.npy\)"


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_a_channel_are_refused_by_name(tmp_path: Path, colour: int, channels: int) -> None:
    for name in ("b.png", "c.png"):
        deep_png(tmp_path / name, np.arange(64 * channels).reshape(8, 8, channels), colour)
    with pytest.raises(DataError, match=DEEP):
        load_images(tmp_path)


def test_a_ppm_of_sixteen_bits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.ppm").write_bytes(b"P6 4 4 4095\n" + np.arange(48).astype(">u2").tobytes())
    with pytest.raises(DataError, match=DEEP):
        load_images(tmp_path)


def test_a_jpeg_2000_of_sixteen_bits_is_refused(tmp_path: Path) -> None:
    Image.init()
    if ".jp2" not in Image.registered_extensions():
        pytest.skip("this Pillow writes no JPEG 2000")
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)).save(tmp_path / "b.jp2")
    with pytest.raises(DataError, match=DEEP):
        load_images(tmp_path)


def test_sixteen_bits_are_kept_whole_as_an_array() -> None:
    """The remedy of the message."""
    x = np.random.default_rng(0).integers(0, 65536, (20, 8, 8, 3)).astype(np.uint16)
    data = array_dataset(x)
    found = data.train.values.inverse(torch.cat([data.train[:], data.validation[:], data.test[:]]))
    assert found.dtype == np.uint16
    assert np.array_equal(np.sort(found, 0), np.sort(x.transpose(0, 3, 1, 2), 0))


# Orientation


def tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp"])
@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, lambda x: x),
        (2, np.fliplr),
        (3, lambda x: np.rot90(x, 2)),
        (4, np.flipud),
        (5, lambda x: x.T),
        (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: np.rot90(x, 2).T),
        (8, np.rot90),
    ],
)
def test_pictures_are_turned_as_exif_says(tmp_path: Path, suffix: str, orientation: int, seen: object) -> None:
    x = pixels(shape=(10, 16))
    folder = filled(tmp_path / "p", suffix, [Image.fromarray(p) for p in x], exif=tagged(orientation), lossless=True)
    expected = np.stack([seen(p) for p in x])  # type: ignore[operator]
    assert np.array_equal(load_images(folder).x[:, 0], expected)


def test_portrait_and_landscape_are_two_sizes(tmp_path: Path) -> None:
    for i, p in enumerate(pixels(4, (10, 16))):
        Image.fromarray(p).save(tmp_path / f"{i}.jpg", exif=tagged(6 if i % 2 else 1))
    with pytest.raises(DataError, match=r"1\.jpg is 10×16 pixels, but 0.jpg is 16×10"):
        load_images(tmp_path)


# Transparency and palettes


def test_what_is_transparent_is_laid_on_white(tmp_path: Path) -> None:
    x = pixels(3, (4, 6, 4))
    x[..., 3] = [0, 255, 51] * 2
    found = load_images(filled(tmp_path / "p", ".png", [Image.fromarray(p) for p in x])).x.transpose(0, 2, 3, 1)
    share = x[..., 3:] / 255
    assert np.abs(found - (share * x[..., :3] + (1 - share) * 255)).max() <= 1
    assert (found[:, :, [0, 3]] == 255).all()
    assert np.array_equal(found[:, :, [1, 4]], x[:, :, [1, 4], :3])


def test_grey_with_alpha_is_laid_on_white_and_stays_grey(tmp_path: Path) -> None:
    x = pixels(3, (4, 6, 2))
    x[..., 1] = [0, 255] * 3
    found = load_images(filled(tmp_path / "p", ".png", [Image.fromarray(p, "LA") for p in x])).x
    assert found.shape == (3, 1, 4, 6)
    assert (found[:, 0, :, ::2] == 255).all()
    assert np.array_equal(found[:, 0, :, 1::2], x[:, :, 1::2, 0])


def paletted(x: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(x).convert("P")
    image = Image.frombytes("P", x.shape[::-1], x.tobytes())
    image.putpalette(colours)
    return image


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_palette_of_greys_is_grey_and_one_of_colours_is_not(tmp_path: Path, suffix: str) -> None:
    x = pixels() % 3
    grey = load_images(filled(tmp_path / "g", suffix, [paletted(p, [9, 9, 9, 70, 70, 70, 200, 200, 200]) for p in x]))
    assert np.array_equal(grey.x[:, 0], np.array([9, 70, 200])[x])
    colour = load_images(filled(tmp_path / "c", suffix, [paletted(p, [9, 9, 9, 70, 0, 0, 0, 0, 200]) for p in x]))
    assert np.array_equal(colour.x, np.array([[9, 9, 9], [70, 0, 0], [0, 0, 200]])[x].transpose(0, 3, 1, 2))


def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    x = pixels() % 2
    images = [paletted(p, [9, 9, 9, 70, 70, 70]) for p in x]
    found = load_images(filled(tmp_path / "p", ".png", images, transparency=1)).x
    assert np.array_equal(found[:, 0], np.where(x == 1, 255, 9))


# Frames


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".png"])
def test_of_several_frames_the_first_is_read_and_that_is_said(tmp_path: Path, suffix: str) -> None:
    x = pixels(2)
    first, second = (Image.fromarray(p) for p in x)
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=[second])
    with pytest.warns(AevbWarning, match=rf"of several frames the first is read: a{suffix} \(1 in all\)"):
        assert np.array_equal(load_images(tmp_path).x[0, 0], x[0])


# Axes


@pytest.mark.parametrize(
    "shape", [(28, 28, 2), (16, 16, 5), (3, 32, 3), (1, 4, 4), (4, 4, 1), (2, 8, 8), (5, 6, 7), (3, 3, 3)]
)
def test_axes_that_could_be_either_are_asked_for(shape: tuple[int, ...]) -> None:
    x = pixels(6, shape)
    with pytest.raises(
        DataError, match=r"which axis holds the channels\? Say data.axes = 'last'.*'first'.*'none'"
    ) as caught:
        array_dataset(x)
    assert str((6, *shape)) in str(caught.value)
    a, b, c = shape
    for axes, expected in (("first", (a, b, c)), ("last", (c, a, b)), ("none", (1, a, b, c))):
        assert array_dataset(x, axes=axes).shape == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 28, 28), (1, 28, 28)), ((28, 28, 1), (1, 28, 28)), ((3, 5, 6), (3, 5, 6)), ((5, 6, 4), (4, 5, 6))],
)
def test_axes_that_are_plain_are_not_asked_for(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    x = pixels(6, shape)
    data = array_dataset(x)
    assert data.shape == expected
    moved = x if shape == expected else x.transpose(0, 3, 1, 2)
    assert np.array_equal(np.sort(everything(data), 0), np.sort(moved, 0))


def test_axes_reach_the_loader_and_are_refused_where_there_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", pixels(6, (8, 8, 2)))
    assert load_data(tmp_path / "two.npy", axes="last").shape == (2, 8, 8)
    with pytest.raises(DataError, match=r"digits: axes='last' is for arrays of images"):
        load_data("digits", axes="last")
    with pytest.raises(DataError, match=r"axes='last' is for images \(N, H, W, C\).*the shape is \(6, 8\)"):
        array_dataset(np.ones((6, 8)), axes="last")
    with pytest.raises(DataError, match=r"no axes='lats'\. Did you mean 'last'"):
        array_dataset(pixels(6, (8, 8, 2)), axes="lats")


# Sparse matrices


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_sparse_matrices_are_the_arrays_that_they_stand_for(tmp_path: Path, form: str, make: type) -> None:
    x = np.random.default_rng(0).poisson(0.3, (40, 24))
    scipy.sparse.save_npz(tmp_path / "s.npz", make(x).asformat(form))
    data, plain = load_data(tmp_path / "s.npz"), array_dataset(x)
    assert np.array_equal(everything(data), everything(plain))
    assert data.train.values.dtype == "int64"
    assert np.array_equal(everything(array_dataset(make(x).asformat(form))), everything(plain))


def test_a_sparse_matrix_that_does_not_fit_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scipy.sparse.save_npz(tmp_path / "s.npz", scipy.sparse.csr_matrix((2**21, 2**20)))
    monkeypatch.setattr(sparse, "memory", lambda: 2.0**34)
    with pytest.raises(
        DataError, match=r"s.npz is a sparse matrix of shape \(2097152, 1048576\).*take 16,384.0 GiB.*half"
    ):
        load_data(tmp_path / "s.npz")


# One size


def coloured(path: Path, width: int, height: int, orientation: int = 1) -> None:
    """A JPEG or PNG that is red left, green in the middle and blue right, as it is stored."""
    x = np.zeros((height, width, 3), np.uint8)
    for channel, third in enumerate(np.array_split(np.arange(width), 3)):
        x[:, third, channel] = 255
    Image.fromarray(x).save(path, exif=tagged(orientation), quality=100, subsampling=0)


def test_pictures_of_several_sizes_are_refused_and_the_cure_cures(tmp_path: Path) -> None:
    coloured(tmp_path / "a.png", 60, 40)
    coloured(tmp_path / "b.png", 30, 90)
    coloured(tmp_path / "c.png", 24, 24)
    words = r"b.png is 30×90 pixels, but a.png is 60×40 .*with --size 24 --crop centre \(size=24, crop='centre'"
    with pytest.raises(DataError, match=words):
        load_data(tmp_path)
    with pytest.raises(DataError, match=r"a.png is 60×40 pixels.*not square. Say --crop centre .*or --crop stretch"):
        load_data(tmp_path, size=24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_data(tmp_path, size=24, crop="centre")
    assert data.shape == (3, 24, 24)
    assert load_data(tmp_path, size=24, crop="stretch").shape == (3, 24, 24)


def test_centre_takes_the_middle_square_and_stretch_all(tmp_path: Path) -> None:
    for name in "abc":
        coloured(tmp_path / f"{name}.png", 90, 30)
    red, green, blue = np.eye(3, dtype=np.uint8)[:, :, None, None] * 255
    centre = load_images(tmp_path, Fit(10, "centre")).x
    assert np.array_equal(centre, np.broadcast_to(green, centre.shape))  # the middle third alone
    stretched = load_images(tmp_path, Fit(30, "stretch")).x
    for columns, colour in ((slice(0, 8), red), (slice(12, 18), green), (slice(22, 30), blue)):
        assert (abs(stretched[..., columns].astype(int) - colour) <= 3).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_pictures_are_turned_before_they_are_cut(tmp_path: Path, suffix: str) -> None:
    for name in "abc":
        coloured(tmp_path / f"{name}{suffix}", 400, 100, orientation=6)  # seen: red above, blue below
    x = load_images(tmp_path, Fit(32, "stretch")).x.astype(int)
    for rows, channel in ((slice(0, 8), 0), (slice(13, 19), 1), (slice(24, 32), 2)):
        assert (x[:, channel, rows] > 240).all()
        assert (np.delete(x, channel, 1)[:, :, rows] < 15).all()


def test_a_picture_is_shrunk_by_means_and_not_by_leaving_pixels_out(tmp_path: Path) -> None:
    for name in "abc":
        Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)).save(tmp_path / f"{name}.png")
    x = load_images(tmp_path, Fit(8)).x
    assert x.shape == (3, 1, 8, 8)
    assert (abs(x.astype(int) - 127) <= 2).all()


def test_transparency_is_laid_on_white_before_a_picture_is_shrunk(tmp_path: Path) -> None:
    x = np.zeros((64, 64, 4), np.uint8)
    x[:, :32, 3] = 255  # black left, and nothing right
    for name in "abc":
        Image.fromarray(x).save(tmp_path / f"{name}.png")
    found = load_images(tmp_path, Fit(8)).x
    assert (found[..., :3] < 20).all()
    assert (found[..., 5:] > 235).all()


def test_enlarged_pictures_are_named(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("L", (8, 8), 9).save(tmp_path / f"{i}.png")
    with pytest.warns(AevbWarning, match=r"enlarged to 16 pixels, since smaller: 0.png, 1.png, 2.png \(3 in all\)"):
        assert load_images(tmp_path, Fit(16)).x.shape == (3, 1, 16, 16)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"size": 0}, "size=0: the side of the pictures must be a whole number from 1 to 4,096"),
        ({"size": 6.5}, "size=6.5"),
        ({"size": True}, "size=True"),
        ({"size": 8, "crop": "center"}, r"no crop='center'\. Did you mean 'centre'"),
        ({"crop": "centre"}, "crop='centre' needs a size too, such as size=64"),
    ],
)
def test_sizes_and_crops_that_there_are_not_are_refused(how: dict[str, object], words: str, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=words):
        load_data(tmp_path, **how)  # type: ignore[arg-type]


def test_a_run_keeps_the_size_and_new_pictures_are_read_the_same_way(tmp_path: Path) -> None:
    for i in range(12):
        coloured(tmp_path / f"{i:02}.png", 12 + i, 20 - i)
    recipe = Recipe.load("conv").replace(data__source=str(tmp_path), data__size=8, data__crop="centre")
    assert {"size": 8, "crop": "centre"}.items() <= recipe.settings["data"].items()
    data = read(recipe)
    assert data.shape == (3, 8, 8)
    new = read_unsplit(str(tmp_path), fit=Fit(8, "centre"))
    assert new.files == tuple(f"{i:02}.png" for i in range(12))
    assert np.array_equal(np.sort(new.x, 0), np.sort(everything(data), 0))
    one = read_unsplit(str(tmp_path / "03.png"), fit=Fit(8, "centre"))
    assert np.array_equal(one.x[0], new.x[3])


# Modes


def test_bits_become_black_and_white_and_cmyk_becomes_rgb(tmp_path: Path) -> None:
    bits = pixels() > 127
    for i, p in enumerate(bits):
        Image.fromarray(p).save(tmp_path / f"{i}.png")
    assert np.array_equal(load_images(tmp_path).x[:, 0], np.where(bits, 255, 0))
    inks = np.zeros((4, 6, 4), np.uint8)
    inks[:2, :, 0], inks[2:, :, 3] = 255, 255
    (tmp_path / "c").mkdir()
    for i in range(3):
        Image.fromarray(inks, "CMYK").save(tmp_path / "c" / f"{i}.tif")
    x = load_images(tmp_path / "c").x[0].transpose(1, 2, 0)
    assert (x[:2] == [0, 255, 255]).all()
    assert (x[2:] == 0).all()


@pytest.mark.parametrize("mode", ["F", "I", "I;16"])
def test_numbers_beyond_bytes_are_refused_by_name(tmp_path: Path, mode: str) -> None:
    for name in ("b.tif", "c.tif"):
        Image.new(mode, (4, 4), 300).save(tmp_path / name)
    with pytest.raises(DataError, match=DEEP):
        load_images(tmp_path)


@pytest.mark.parametrize(("flags", "bits"), [(b"\x0c", 8), (b"\x4c", 10), (b"\x6c", 10)])
def test_bits_of_an_avif_are_read_from_its_configuration(flags: bytes, bits: int) -> None:
    """Pillow decodes ten bits to eight, silently."""
    assert avif_bits(b"\0\0\0\x0cav1C\x81\x05" + flags + b"\0") == bits


def test_an_avif_of_eight_bits_is_read(tmp_path: Path) -> None:
    Image.init()
    if ".avif" not in Image.registered_extensions():
        pytest.skip("this Pillow writes no AVIF")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.avif")
    assert avif_bits((tmp_path / "b.avif").read_bytes()) == 8
    assert load_images(tmp_path).x.shape == (1, 3, 8, 8)


# Which files


def test_pictures_are_known_by_their_beginning_where_the_name_does_not_tell(tmp_path: Path) -> None:
    x = pixels(4)
    for p, name in zip(x, ("a", "b.png", "c.original", "d.jpg"), strict=True):  # each of them a PNG
        Image.fromarray(p).save(tmp_path / name, "PNG")
    (tmp_path / "e").write_text("no image")
    with pytest.warns(AevbWarning, match=r"not readable as images: e \(1 in all\)$"):
        assert np.array_equal(load_images(tmp_path).x[:, 0], x)


def test_links_are_followed_once_and_what_is_no_file_or_hidden_is_named(tmp_path: Path) -> None:
    x = pixels()
    (tmp_path / "elsewhere").mkdir()
    place = tmp_path / "p"
    place.mkdir()
    Image.fromarray(x[0]).save(place / "a.png")
    Image.fromarray(x[1]).save(tmp_path / "elsewhere" / "b.png")
    Image.fromarray(x[2]).save(place / ".c.png")
    (place / "linked").symlink_to(tmp_path / "elsewhere")
    (place / "round").symlink_to(place)
    (place / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(AevbWarning) as told:
        assert np.array_equal(load_images(place).x[:, 0], x[:2])
    words = {str(w.message).partition(": ")[2] for w in told}
    assert words == {"left out, since hidden: .c.png (1 in all)", "left out, since no files: gone.png (1 in all)"}


@pytest.mark.parametrize("zipped", [False, True])
def test_a_png_is_turned_by_exif_that_stands_behind_its_pixels(tmp_path: Path, zipped: bool) -> None:
    """Three rows of two pixels, of which a viewer shows two rows of three: 6 turns by a quarter."""
    pixels, exif = np.arange(6, dtype=np.uint8).reshape(3, 2), Image.Exif()
    exif[0x0112] = 6
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(pixels).save(folder / "a.png")
    content, body = (folder / "a.png").read_bytes(), b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    end = content.rindex(b"IEND") - 4
    turned = content[:end] + chunk + content[end:]
    (folder / "a.png").write_bytes(turned)
    if zipped:
        with zipfile.ZipFile(tmp_path / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", turned)
    found = load_images(tmp_path / "pictures.zip" if zipped else folder).x
    assert found[0, 0].tolist() == np.rot90(pixels, -1).tolist()


def test_pictures_of_phones_that_pillow_cannot_read_are_named_all_at_once(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(tmp_path / f"a{i}.png")
    heic = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(range(256))
    (tmp_path / "b.jpg").write_bytes(heic)
    with pytest.raises(DataError, match=r"b\.jpg .* it is a HEIC picture, .* Convert it to JPEG or PNG\."):
        load_images(tmp_path)
    (tmp_path / "c.jpg").write_bytes(heic)
    (tmp_path / "d.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"b\.jpg .* Nor can 2 more be read: c\.jpg, d\.jpg\."):
        load_images(tmp_path)
    for name in ("b.jpg", "c.jpg", "d.jpg"):
        (tmp_path / name).unlink()
    assert load_images(tmp_path).x[:, 0, 0, 0].tolist() == [0, 40, 80]
