"""Clips of the digit world with labels per place: dense supervision for a tower that watches."""

import numpy as np

from mmunify.data.datasets._numbered import Numbered
from mmunify.data.digit_world.clip_questions import in_order
from mmunify.data.digit_world.clips import DIRECTIONS, PLOTS, Clip, draw_clip, make_clip
from mmunify.data.digit_world.conversations import SPLITS, check_scenes
from mmunify.data.digit_world.scene import COLORS
from mmunify.data.digit_world.words import CELLS
from mmunify.registry import DATASETS
from mmunify.types import Media, Output, Sample, Turn

NOTHING, UNKNOWN = 10, -1
"""Label "digit" of a place that no digit crosses, and its other labels."""

LEAST_COVER = 0.5
"""Of a cell's area: how much of it a digit's box must cover, summed over the frames, to own it."""


def label_places(clip: Clip) -> np.ndarray:
    """What crosses each place of the 8 x 8 grid: float32 [64 6].

    Columns: digit (`NOTHING` = none), colour, direction, plot (stay, leave, enter), the frame in which the digit leaves
    or enters (0 = it stays), and which of the digits does so first (1), second, ... (0 = it stays). A place belongs to
    the digit that covers most of it.
    """
    covers = np.stack([_cover(clip, index) for index in range(len(clip.movers))])
    nothing = (NOTHING, *[UNKNOWN] * 5)
    rows = np.asarray([*_rows(clip), nothing], dtype=np.float32)
    owners = np.where(covers.max(axis=0) >= LEAST_COVER, covers.argmax(axis=0), len(clip.movers))
    return rows[owners.reshape(-1)]


def label_movers(clip: Clip, number: int) -> np.ndarray:
    """The digits of a clip, one per row: float32 [number 6], the columns of `label_places`; `NOTHING` fills up.

    In the order in which they leave or enter; digits that stay from left to right, as they are in the first frame.
    """
    labelled = zip(_rows(clip), clip.movers, strict=True)
    ordered = [row for row, mover in sorted(labelled, key=lambda pair: (pair[0][5], pair[1].digit.box))]
    return np.asarray([*ordered, *[(NOTHING, *[UNKNOWN] * 5)] * number][:number], dtype=np.float32)


def _rows(clip: Clip) -> list[tuple[int, ...]]:
    """The labels of every digit."""
    plot = clip.plot
    event = "enters" if plot == "enter" else "leaves"
    order = in_order(clip, event)
    colors, directions, plots = list(COLORS), list(DIRECTIONS), list(PLOTS)
    rows = []
    for index, mover in enumerate(clip.movers):
        when = (getattr(clip, event)(index), order.index(index) + 1) if index in order else (0, 0)
        named = (mover.digit.digit, colors.index(mover.digit.color), directions.index(mover.direction))
        rows.append((*named, plots.index(plot), *when))
    return rows


def _cover(clip: Clip, index: int) -> np.ndarray:
    """How much of each cell one digit's box covers, summed over the frames: [8 8] in cells."""
    edges = np.arange(CELLS + 1) * clip.size / CELLS
    boxes = np.asarray([clip.movers[index].box_at(frame) for frame in range(clip.num_frames)], dtype=np.float64)
    shares = [
        np.clip(np.minimum(boxes[:, [high]], edges[1:]) - np.maximum(boxes[:, [low]], edges[:-1]), 0, None)
        for low, high in ((1, 3), (0, 2))
    ]
    return np.einsum("fy,fx->yx", *shares) * (CELLS / clip.size) ** 2


@DATASETS.register("digit_motion")
class DigitMotion(Numbered):
    """One clip in, one output of kind "motion" whose target is `label_places`, or `label_movers`.

    Args:
        split: "train" or "test" handwriting.
        seed: of all draws.
        length: number of samples.
        num_digits: numbers of digits that a clip may have.
        num_frames: of a clip.
        size: side of the frames in pixels.
        warp: strength (0..1) of random distortions of the handwriting, for training.
        num_movers: rows of `label_movers`; 0 = `label_places`.

    Raises:
        DataError: an unknown split or a number of digits out of range.
    """

    noun = "a motion set"
    task = "motion"

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        length: int = 100_000,
        num_digits: list[int] = [1, 2, 3],
        num_frames: int = 8,
        size: int = 64,
        warp: float = 0.0,
        num_movers: int = 0,
    ) -> None:
        check_scenes(split, num_digits)
        super().__init__(length)
        self.split, self.seed = split, seed
        self.num_movers = num_movers
        self.num_digits, self.num_frames, self.size, self.warp = tuple(num_digits), num_frames, size, warp

    def make(self, index: int) -> Sample:
        """Draw sample number `index`."""
        rng = np.random.default_rng([self.seed, index, SPLITS.index(self.split)])
        plot = list(PLOTS)[rng.integers(len(PLOTS))]
        number = self.num_digits[int(rng.integers(len(self.num_digits)))]
        hand = "train" if self.split == "train" else "test"
        clip = make_clip(rng, plot, number, hand, self.num_frames, self.size, self.warp)
        target = label_movers(clip, self.num_movers) if self.num_movers else label_places(clip)
        labels = Output(kind="motion", target=target, condition=0)
        shown = Media(kind="video", source=draw_clip(clip))
        return Sample(
            turns=(Turn(role="user", parts=(shown,)), Turn(role="assistant", parts=(labels,))),
            id=f"digit_motion-{self.split}-{self.seed}-{index}",
            task=self.task,
            source="digit_motion",
            facts={"clip": clip},
        )
