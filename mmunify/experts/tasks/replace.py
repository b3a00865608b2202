"""Another digit, or a word, in an object's place."""

import numpy as np

from mmunify.experts.tasks._colors import find_colors
from mmunify.experts.tasks._erase import erase
from mmunify.experts.tasks._glyphs import draw_number, draw_words, paste_ink
from mmunify.experts.tasks._matte import cut_out
from mmunify.experts.tasks._names import all_labels, artifact_name
from mmunify.experts.tasks._pictures import input_picture, pixel_box
from mmunify.experts.tasks._requests import bare, find_number
from mmunify.parts import Expert, Workspace
from mmunify.registry import EXPERTS
from mmunify.types import Artifact, Region, TaskCall


@EXPERTS.register("replace")
class Replace(Expert):
    """Answers `replace`: removes the object and writes the new digits in handwriting, or the new words in print.

    What is new has the old object's colour (unless the instruction names one), height and centre.
    """

    name = "replace"
    tasks = ("replace",)
    inputs = ("image", "regions")

    def __call__(self, call: TaskCall, workspace: Workspace) -> list[Artifact]:
        """One picture.

        Raises:
            UserError: no picture, a region without an area, or one that covers the whole picture.
        """
        picture = input_picture(call, workspace)
        rng = np.random.default_rng(workspace.seed)
        for region in call.regions:
            picture = _replaced(picture, region, call.instruction, workspace.seed, rng)
        label = all_labels((region.label for region in call.regions), "object")
        name = artifact_name("edited replace", label, "by", call.instruction)
        return [Artifact(kind="image", data=picture, call=call, producer=self.name, seed=workspace.seed, name=name)]


def _replaced(picture: np.ndarray, region: Region, instruction: str, seed: int, rng: np.random.Generator) -> np.ndarray:
    matte = cut_out(picture, region)
    named = find_colors(instruction)
    x0, y0, x1, y1 = pixel_box(region, picture.shape)
    number = find_number(instruction)
    ink = draw_number(number, y1 - y0, rng) if number else draw_words(bare(instruction), y1 - y0, x1 - x0)
    result = erase(picture, matte, seed)
    paste_ink(result, ink, ((x0 + x1) / 2, (y0 + y1) / 2), named[-1][1] if named else matte.color)
    return result
