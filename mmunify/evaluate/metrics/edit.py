"""Edits: is the background left alone, and can the edit be read in the picture?"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmunify.data.digit_world.edits import GLOBAL_EDITS
from mmunify.evaluate.answers import Answer
from mmunify.evaluate.protocol import Protocol, Tools, source_picture
from mmunify.evaluate.reader import box_mask, read_box
from mmunify.evaluate.scores import background_psnr, background_psnr_smartedit, psnr
from mmunify.evaluate.statistics import Measure, mean, rate
from mmunify.registry import METRICS

REGION_EDITS = ("remove", "recolor", "replace")


@METRICS.register("edit")
class EditProtocol(Protocol):
    """Scores of edited pictures.

    `background_psnr`: dB over the pixels that a region edit should leave alone (100 = identical);
    `background_psnr_smartedit`: the same as the public SmartEdit evaluation counts it;
    `success`: share of edits that an independent reader finds in the picture, also per task (`success_remove`, ...).
    A missing picture has 0 dB and no success: leaving everything as it was is not an edit.
    """

    tasks = ("edit", *REGION_EDITS)
    by_calls = True

    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """Region edits are read at the digit's place; global edits are told apart by the nearest true edit."""
        results = [(answer, _fitted(tools.last(answer, "image"), source_picture(answer))) for answer in answers]
        local = [(answer, picture) for answer, picture in results if answer.task in REGION_EDITS]
        hits = [(answer.task, picture is not None and _succeeded(answer, picture)) for answer, picture in results]
        measures = {"success": rate([hit for _, hit in hits])}
        for task in sorted({task for task, _ in hits}):
            measures[f"success_{task}"] = rate([hit for name, hit in hits if name == task])
        for name, metric in (("", background_psnr), ("_smartedit", background_psnr_smartedit)):
            decibels = [_apply(metric, answer, picture) for answer, picture in local]
            measures[f"background_psnr{name}"] = mean(decibels, tools.seed)
        return measures


def _apply(metric: Callable[..., float], answer: Answer, picture: np.ndarray | None) -> float:
    return 0.0 if picture is None else metric(source_picture(answer), picture, touched(answer))


def touched(answer: Answer) -> np.ndarray:
    """Bool[H W]: what a region edit may change: the digit's box and whatever the true edit changes, one pixel more."""
    from skimage.morphology import dilation

    source, target = source_picture(answer), answer.facts["target"]
    mask = (source != target).any(axis=-1) | box_mask(answer.facts["box"], source.shape)
    return np.asarray(dilation(mask, np.ones((3, 3))))


def _fitted(picture: np.ndarray | None, source: np.ndarray) -> np.ndarray | None:
    """A result in the source's size; experts may work at their own."""
    if picture is None or picture.shape == source.shape:
        return picture
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((source.shape[1], source.shape[0]), Image.Resampling.BICUBIC))


def _succeeded(answer: Answer, picture: np.ndarray) -> bool:
    if answer.task == "edit":
        return _nearest_edit(source_picture(answer), picture) == answer.facts["call"].instruction
    found = read_box(picture, answer.facts["box"])
    if answer.task == "remove":
        return found is None
    return found is not None and (found.digit, found.color) == _wanted(answer)


def _wanted(answer: Answer) -> tuple[int, str]:
    """Digit and colour that a recolouring or a replacement should leave."""
    subject, instruction = answer.facts["objects"][answer.facts["subject"]], answer.facts["call"].instruction
    return (subject["digit"], instruction) if answer.task == "recolor" else (int(instruction), subject["color"])


def _nearest_edit(source: np.ndarray, picture: np.ndarray) -> str:
    """The global edit whose true result is most like the picture; "" where that is the unedited source."""
    options = {"": source, **{name: edit(source) for name, edit in GLOBAL_EDITS.items()}}
    return max(options, key=lambda name: psnr(options[name], picture))
