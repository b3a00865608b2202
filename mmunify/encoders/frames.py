"""A video as the pictures that an image encoder sees of it."""

from jaxtyping import Float
from torch import Tensor

from mmunify.encoders._moments import join_moments
from mmunify.errors import UserError
from mmunify.layers.clips import ClipPreprocess, Sampling
from mmunify.layers.rasters import repeat_layout
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout, Preprocess


@ENCODERS.register("frames")
class FramesEncoder(Encoder):
    """Any image encoder over uniformly sampled frames: the video branch of UnifiedMLLM (64 frames) and Vitron (8).

    Tokens stand frame by frame; the features' grid is that of one frame, which adapters with `positions: frames` and
    `average_pool` over frames go by (https://arxiv.org/abs/2408.02503, https://arxiv.org/abs/2412.19806).
    Which frames are seen depends on the clip alone, in training as in evaluation.

    Args:
        encoder: node of an encoder of still pictures.
        num_frames: F. Clips of fewer frames, of one too, show some of them several times (see `ClipPreprocess`).
        sampling: which frames, see `ClipPreprocess`.

    Raises:
        UserError: no frame, or an encoder of something else than pictures of one size.
    """

    def __init__(self, encoder: Encoder, num_frames: int = 64, sampling: Sampling = "middle") -> None:
        super().__init__()
        inner = encoder.preprocess
        if type(inner) is not Preprocess or inner.kind != "image":
            raise UserError(
                f"frames wraps an encoder of still pictures of one size; {type(encoder).__name__} reads media of kind "
                f"{inner.kind!r} with {type(inner).__name__}"
            )
        if num_frames < 1:
            raise UserError(f"frames needs num_frames of at least 1, got {num_frames}")
        self.encoder = encoder
        self.num_frames, self.out_dim = num_frames, encoder.out_dim
        self.preprocess: ClipPreprocess = ClipPreprocess(
            size=inner.size, mean=inner.mean, std=inner.std, fit=inner.fit, num_frames=num_frames, sampling=sampling
        )

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """The inner encoder's layout, once per frame."""
        return repeat_layout(self.encoder.layout(extent), self.num_frames)

    def forward(self, values: Float[Tensor, "M F C H W"], context: Context) -> Features:
        """Clips of any number F of frames -> tokens (M, F N, E), pooled (M, P): the mean over frames."""
        num_items, num_frames = values.shape[:2]
        frames = self.encoder(values.flatten(0, 1).unsqueeze(1), Context(kind="image"))
        return join_moments(frames, num_items, num_frames)
