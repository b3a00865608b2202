"""Removal of objects: each is segmented inside its box and its place is filled from what surrounds it."""

from mmunify.experts.tasks._erase import erase
from mmunify.experts.tasks._matte import cut_out
from mmunify.experts.tasks._names import all_labels, artifact_name
from mmunify.experts.tasks._pictures import input_picture
from mmunify.parts import Expert, Workspace
from mmunify.registry import EXPERTS
from mmunify.types import Artifact, TaskCall


@EXPERTS.register("inpaint_removal")
class InpaintRemoval(Expert):
    """Answers `remove` with the picture without the objects of the regions (biharmonic in-painting and grain)."""

    name = "inpaint_removal"
    tasks = ("remove",)
    inputs = ("image", "regions")

    def __call__(self, call: TaskCall, workspace: Workspace) -> list[Artifact]:
        """One picture; pixels away from the regions are untouched.

        Raises:
            UserError: no picture, a region without an area, or one that covers the whole picture.
        """
        picture = input_picture(call, workspace)
        for region in call.regions:
            picture = erase(picture, cut_out(picture, region), workspace.seed)
        label = all_labels((region.label for region in call.regions), call.instruction)
        name = artifact_name("edited remove", label)
        return [Artifact(kind="image", data=picture, call=call, producer=self.name, seed=workspace.seed, name=name)]
