"""Video: every source, every way of being broken."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmunify.data.pictures import prepare, read_picture
from mmunify.data.video import open_clip, prepare_clip
from mmunify.errors import DataError, MissingExtraError
from mmunify.layers.clips import ClipPreprocess

REAL = Path(__file__).parents[3] / "shared/fixtures/meta-pytorch+torchcodec/test/resources"
SMALL = ClipPreprocess(size=(16, 16), num_frames=4, fit="stretch")


@pytest.fixture
def av():
    return pytest.importorskip("av", reason="PyAV (the extra `video`) is not installed")


def real(name):
    if not (REAL / name).is_file():
        pytest.skip(f"the real file {name} is not on this machine")
    return REAL / name


def shades(number, size=(32, 48)):
    """Frames whose brightness is their number."""
    return np.stack([np.full((*size, 3), 8 * index, np.uint8) for index in range(number)])


def write(av, path, frames, codec="mpeg4", **options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={key: str(value) for key, value in options.items()})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def brightness(pictures):
    return [round(float(np.asarray(picture).mean()) / 8) for picture in pictures]


# ------------------------------------------------------------------------------------------- arrays and folders


def test_arrays():
    clip = open_clip(shades(9))
    assert (clip.num_frames, clip.extent) == (9, (48, 32))
    assert brightness(clip.pick([0, 4, 8])) == [0, 4, 8]
    assert open_clip(clip) is clip


def test_frames_are_prepared_like_pictures_and_repeated_in_short_clips():
    frames = np.random.default_rng(0).integers(0, 255, (2, 20, 30, 3), dtype=np.uint8)
    values = prepare_clip(open_clip(frames), SMALL)
    assert values.shape == (4, 3, 16, 16)
    first, second = (prepare(read_picture(frame), SMALL) for frame in frames)
    for value, wanted in zip(values, [first, first, second, second], strict=True):
        assert torch.equal(value, wanted)


def test_a_single_frame_is_a_clip():
    values = prepare_clip(open_clip(shades(1)), SMALL)
    assert values.shape == (4, 3, 16, 16) and bool((values == values[0]).all())


def test_folders_and_sequences_of_pictures(tmp_path):
    from PIL import Image

    for index, frame in enumerate(shades(12)):
        Image.fromarray(frame).save(tmp_path / f"{index:03d}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    assert brightness(open_clip(tmp_path).pick([0, 5, 11])) == [0, 5, 11]
    listed = [str(tmp_path / "003.png"), shades(3)[2]]
    assert brightness(open_clip(listed).pick([0, 1])) == [3, 2]


def test_grey_and_float_frames():
    clip = open_clip(np.linspace(0, 1, 3)[:, None, None, None] * np.ones((3, 8, 8, 1)))
    assert [int(np.asarray(picture).max()) for picture in clip.pick([0, 1, 2])] == [0, 128, 255]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), r"an array of a clip is \[F H W 3\]; got shape \(8, 8, 3\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "a clip has no frame"),
        ([], "a clip has no frame"),
        (7, "a video is a path.*got int"),
        ("nowhere.mp4", r"video nowhere\.mp4 does not exist"),
        (np.zeros((2, 8, 8, 5), np.uint8), r"got shape \(8, 8, 5\)"),
    ],
)
def test_bad_clips_say_why(source, message):
    with pytest.raises(DataError, match=message):
        open_clip(source)


def test_folders_without_pictures_and_frames_of_other_sizes_are_named(tmp_path):
    with pytest.raises(DataError, match=rf"folder {tmp_path} of pictures has no frame"):
        open_clip(tmp_path)
    clip = open_clip([shades(1)[0], shades(1, (8, 8))[0]])
    with pytest.raises(DataError, match=r"frame 1 has \(8, 8\) pixels, the first one \(48, 32\)"):
        list(clip.pick([0, 1]))


# ------------------------------------------------------------------------------------------- files


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"something")
    with pytest.raises(MissingExtraError, match=r"pip install 'mmunify\[video\]'"):
        open_clip(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.mp4", {}), ("b.mp4", {"g": 5}), ("c.avi", {"g": 4}), ("d.mkv", {"bf": 2, "g": 8}), ("e.m4v", {"g": 6})],
)
def test_any_frames_of_a_file(tmp_path, av, name, options):
    path = write(av, tmp_path / name, shades(30), **options)
    clip = open_clip(path)
    assert (clip.num_frames, clip.extent) == (30, (48, 32))
    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == 30 and len({frame.tobytes() for frame in decoded}) > 20
    for wanted in ([0], [29], [7, 8, 9], [0, 10, 29], list(range(30)), [3, 17, 18, 28]):
        for index, picture in zip(wanted, clip.pick(wanted), strict=True):
            np.testing.assert_array_equal(np.asarray(picture), decoded[index])


def test_a_file_of_one_frame(tmp_path, av):
    clip = open_clip(write(av, tmp_path / "a.mp4", shades(1)))
    assert prepare_clip(clip, SMALL).shape == (4, 3, 16, 16)


def test_raw_streams_say_nothing_of_time(tmp_path, av):
    clip = open_clip(write(av, tmp_path / "a.m4v", shades(12)))
    assert clip.num_frames == 12 and brightness(clip.pick([2, 9])) == [2, 9]


def test_reading_twice_gives_the_same(tmp_path, av):
    path = write(av, tmp_path / "a.mp4", shades(20), g=4)
    assert torch.equal(prepare_clip(open_clip(path), SMALL), prepare_clip(open_clip(str(path)), SMALL))


def test_the_best_stream_of_a_real_file_is_read_not_the_first(av):
    path = real("nasa_13013.mp4")
    clip = open_clip(path)
    assert (clip.num_frames, clip.extent) == (390, (480, 270))
    wanted = [0, 100, 101, 389]
    with av.open(str(path)) as container:
        decoded = [f.to_ndarray(format="rgb24") for f in container.decode(container.streams.best("video"))]
    for index, picture in zip(wanted, clip.pick(wanted), strict=True):
        np.testing.assert_array_equal(np.asarray(picture), decoded[index])


def test_a_sound_file_has_no_video(av):
    with pytest.raises(DataError, match=r"\.mp3 has no video stream; its streams: audio"):
        open_clip(real("nasa_13013.mp4.audio.mp3"))


def test_the_cover_of_a_sound_file_is_no_video(tmp_path, av):
    import soundfile

    soundfile.write(tmp_path / "a.mp3", np.zeros(8000), 8000)
    from io import BytesIO

    from PIL import Image

    cover = BytesIO()
    Image.new("RGB", (16, 16)).save(cover, "JPEG")
    body = b"\x00image/jpeg\x00\x03\x00" + cover.getvalue()
    frame = b"APIC" + len(body).to_bytes(4, "big") + b"\x00\x00" + body
    size = bytes((len(frame) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    (tmp_path / "a.mp3").write_bytes(b"ID3\x03\x00\x00" + size + frame + (tmp_path / "a.mp3").read_bytes())
    with pytest.raises(DataError, match=r"a\.mp3 has no video stream; its streams: audio, video"):
        open_clip(tmp_path / "a.mp3")


def test_videos_that_lie_on_a_side_stand_up(tmp_path, av):
    frames = shades(3)
    frames[:, :, :24] = 255  # left half white
    path = write(av, tmp_path / "a.mp4", frames)
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40
    turned = [0, 65_536, 0, -65_536, 0, 0, 0, 0, 1 << 30]  # by 90 degrees clockwise
    matrix = b"".join(number.to_bytes(4, "big", signed=True) for number in turned)
    path.write_bytes(data[:at] + matrix + data[at + 36 :])
    clip = open_clip(path)
    assert clip.extent == (32, 48)
    picture = np.asarray(next(clip.pick([1])))
    assert picture[:20].mean() > 240 and picture[28:].mean() < 20


def test_broken_files_are_named(tmp_path, av):
    path = write(av, tmp_path / "a.mp4", shades(20))
    whole = path.read_bytes()
    for name, data in {"cut.mp4": whole[: len(whole) // 2], "no.mp4": b"nothing of a video" * 20}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"video .*{name} (cannot be read|has no video stream)"):
            open_clip(tmp_path / name)
    (tmp_path / "zero.mp4").touch()
    with pytest.raises(DataError, match=r"zero\.mp4 is empty"):
        open_clip(tmp_path / "zero.mp4")


def test_a_video_without_frames_is_named(tmp_path, av):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = 16, 16
        container.start_encoding()
    with pytest.raises(DataError, match=r"a\.mkv"):
        open_clip(tmp_path / "a.mkv")


def test_a_file_whose_end_is_missing_repeats_its_last_frame(tmp_path, av):
    path = write(av, tmp_path / "a.avi", shades(30), g=1)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.6)])
    try:
        values = prepare_clip(open_clip(path), SMALL)
        assert values.shape == (4, 3, 16, 16)
    except DataError as error:
        assert "a.avi" in str(error)
