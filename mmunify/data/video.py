"""Reading video: any source -> frames -> the numbers that an encoder wants. Bad files end in one clear error."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.data.pictures import MAX_PIXELS, prepare, read_picture
from mmunify.data.streams import open_container, readable_file
from mmunify.errors import DataError
from mmunify.extras import require
from mmunify.layers.clips import ClipPreprocess
from mmunify.types import Source


class Clip(ABC):
    """Frames that are read when they are asked for.

    Attributes:
        num_frames: of the whole clip.
        extent: (width, height) of its frames.
    """

    num_frames: int
    extent: tuple[int, int]

    @abstractmethod
    def pick(self, indices: Sequence[int]) -> Iterator[Any]:
        """RGB PIL images of some frames, one after the other; their numbers are given in rising order.

        Raises:
            DataError: a frame that cannot be read.
        """


def open_clip(source: Source) -> Clip:
    """A clip from a video file, a folder of pictures in the order of their names, an array or a sequence of pictures.

    An array is [F H W 3] (or 1, or 4 channels; see `read_picture` for its types). Video files need PyAV, the extra
    `video`; of several video streams the best one is read, as players do, whatever its number.

    Raises:
        DataError: missing, empty, unreadable, without a video stream or without a frame; the message names the file.
        MissingExtraError: a video file, and PyAV isn't installed.
    """
    if isinstance(source, Clip):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, str | Path):
        folder = Path(source)
        return _from_folder(folder) if folder.is_dir() else FileClip(readable_file(source, "video"))
    if isinstance(source, Sequence):
        return PictureClip(source, "a clip")
    raise DataError(f"a video is a path, an array [F H W 3] or a sequence of pictures; got {type(source).__name__}")


def prepare_clip(clip: Clip, preprocess: ClipPreprocess) -> Float[Tensor, "F C H W"]:
    """The frames that an encoder sees, each prepared like a picture; none is read twice."""
    wanted = preprocess.indices(clip.num_frames)
    distinct = sorted(set(wanted))
    pixels = torch.stack([prepare(picture, preprocess) for picture in clip.pick(distinct)])
    return pixels[torch.tensor([distinct.index(index) for index in wanted])]


class PictureClip(Clip):
    """Pictures in order: paths, arrays or PIL images of one size.

    Args:
        pictures: at least one.
        title: for messages.

    Raises:
        DataError: no picture, or a first one that cannot be read.
    """

    def __init__(self, pictures: Sequence[Source], title: str) -> None:
        if not len(pictures):
            raise DataError(f"{title} has no frame")
        self.pictures, self.title, self.num_frames = pictures, title, len(pictures)
        self.extent: tuple[int, int] = read_picture(pictures[0]).size

    def pick(self, indices: Sequence[int]) -> Iterator[Any]:
        """See `Clip`; frames of another size than the first one are refused."""
        for index in indices:
            picture = read_picture(self.pictures[index])
            if picture.size != self.extent:
                raise DataError(f"{self.title}: frame {index} has {picture.size} pixels, the first one {self.extent}")
            yield picture


class FileClip(Clip):
    """The best video stream of a file; only the frames that are asked for, and what they depend on, are decoded.

    Args:
        path: of a file that exists.

    Raises:
        DataError: no video stream, no frame, frames that are too large, or damage.
        MissingExtraError: PyAV isn't installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_container(path, "video") as container:
            stream = _video_stream(container, path)
            packets = [packet for packet in container.demux(stream) if packet.size]
            self._times = _presentation_times(packets)
            self._keys = sorted(packet.pts for packet in packets if packet.is_keyframe) if self._times else []
        first = self._first()
        self.extent: tuple[int, int] = first.size
        self.num_frames = len(self._times) or self._count()

    def pick(self, indices: Sequence[int]) -> Iterator[Any]:
        """See `Clip`. Frames that the file promises and doesn't hold are replaced by the one before them."""
        found, picture = 0, None
        with open_container(self.path, "video") as container:
            stream = _video_stream(container, self.path)
            decode = self._by_time if self._times else _by_number
            for found, frame in enumerate(decode(container, stream, indices), start=1):  # noqa: B007
                picture = _picture(frame)
                yield picture
        if picture is None:
            raise DataError(f"video {self.path} is damaged: none of its frames {list(indices)} can be decoded")
        yield from [picture] * (len(indices) - found)

    def _first(self) -> Any:
        with open_container(self.path, "video") as container:
            stream = _video_stream(container, self.path)
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > MAX_PIXELS:
                raise DataError(f"video {self.path} has frames of {width} x {height}, more than {MAX_PIXELS} pixels")
            frame = next(container.decode(stream), None)
            if frame is None:
                raise DataError(f"video {self.path} has no frame that can be decoded")
            return _picture(frame)

    def _count(self) -> int:
        with open_container(self.path, "video") as container:
            return sum(1 for _ in container.decode(_video_stream(container, self.path)))

    def _by_time(self, container: Any, stream: Any, indices: Sequence[int]) -> Iterator[Any]:
        """Decode up to each wanted frame, from the key frame before it wherever that lies ahead."""
        frames, now = container.decode(stream), None
        for index in indices:
            wanted = self._times[index]
            key = self._keys[max(bisect_right(self._keys, wanted) - 1, 0)] if self._keys else None
            if key is not None and (now is None or key > now) and key > self._times[0]:
                container.seek(key, stream=stream)
                frames = container.decode(stream)
            frame = next((frame for frame in frames if frame.pts is not None and frame.pts >= wanted), None)
            if frame is None:
                return
            now = frame.pts
            yield frame


def _from_array(array: np.ndarray) -> Clip:
    if array.ndim != 4:
        raise DataError(f"an array of a clip is [F H W 3]; got shape {array.shape}")
    return PictureClip(list(array), "a clip")


def _from_folder(folder: Path) -> Clip:
    from PIL import Image

    known = Image.registered_extensions()
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in known)
    return PictureClip(files, f"the folder {folder} of pictures")


def _video_stream(container: Any, path: Path) -> Any:
    """The best stream; the cover of a sound file is no video."""
    cover = require("av.stream", "video input").Disposition.attached_pic
    stream = container.streams.best("video")
    if stream is None or stream.disposition & cover:
        streams = ", ".join(found.type for found in container.streams) or "none"
        raise DataError(f"video {path} has no video stream; its streams: {streams}")
    stream.thread_type = "AUTO"
    return stream


def _presentation_times(packets: Sequence[Any]) -> list[int]:
    """Rising times of all frames; none where the file says nothing certain of them (raw streams, damaged indices)."""
    times = {packet.pts for packet in packets}
    return sorted(times) if None not in times and len(times) == len(packets) else []


def _by_number(container: Any, stream: Any, indices: Sequence[int]) -> Iterator[Any]:
    wanted = set(indices)
    for number, frame in enumerate(container.decode(stream)):
        if number in wanted:
            yield frame
        if number >= indices[-1]:
            return


def _picture(frame: Any) -> Any:
    """An RGB PIL image, upright: phones store their videos lying on a side and say so."""
    from PIL import Image

    pixels = frame.to_ndarray(format="rgb24")
    return Image.fromarray(np.ascontiguousarray(np.rot90(pixels, k=round(frame.rotation / 90))))
