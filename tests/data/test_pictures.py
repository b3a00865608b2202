"""Reading pictures: real formats, and every kind of bad file."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmunify.data.pictures import pad_to_square, prepare, prepare_views, read_picture
from mmunify.errors import DataError
from mmunify.layers.tiling import AnyResTiling, PatchTiling, SeedXTiling
from mmunify.types import Preprocess

REAL = Path(__file__).parents[3] / "shared/fixtures"
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


# ------------------------------------------------------------------------------------------- bad and odd files


def test_sixteen_bits_become_eight(tmp_path):
    """A plain conversion would cut everything above 255 off."""
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    path = tmp_path / "deep.png"
    Image.fromarray(ramp).save(path)
    assert Image.open(path).mode == "I;16"
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(np.asarray(read_picture(path))[..., 0], grey)
    assert np.array_equal(np.asarray(read_picture(ramp))[..., 2], grey)
    assert np.array_equal(np.asarray(read_picture(Image.fromarray(ramp.astype(np.int32))))[..., 1], grey)


def test_float_pictures_are_zero_to_one(tmp_path):
    path = tmp_path / "float.tiff"
    Image.fromarray(np.full((3, 4), 0.5, np.float32)).save(path)
    assert read_picture(path).getpixel((0, 0)) == (128, 128, 128)
    Image.fromarray(np.full((3, 4), np.nan, np.float32)).save(path)
    with pytest.raises(DataError, match=r"float.tiff a picture array of floats must be finite; 12 numbers are not"):
        read_picture(path)
    with pytest.raises(DataError, match=r"has values -5..-5; whole numbers of 8 or 16 bits are read"):
        read_picture(Image.fromarray(np.full((3, 4), -5, np.int32)))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_of_animations_the_first_frame_is_taken(tmp_path, suffix):
    path = tmp_path / f"moving.{suffix}"
    frames = [Image.new("RGB", (6, 4), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert read_picture(path).size == (6, 4)
    assert read_picture(path).getpixel((2, 2))[0] > 240 > 10 > read_picture(path).getpixel((2, 2))[1]


def test_cmyk_and_palettes_keep_their_colours(tmp_path):
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    red.convert("CMYK").save(tmp_path / "print.tiff")
    red.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    assert read_picture(tmp_path / "print.tiff").getpixel((0, 0)) == (255, 0, 0)
    assert read_picture(tmp_path / "palette.png").getpixel((0, 0)) == (255, 0, 0)
    clear = Image.new("P", (4, 4), 0)
    clear.save(tmp_path / "clear.png", transparency=0)
    assert read_picture(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff", "bmp"])
def test_truncated_and_scrambled_files_name_themselves(tmp_path, suffix):
    good = tmp_path / f"good.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(good)
    content = good.read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(content[: len(content) // 2])
    (tmp_path / f"lost.{suffix}").write_bytes(content[:10])
    for name in ("cut", "lost"):
        with pytest.raises(DataError, match=rf"picture .*{name}.{suffix} cannot be read: "):
            read_picture(tmp_path / f"{name}.{suffix}")


def test_scrambled_bytes_never_raise_anything_else(tmp_path):
    path = tmp_path / "noise.png"
    Image.new("RGB", (16, 16), (9, 9, 9)).save(path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 4):
            damaged[place] = int(rng.integers(0, 256))
        path.write_bytes(bytes(damaged))
        try:
            assert read_picture(path).mode == "RGB"
        except DataError as error:
            assert "noise.png" in str(error)


def test_folders_and_odd_arrays(tmp_path):
    with pytest.raises(DataError, match="is a folder, no file"):
        read_picture(tmp_path)
    for shape in ((0, 4, 3), (4, 4, 2), (4,), (1, 4, 4, 3)):
        with pytest.raises(DataError, match="not empty; got shape"):
            read_picture(np.zeros(shape, np.uint8))
    assert read_picture(np.full((2, 3, 1), 7, np.uint8)).getpixel((0, 0)) == (7, 7, 7)
    with pytest.raises(DataError, match="must be finite; 1 numbers are not"):
        read_picture(np.array([[0.5, np.nan]], np.float32))


@pytest.mark.parametrize("fit", ["pad", "stretch", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (10_000, 10), (10, 10_000), (2, 9001)])
def test_extreme_shapes(fit, size):
    values = prepare(Image.new("RGB", size, (255, 255, 255)), Preprocess(size=(16, 16), fit=fit))
    assert values.shape == (3, 16, 16)
    assert values.isfinite().all()
    assert values[:, 8, 8].max() > 0.5 or fit == "pad"


def test_strips_are_shortened_before_they_are_padded_and_photographs_are_not():
    strip = prepare(Image.new("RGB", (9000, 900), (255, 255, 255)), PLAIN)
    padded = pad_to_square(Image.new("RGB", (900, 90), (255, 255, 255)), (0, 0, 0))
    torch.testing.assert_close(strip, prepare(padded, PLAIN), atol=0.02, rtol=0)
    assert strip[:, 0].max() == 0.0


# ------------------------------------------------------------------------------------------- views


def coordinates(width, height):
    """A picture whose red is the column and whose green is the row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width)[None], np.arange(height)[:, None]
    return Image.fromarray(pixels)


def test_pictures_of_one_size_are_one_view():
    picture = coordinates(20, 10)
    assert torch.equal(prepare_views(picture, PLAIN), prepare(picture, PLAIN)[None])


def test_tiles_are_cut_row_by_row_and_the_whole_picture_is_last():
    tiling = SeedXTiling(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, fit="stretch")
    picture = coordinates(16, 16)
    views = (prepare_views(picture, tiling) * 255).round().int()
    assert views.shape == (5, 3, 8, 8)
    assert [view[:2, 0, 0].tolist() for view in views[:4]] == [[0, 0], [8, 0], [0, 8], [8, 8]]
    assert [view[:2, -1, -1].tolist() for view in views[:4]] == [[7, 7], [15, 7], [7, 15], [15, 15]]
    whole = picture.resize((8, 8), Image.Resampling.BICUBIC)
    assert torch.equal(views[4], torch.from_numpy(np.array(whole)).permute(2, 0, 1).int())


def test_any_resolution_puts_the_picture_on_black():
    tiling = AnyResTiling(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, canvases=((8, 16), (16, 8)), cells=(2, 2))
    views = prepare_views(Image.new("RGB", (32, 8), (255, 255, 255)), tiling)
    assert views.shape == (3, 3, 8, 8)
    assert views[0].min() == 1.0
    assert views[1:, 0, :, 0].tolist() == [[0, 0, 1, 1, 1, 1, 0, 0]] * 2


def test_patches_of_a_pictures_own_size():
    tiling = PatchTiling(size=(32, 32), patch_size=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    (view,) = prepare_views(coordinates(13, 8), tiling)
    assert view.shape == (3, 8, 16)
    assert (view[0, 0] * 255).round().tolist() == [*range(13), 1, 1, 1]
    assert prepare_views(coordinates(100, 50), tiling).shape == (1, 3, 16, 32)


# ------------------------------------------------------------------------------------------- real files


def real(name):
    if not (REAL / name).is_file():
        pytest.skip(f"the real file {name} is not on this machine")
    return REAL / name


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif"])
def test_one_picture_in_four_formats(suffix):
    """A lossless file and three lossy ones hold the same picture."""
    folder = "meta-pytorch+torchcodec/test/resources/gradient"
    exact, lossy = (np.asarray(read_picture(real(f"{folder}.{kind}")), float) for kind in ("png", suffix))
    assert exact.shape == lossy.shape and exact.std() > 10
    assert np.abs(exact - lossy).mean() < 3


def test_a_real_cmyk_picture():
    """Light that inks leave: (1 - ink) (1 - black), channel by channel."""
    path = real("meta-pytorch+torchcodec/test/resources/cmyk.jpg")
    with Image.open(path) as file:
        assert file.mode == "CMYK"
        inks = np.asarray(file, float) / 255
    picture = np.asarray(read_picture(path), float)
    wanted = 255 * (1 - inks[..., :3]) * (1 - inks[..., 3:])
    assert picture.std() > 50 and np.abs(picture - wanted).max() < 3
    assert prepare(read_picture(path), PLAIN).isfinite().all()


def test_a_real_photograph_cut_short(tmp_path):
    content = real("facebookresearch+segment-anything/notebooks/images/dog.jpg").read_bytes()
    (tmp_path / "dog.jpg").write_bytes(content[: len(content) // 3])
    with pytest.raises(DataError, match=r"picture .*dog.jpg cannot be read: "):
        read_picture(tmp_path / "dog.jpg")
