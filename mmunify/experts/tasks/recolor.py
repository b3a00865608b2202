"""Another colour for an object, with its shading and its anti-aliased edge kept."""

import numpy as np

from mmunify.errors import UserError
from mmunify.experts.tasks._colors import COLORS, find_colors
from mmunify.experts.tasks._matte import cut_out
from mmunify.experts.tasks._names import all_labels, artifact_name
from mmunify.experts.tasks._pictures import input_picture
from mmunify.parts import Expert, Workspace
from mmunify.registry import EXPERTS
from mmunify.types import Artifact, Region, TaskCall


@EXPERTS.register("recolor")
class Recolor(Expert):
    """Answers `recolor`: the object's pixels move by (new colour - its typical colour) times their alpha."""

    name = "recolor"
    tasks = ("recolor",)
    inputs = ("image", "regions")

    def __call__(self, call: TaskCall, workspace: Workspace) -> list[Artifact]:
        """One picture. The last colour that the instruction names is the new one ("from red to blue").

        Raises:
            UserError: no picture, no colour in the instruction, or a region without an area.
        """
        named = find_colors(call.instruction)
        if not named:
            raise UserError(
                f"{call.instruction!r} names no colour; name one of {', '.join(COLORS)}, a CSS colour or #rrggbb"
            )
        color, rgb = named[-1]
        picture = input_picture(call, workspace)
        for region in call.regions:
            picture = _recolored(picture, region, np.asarray(rgb, dtype=np.float32))
        name = artifact_name("edited recolor", all_labels((r.label for r in call.regions), "object"), color)
        return [Artifact(kind="image", data=picture, call=call, producer=self.name, name=name)]


def _recolored(picture: np.ndarray, region: Region, color: np.ndarray) -> np.ndarray:
    matte = cut_out(picture, region)
    result = picture.copy()
    window = picture[matte.window] + matte.alpha[..., None] * (color - matte.color)
    result[matte.window] = np.clip(window + 0.5, 0, 255).astype(np.uint8)
    return result
