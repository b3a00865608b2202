"""Reading pictures: real formats, and every kind of bad file."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mmunify.data.pictures import pad_to_square, prepare, read_picture
from mmunify.errors import DataError
from mmunify.types import Preprocess

PLAIN = Preprocess(size=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def huge_png(path, side):
    """A valid PNG header that claims side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = lambda kind, data: (  # noqa: E731
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "1", "LA"])
def test_all_modes_become_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (5, 4), (200, 10, 10)).convert(mode).save(path)
    assert read_picture(path).mode == "RGB"
    assert read_picture(path).size == (5, 4)


def test_transparency_is_laid_over_white():
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert read_picture(clear).getpixel((0, 0)) == (255, 255, 255)


def test_exif_rotation_is_applied(tmp_path):
    path = tmp_path / "turned.jpg"
    picture = Image.new("RGB", (6, 3))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(path, exif=exif)
    assert read_picture(path).size == (3, 6)


def test_arrays_of_bytes_floats_and_masks():
    assert read_picture(np.full((2, 2, 3), 7, np.uint8)).getpixel((0, 0)) == (7, 7, 7)
    assert read_picture(np.ones((2, 2, 3), np.float32)).getpixel((0, 0)) == (255, 255, 255)
    assert read_picture(np.ones((2, 2), bool)).getpixel((1, 1)) == (255, 255, 255)
    with pytest.raises(DataError, match="int64"):
        read_picture(np.ones((2, 2, 3), np.int64))


def test_bad_files(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    good = tmp_path / "good.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(good)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:2000])
    for name, message in {
        "empty.png": "is empty",
        "text.png": "cannot be read",
        "cut.png": "cannot be read",
        "none.png": "does not exist",
    }.items():
        with pytest.raises(DataError, match=f"{name} .*{message}|{name} {message}"):
            read_picture(tmp_path / name)


def test_enormous_pictures_are_refused_from_their_header(tmp_path):
    path = huge_png(tmp_path / "huge.png", 30_000)
    with pytest.raises(DataError, match=r"30000 x 30000 pixels; the limit is|30000 x 30000 pixels, more than"):
        read_picture(path)


def test_padding_is_centred_and_in_the_mean_colour():
    square = np.array(pad_to_square(Image.new("RGB", (5, 2), (9, 9, 9)), (1, 2, 3)))
    assert square.shape == (5, 5, 3)
    assert (square[1:3] == 9).all() and (square[0] == (1, 2, 3)).all() and (square[3:] == (1, 2, 3)).all()


@pytest.mark.parametrize("fit", ["pad", "stretch", "crop"])
def test_prepare_gives_the_encoders_size(fit):
    preprocess = Preprocess(size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), fit=fit)
    values = prepare(Image.new("RGB", (20, 10), (255, 255, 255)), preprocess)
    assert values.shape == (3, 8, 8)
    assert float(values[:, 4].mean()) == pytest.approx(1.0, abs=0.01)


def test_pictures_of_the_right_size_pass_exactly():
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    values = prepare(read_picture(pixels), PLAIN)
    torch.testing.assert_close(values, torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
