"""What the user gets: artifacts and replies."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmunify.types.conversation import Region, TaskCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Something that an expert made.

    Attributes:
        kind: "mask" (Bool[H W]), "image" (uint8 [H W 3]), ...
        data: the array.
        call: the call that asked for it.
        producer: registered name of the expert or de-tokenizer.
        seed: of its random draws, if any.
        name: stem of the file that `save` writes; says what it is.
    """

    kind: str
    data: np.ndarray
    call: TaskCall
    producer: str
    seed: int | None = None
    name: str = ""

    def save(self, path: str | Path) -> Path:
        """Write a PNG; a folder gets a file named `<name or task>.png`. Existing files are kept: a number is added."""
        from PIL import Image

        target = Path(path)
        if target.suffix.lower() != ".png":
            target = target / f"{self.name or self.call.task}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        stem, number = target.stem, 2
        while target.exists():
            target, number = target.with_name(f"{stem}-{number}.png"), number + 1
        pixels = self.data.astype(np.uint8) * 255 if self.data.dtype == bool else self.data
        Image.fromarray(pixels).save(target)
        return target


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the assistant answers.

    Attributes:
        text: the words, without task calls.
        raw: everything that the model wrote.
        calls: the calls to experts, in order.
        regions: regions that the text names outside calls.
        artifacts: what the experts made, in order.
        problems: what was wrong with the reply, as readable strings.
    """

    text: str
    raw: str = ""
    calls: tuple[TaskCall, ...] = ()
    regions: tuple[Region, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    problems: tuple[str, ...] = ()
