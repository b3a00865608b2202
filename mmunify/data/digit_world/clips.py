"""Clips of the digit world: coloured handwritten digits that move over a still background, with exact ground truth.

A `Clip` is plain data and drawing it is a pure function, like a `Scene`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8

from mmunify.data.digit_world import handwriting
from mmunify.data.digit_world.handwriting import Split
from mmunify.data.digit_world.scene import (
    COLORS,
    GLYPH_SIZES,
    Digit,
    Scene,
    Warp,
    digit_mask,
    draw_background,
    draw_digit,
    place_digit,
)
from mmunify.errors import DataError

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
"""Where a digit moves to -> the sign of its steps along x and y."""

LEAST_WAY = 1 / 4
"""Of the picture's side: how far a digit moves at least that stays in it."""

APART = 2
"""Frames between two events (leaving, entering): their order must be clear in every second frame, too."""

Plot = Literal["stay", "leave", "enter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """A digit on its way.

    Attributes:
        digit: where it is in the first frame; it may lie outside the picture.
        direction: a key of `DIRECTIONS`.
        speed: pixels per frame.
    """

    digit: Digit
    direction: str
    speed: float

    def at(self, frame: int) -> Digit:
        """The digit in one frame; its box may lie outside the picture."""
        dx, dy = self._way(frame)
        x, y, size = self.digit.place
        return replace(self.digit, box=self.box_at(frame), place=(x + dx, y + dy, size))

    def box_at(self, frame: int) -> tuple[int, int, int, int]:
        """The digit's box in one frame."""
        dx, dy = self._way(frame)
        x0, y0, x1, y1 = self.digit.box
        return (x0 + dx, y0 + dy, x1 + dx, y1 + dy)

    def _way(self, frame: int) -> tuple[int, int]:
        way, (across, down) = round(self.speed * frame), DIRECTIONS[self.direction]
        return across * way, down * way


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Moving digits on a background. `background` is the seed of the background's colour and noise."""

    movers: tuple[Mover, ...]
    num_frames: int = 8
    size: int = 64
    background: int = 0

    def visible(self, index: int) -> list[bool]:
        """Whether any part of one digit's box is in the picture, frame by frame."""
        return [_inside(self.movers[index].box_at(frame), self.size) for frame in range(self.num_frames)]

    @property
    def plot(self) -> Plot:
        """What happens: a clip's digits all do the same."""
        if any(self.leaves(index) is not None for index in range(len(self.movers))):
            return "leave"
        return "enter" if any(self.enters(index) is not None for index in range(len(self.movers))) else "stay"

    def leaves(self, index: int) -> int | None:
        """The first frame without a digit that was there before; None if it stays."""
        seen = self.visible(index)
        return next((frame for frame in range(1, len(seen)) if seen[frame - 1] and not seen[frame]), None)

    def enters(self, index: int) -> int | None:
        """The first frame with a digit that wasn't there before; None if it is there from the start."""
        seen = self.visible(index)
        return next((frame for frame in range(1, len(seen)) if seen[frame] and not seen[frame - 1]), None)


# ------------------------------------------------------------------------------------------- drawing


def draw_clip(clip: Clip) -> UInt8[np.ndarray, "F H W 3"]:
    """The frames of a clip; digits never hide each other."""
    frames = np.repeat(draw_background(clip.background, clip.size)[None], clip.num_frames, axis=0)
    for number, frame in enumerate(frames):
        for mover in clip.movers:
            draw_digit(frame, mover.at(number))
    return (frames + 0.5).astype(np.uint8)


def clip_masks(clip: Clip, index: int) -> Bool[np.ndarray, "F H W"]:
    """The pixels of the clip's digit number `index` in every frame; none where it is outside."""
    digits = [clip.movers[index].at(frame) for frame in range(clip.num_frames)]
    return np.stack([digit_mask(Scene(digits=(digit,), size=clip.size), 0) for digit in digits])


# ------------------------------------------------------------------------------------------- composing


def make_clip(
    rng: np.random.Generator,
    plot: Plot = "stay",
    num_digits: int = 2,
    split: Split = "train",
    num_frames: int = 8,
    size: int = 64,
    warp: float = 0.0,
) -> Clip:
    """Draw a clip: digits that all "stay" in the picture, all "leave" it or all "enter" it, one after the other.

    No two are of one digit and colour, and none ever touches another one.

    Args:
        rng: all randomness comes from here.
        plot: what happens.
        num_digits: how many.
        split: whose handwriting.
        num_frames: of the clip.
        size: side of the frames in pixels.
        warp: strength (0..1) of random distortions of the handwriting, for training.

    Raises:
        DataError: the clip is too short for that many events, or so many digits do not fit into it.
    """
    if plot != "stay" and num_frames < 1 + APART * num_digits:
        raise DataError(f"{num_digits} digits that {plot} one after the other need {1 + APART * num_digits} frames")
    for _ in range(100):
        events = _draw_events(rng, num_digits, num_frames)
        movers = _draw_movers(rng, plot, events, Stage(split=split, num_frames=num_frames, size=size, warp=warp))
        if movers is not None:
            return Clip(movers=movers, num_frames=num_frames, size=size, background=int(rng.integers(2**31)))
    raise DataError(
        f"{num_digits} digits cannot {plot} in {num_frames} frames of {size} x {size} pixels: ask for fewer"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What all digits of a clip share, see `make_clip`."""

    split: Split
    num_frames: int
    size: int
    warp: float


def _draw_events(rng: np.random.Generator, number: int, num_frames: int) -> list[int]:
    """Frames of events, `APART` apart, none before frame `APART`; in any order."""
    spare = num_frames - APART * number
    gaps = np.sort(rng.integers(0, max(spare, 1), number))
    return [int(gap) + APART * (place + 1) for place, gap in enumerate(gaps)][:: 1 if rng.random() < 0.5 else -1]


def _draw_movers(rng: np.random.Generator, plot: Plot, events: Sequence[int], stage: Stage) -> tuple[Mover, ...] | None:
    """One digit per event; None where there is no room for the next one."""
    movers: list[Mover] = []
    for event in events:
        drawn = (PLOTS[plot](rng, _draw_digit(rng, stage), event, stage) for _ in range(40))
        new = next((mover for mover in drawn if mover and all(_apart(mover, other, stage) for other in movers)), None)
        if new is None:
            return None
        movers.append(new)
    return tuple(movers)


def _draw_digit(rng: np.random.Generator, stage: Stage) -> Digit:
    color = list(COLORS)[rng.integers(len(COLORS))]
    sample = handwriting.pick(rng, int(rng.integers(10)), stage.split)
    side = int(rng.integers(GLYPH_SIZES[0], GLYPH_SIZES[1] + 1))
    x, y = (int(value) for value in rng.integers(0, stage.size - side + 1, 2))
    rotation, shear, thickening = (rng.uniform(-1, 1, 3) * stage.warp).tolist()
    warp: Warp = (0.2 * rotation, 0.2 * shear, 0.12 * thickening) if stage.warp else (0.0, 0.0, 0.0)
    return place_digit(sample, color, (x, y, side), warp)


def _room(digit: Digit, direction: str, size: int) -> tuple[int, int]:
    """Pixels until a digit touches the edge that it moves to, and until it is gone."""
    x0, y0, x1, y1 = digit.box
    room = {"left": (x0, x1), "right": (size - x1, size - x0), "top": (y0, y1), "bottom": (size - y1, size - y0)}
    return room[direction]


def _stay(rng: np.random.Generator, digit: Digit, event: int, stage: Stage) -> Mover | None:
    direction = list(DIRECTIONS)[rng.integers(4)]
    room, _ = _room(digit, direction, stage.size)
    least = LEAST_WAY * stage.size
    if room < least:
        return None
    return Mover(digit=digit, direction=direction, speed=rng.uniform(least, room) / max(stage.num_frames - 1, 1))


def _leave(rng: np.random.Generator, digit: Digit, event: int, stage: Stage) -> Mover:
    """Gone in frame `event`, and not before."""
    direction = list(DIRECTIONS)[rng.integers(4)]
    _, way = _room(digit, direction, stage.size)
    return Mover(digit=digit, direction=direction, speed=way / (event - 0.5))


def _enter(rng: np.random.Generator, digit: Digit, event: int, stage: Stage) -> Mover:
    """A clip of leaving, run backwards."""
    leaving = _leave(rng, digit, event, stage)
    back = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[leaving.direction]
    return Mover(digit=leaving.at(stage.num_frames - 1), direction=back, speed=leaving.speed)


PLOTS: dict[Plot, Callable[[np.random.Generator, Digit, int, Stage], Mover | None]] = {
    "stay": _stay,
    "leave": _leave,
    "enter": _enter,
}
"""What happens in a clip -> what sets one digit in motion; `event` is a frame counted from the end for "enter"."""


def _inside(box: tuple[int, int, int, int], size: int) -> bool:
    x0, y0, x1, y1 = box
    return x1 > 0 and y1 > 0 and x0 < size and y0 < size


def _apart(new: Mover, other: Mover, stage: Stage) -> bool:
    """Whether two digits differ in name and never touch."""
    if (new.digit.digit, new.digit.color) == (other.digit.digit, other.digit.color):
        return False
    boxes = ((new.box_at(frame), other.box_at(frame)) for frame in range(stage.num_frames))
    return all(a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3] for a, b in boxes)
