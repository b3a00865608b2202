"""What heads predict for output slots -> pictures, by the model's own de-tokenizers; masks and boxes, by themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.data.pictures import prepare, prepare_views, read_picture
from mmunify.errors import UserError
from mmunify.experts.tasks._names import artifact_name
from mmunify.layers.target_frames import RegionTarget, restore_mask, restore_regions, window
from mmunify.links import Link, pixels
from mmunify.model import UnifiedModel
from mmunify.parts import Context, Workspace
from mmunify.types import Artifact, Condition, Features, NodeSpec, Preprocess, Region, TaskCall

SLOT_TASKS = {"mask": "segment"}
"""Kind of output -> the task that it answers, where that isn't "generate_<kind>"."""


@dataclass(frozen=True)
class DetokenizerAnswer:
    """A de-tokenizer in the place of an expert: it draws what a head predicted for an output slot.

    One that starts from a source picture starts from the one that the call names, else from the latest one, if there is
    any; what it draws then has that picture's form.

    Attributes:
        link: the de-tokenizer and its neighbours.
        guidance: strength by kind of condition, handed to it.
    """

    link: Link
    guidance: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """ "detokenizers.image", the producer of its artifacts."""
        return self.link.name

    def __call__(self, call: TaskCall, workspace: Workspace) -> list[Artifact]:
        """One picture from `call.condition` [Q E].

        Raises:
            UserError: the call carries no features.
        """
        if call.condition is None:
            raise UserError(f"{self.name} draws predicted features, and the {call.task} call carries none")
        weight = next(self.link.detokenizer.parameters(), call.condition)
        states = call.condition[None].to(device=weight.device, dtype=weight.dtype)
        source = self._source(call, workspace)
        with torch.inference_mode():
            condition = self._condition(states, source)
            drawn = self.link.detokenizer.generate(condition, self.guidance, workspace.seed)[0]
        picture = (drawn.float().clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).cpu().numpy()
        if source is not None:
            picture = _in_form(picture, source.size, self._frame)
        name = artifact_name("generated" if source is None else "edited", call.instruction)
        return [Artifact(kind="image", data=picture, call=call, producer=self.name, seed=workspace.seed, name=name)]

    def _source(self, call: TaskCall, workspace: Workspace) -> Any:
        """The picture that it starts from; None = there is none, or it starts from none."""
        if self.link.detokenizer.needs.isdisjoint(("image", "features")):
            return None
        media = workspace.media if call.media is None else workspace.media[call.media : call.media + 1]
        pictures = [medium for medium in media if medium.kind == self.link.kind]
        return read_picture(pictures[-1].source) if pictures else None

    def _condition(self, states: Float[Tensor, "1 Q E"], source: Any) -> Condition:
        if source is None:
            return self.link.condition(states)
        image = pixels(prepare(source, self._frame)[None].to(states.device), self._frame).to(states.dtype)
        return self.link.condition(states, image, features=self._features(source, states))

    def _features(self, source: Any, like: Tensor) -> Features | None:
        eye = self.link.looks
        if eye is None or "features" not in self.link.detokenizer.needs:
            return None
        values = prepare_views(source, eye.preprocess)[None].to(device=like.device, dtype=like.dtype)
        return eye(values, Context(kind=self.link.kind, extent=torch.tensor([source.size], device=like.device)))

    @property
    def _frame(self) -> Preprocess:
        """How a source picture is fitted into the de-tokenizer's."""
        eye = self.link.looks
        return self.link.detokenizer.preprocess or (Preprocess() if eye is None else eye.preprocess)


@dataclass(frozen=True)
class MaskAnswer:
    """A masks head in the place of an expert: the mask that it predicted, in the size of the latest picture.

    Attributes:
        name: "heads.mask", the producer of its artifacts.
        frame: how the picture was fitted into the grounding encoder's.
    """

    name: str
    frame: Preprocess

    def __call__(self, call: TaskCall, workspace: Workspace) -> list[Artifact]:
        """One mask from `call.condition` [F H W], the logits.

        Raises:
            UserError: there is no picture, or the mask is that of a clip.
        """
        pictures = [medium for medium in workspace.media if medium.kind == self.frame.kind]
        if call.condition is None or call.condition.shape[0] != 1 or not pictures:
            raise UserError(f"{self.name} needs one predicted mask and a picture; {len(pictures)} pictures are there")
        extent = read_picture(pictures[-1].source).size
        mask = restore_mask(call.condition[0], extent, self.frame).cpu().numpy()
        name = artifact_name("mask", call.instruction)
        return [Artifact(kind="mask", data=mask, call=call, producer=self.name, name=name)]


def output_heads(model: UnifiedModel) -> dict[str, NodeSpec]:
    """Heads that make something else than text; what de-tokenizers read of the outputs is left out."""
    return {node: output for node, output in model.spec().outputs.items() if node in model.heads}


def slot_task(model: UnifiedModel, node: str) -> str:
    """The task of calls that an output slot makes: "generate_image", with the node where several make one kind."""
    heads = output_heads(model)
    kinds, kind = [output.kind for output in heads.values()], heads[node].kind
    task = SLOT_TASKS.get(kind, f"generate_{kind}")
    return task if kinds.count(kind) == 1 else f"{task}.{node}"


def detokenizer_answers(model: UnifiedModel) -> dict[str, DetokenizerAnswer]:
    """Task of a slot (see `slot_task`) -> the de-tokenizer of its head, for heads that have one.

    It is the one linked to the head, else the one that inverts the encoder whose features the head learns.
    """
    linked = {model.wiring[f"detokenizers.{node}"].source: node for node in model.detokenizers}
    answers = {}
    for head in output_heads(model):
        sources = (f"heads.{head}", f"encoders.{model.heads[head].target}")
        node = next((linked[source] for source in sources if source in linked), None)
        if node is not None:
            answers[slot_task(model, head)] = DetokenizerAnswer(model.link(node))
    return answers


def mask_answers(model: UnifiedModel) -> dict[str, MaskAnswer]:
    """Task of a slot (see `slot_task`) -> the mask that its head predicted."""
    frames = {node: region_frame(model, node) for node in output_heads(model) if made_by(model, node) == "mask"}
    return {slot_task(model, node): MaskAnswer(f"heads.{node}", frame) for node, frame in frames.items()}


def read_boxes(model: UnifiedModel, node: str, boxes: Tensor, extent: tuple[int, int]) -> list[Region]:
    """Predicted corners (K, 4) -> regions of a picture of this (width, height); those without area are left out."""
    return restore_regions(boxes, extent, region_frame(model, node))


def made_by(model: UnifiedModel, node: str) -> str:
    """What a head makes of its slots: "features", a "mask", a "box" or a "score"."""
    return str(model.heads[node].makes)


def region_frame(model: UnifiedModel, node: str) -> Preprocess:
    """How media are fitted into the pictures of the encoder in whose frame a head's masks or boxes are.

    Raises:
        UserError: a head that makes neither.
    """
    preprocess = model.spec().outputs[node].preprocess
    if not isinstance(preprocess, RegionTarget):
        raise UserError(f"head {node!r} makes neither masks nor boxes of a medium")
    return preprocess.frame


def _in_form(picture: np.ndarray, extent: tuple[int, int], frame: Preprocess) -> np.ndarray:
    """A picture of a frame's form -> of the original's: without padding, as large as what the frame shows of it."""
    from PIL import Image

    left, top, wide, high = window(extent, frame)
    shown = (max(-left, 0), max(-top, 0), min(wide, extent[0] - left), min(high, extent[1] - top))
    across, down = picture.shape[1] / wide, picture.shape[0] / high
    cut = (shown[0] * across, shown[1] * down, shown[2] * across, shown[3] * down)
    size = (round(shown[2] - shown[0]), round(shown[3] - shown[1]))
    if cut == (0, 0, picture.shape[1], picture.shape[0]) and size == picture.shape[1::-1]:
        return picture
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC, box=cut))
