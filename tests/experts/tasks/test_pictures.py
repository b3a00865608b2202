import numpy as np
import pytest
from PIL import Image

from mmunify.errors import DataError, UserError
from mmunify.experts.tasks._pictures import input_picture, pixel_box, read_pixels
from mmunify.parts import Workspace
from mmunify.types import Media, Region, TaskCall

CALL = TaskCall(task="edit", instruction="flip it")


def image(source):
    return Media(kind="image", source=source)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)


def test_every_source_gives_the_same_pixels(pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for source in (pixels, Image.fromarray(pixels), tmp_path / "a.png", str(tmp_path / "a.png"), pixels / 255.0):
        assert (read_pixels(image(source)) == pixels).all()


def test_grey_transparent_and_boolean_arrays_become_rgb(pixels):
    assert read_pixels(image(pixels[..., 0])).shape == (5, 7, 3)
    assert (read_pixels(image(np.concatenate([pixels, pixels[..., :1]], -1))) == pixels).all()
    assert read_pixels(image(pixels[..., 0] > 100)).max() == 255


def test_the_latest_image_is_meant_unless_the_call_says_which(pixels):
    media = (image(pixels), Media(kind="audio", source=None), image(255 - pixels), Media(kind="audio", source=None))
    assert (input_picture(CALL, Workspace(media=media)) == 255 - pixels).all()
    first = TaskCall(task="edit", instruction="flip it", media=0)
    assert (input_picture(first, Workspace(media=media)) == pixels).all()
    with pytest.raises(UserError, match="needs a picture and there is none at index 1"):
        input_picture(TaskCall(task="edit", instruction="x", media=1), Workspace(media=media))


def test_unusable_sources_are_named(tmp_path):
    with pytest.raises(UserError, match="there is none in the conversation"):
        input_picture(CALL, Workspace())
    with pytest.raises(DataError, match="gone.png cannot be read"):
        read_pixels(image(tmp_path / "gone.png"))
    with pytest.raises(DataError, match="int64 of shape"):
        read_pixels(image(np.zeros((2, 2, 3), np.int64)))


def test_boxes_in_pixels_are_never_empty_and_never_outside():
    shape = (10, 20, 3)
    assert pixel_box(Region(box=(0.1, 0.2, 0.5, 0.6)), shape) == (2, 2, 10, 6)
    assert pixel_box(Region(box=(0.999, 0.999, 1.0, 1.0)), shape) == (19, 9, 20, 10)
    assert pixel_box(Region(box=(0.5, 0.5, 0.501, 0.501)), shape) == (10, 5, 11, 6)
