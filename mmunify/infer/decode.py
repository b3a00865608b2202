"""What heads predict for output slots -> pictures, by the model's own de-tokenizers; masks and boxes, by themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmunify.data.pictures import read_picture
from mmunify.errors import UserError
from mmunify.experts.tasks._names import artifact_name
from mmunify.heads._token_head import TokenHead
from mmunify.layers.target_frames import RegionTarget, restore_box, restore_mask
from mmunify.model import UnifiedModel
from mmunify.parts import Detokenizer, Workspace
from mmunify.types import Artifact, Condition, Preprocess, Region, TaskCall

SLOT_TASKS = {"mask": "segment"}
"""Kind of output -> the task that it answers, where that isn't "generate_<kind>"."""


@dataclass(frozen=True)
class DetokenizerAnswer:
    """A de-tokenizer in the place of an expert: it draws what a head predicted for an output slot.

    Attributes:
        name: "detokenizers.image", the producer of its artifacts.
        detokenizer: the part.
        guidance: strength by kind of condition, handed to it.
    """

    name: str
    detokenizer: Detokenizer
    guidance: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, call: TaskCall, workspace: Workspace) -> list[Artifact]:
        """One picture from `call.condition` [Q E].

        Raises:
            UserError: the call carries no features.
        """
        if call.condition is None:
            raise UserError(f"{self.name} draws predicted features, and the {call.task} call carries none")
        weight = next(self.detokenizer.parameters(), call.condition)
        states = call.condition[None].to(device=weight.device, dtype=weight.dtype)
        with torch.inference_mode():
            pixels = self.detokenizer.generate(Condition(states=states), self.guidance, workspace.seed)[0]
        picture = (pixels.float().clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).cpu().numpy()
        name = artifact_name("generated", call.instruction)
        return [Artifact(kind="image", data=picture, call=call, producer=self.name, seed=workspace.seed, name=name)]


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


def slot_task(model: UnifiedModel, node: str) -> str:
    """The task of calls that an output slot makes: "generate_image", with the node where several make one kind."""
    kinds = [output.kind for output in model.spec().outputs.values()]
    kind = model.spec().outputs[node].kind
    task = SLOT_TASKS.get(kind, f"generate_{kind}")
    return task if kinds.count(kind) == 1 else f"{task}.{node}"


def detokenizer_answers(model: UnifiedModel) -> dict[str, DetokenizerAnswer]:
    """Task of a slot (see `slot_task`) -> the de-tokenizer of its head, for heads that have one.

    It is the one linked to the head, else the one that inverts the encoder whose features the head learns.
    """
    linked = {model.wiring[f"detokenizers.{node}"].source: node for node in model.detokenizers}
    answers = {}
    for head in model.spec().outputs:
        sources = (f"heads.{head}", f"encoders.{getattr(model.heads[head], 'target', None)}")
        node = next((linked[source] for source in sources if source in linked), None)
        if node is not None:
            detokenizer: Detokenizer = model.detokenizers[node]  # type: ignore[assignment]
            answers[slot_task(model, head)] = DetokenizerAnswer(f"detokenizers.{node}", detokenizer)
    return answers


def mask_answers(model: UnifiedModel) -> dict[str, MaskAnswer]:
    """Task of a slot (see `slot_task`) -> the mask that its head predicted."""
    frames = {node: region_frame(model, node) for node in model.spec().outputs if made_by(model, node) == "mask"}
    return {slot_task(model, node): MaskAnswer(f"heads.{node}", frame) for node, frame in frames.items()}


def read_boxes(model: UnifiedModel, node: str, boxes: Tensor, extent: tuple[int, int]) -> list[Region]:
    """Predicted corners (K, 4) -> regions of a picture of this (width, height); those without area are left out."""
    restored = [restore_box(box, extent, region_frame(model, node)) for box in boxes.tolist()]
    return [Region(box=box) for box in restored if box[0] < box[2] and box[1] < box[3]]


def made_by(model: UnifiedModel, node: str) -> str:
    """What a head makes of its slots: "features", a "mask", a "box" or a "score"."""
    head = model.heads[node]
    return head.makes if isinstance(head, TokenHead) else "features"


def region_frame(model: UnifiedModel, node: str) -> Preprocess:
    """How media are fitted into the pictures of the encoder in whose frame a head's masks or boxes are.

    Raises:
        UserError: a head that makes neither.
    """
    preprocess = model.spec().outputs[node].preprocess
    if not isinstance(preprocess, RegionTarget):
        raise UserError(f"head {node!r} makes neither masks nor boxes of a medium")
    return preprocess.frame
