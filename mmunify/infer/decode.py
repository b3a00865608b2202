"""Predicted features of output slots -> pictures, by the model's own de-tokenizers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from mmunify.errors import UserError
from mmunify.experts.tasks._names import artifact_name
from mmunify.model import UnifiedModel
from mmunify.parts import Detokenizer, Workspace
from mmunify.types import Artifact, Condition, TaskCall


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


def slot_task(model: UnifiedModel, node: str) -> str:
    """The task of calls that an output slot makes: "generate_image", with the node where several make one kind."""
    kinds = [output.kind for output in model.spec().outputs.values()]
    kind = model.spec().outputs[node].kind
    return f"generate_{kind}" if kinds.count(kind) == 1 else f"generate_{kind}.{node}"


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
