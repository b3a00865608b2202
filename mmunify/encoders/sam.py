"""SAM's vision encoder, from transformers: the grounding encoder behind mask heads."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from mmunify.encoders._pictures import single_frame
from mmunify.layers.sam import load_sam
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout, Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@ENCODERS.register("sam")
class SAMEncoder(Encoder):
    """The image embedding that SAM's mask decoder reads (https://arxiv.org/abs/2304.02643): 64 x 64 of width 256.

    Pictures are padded in their middle, as everywhere in this library; SAM's own code pads to the right and below.

    Args:
        path: hub id or folder of a whole SAM.
        config: SamConfig's arguments, for random weights where there is no path; with a path, it describes the model
            where no weights are read (on the meta device).
        fit: how a picture becomes a square, see `Preprocess`.

    Raises:
        UserError: neither path nor config, or no SAM.
        CheckpointError: files that are missing or damaged.
    """

    def __init__(
        self,
        path: str | None = None,
        config: dict | None = None,
        fit: Literal["pad", "stretch", "crop"] = "pad",
    ) -> None:
        super().__init__()
        model = load_sam(path, config)
        self.model, self.external = model.vision_encoder, path
        settings = model.config.vision_config
        self.out_dim: int = settings.output_channels
        side = settings.image_size // settings.patch_size
        self._grid = (side, side)
        size = (settings.image_size, settings.image_size)
        self.preprocess = Preprocess(size=size, mean=MEAN, std=STD, fit=fit)

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """The raster of patches, whatever the extent."""
        return Layout.of(self._grid[0] * self._grid[1], self._grid)

    def forward(self, values: Float[Tensor, "M F C H W"], context: Context) -> Features:
        """Pictures (M, 1, 3, H, W) -> tokens (M, N, E)."""
        raster = self.model(single_frame(values, "sam")).last_hidden_state
        return Features(tokens=raster.flatten(2).transpose(1, 2), grid=self._grid)
