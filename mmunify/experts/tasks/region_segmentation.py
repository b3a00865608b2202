"""Segmentation of the object inside each box, without weights."""

from mmunify.experts.tasks._matte import cut_out
from mmunify.experts.tasks._names import artifact_name
from mmunify.experts.tasks._pictures import input_picture
from mmunify.parts import Expert, Workspace
from mmunify.registry import EXPERTS
from mmunify.types import Artifact, TaskCall


@EXPERTS.register("region_segmentation")
class RegionSegmentation(Expert):
    """Answers `segment` with one mask (Bool[H W]) per region, by colour and contrast against the box's surroundings."""

    name = "region_segmentation"
    tasks = ("segment",)
    inputs = ("image", "regions")

    def __call__(self, call: TaskCall, workspace: Workspace) -> list[Artifact]:
        """One mask per region, in order.

        Raises:
            UserError: no picture, or a region without an area.
        """
        picture = input_picture(call, workspace)
        return [
            Artifact(
                kind="mask",
                data=cut_out(picture, region).mask(picture.shape),
                call=call,
                producer=self.name,
                name=artifact_name("mask", region.label or call.instruction),
            )
            for region in call.regions
        ]
