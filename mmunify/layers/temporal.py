"""Learned positions of frames and segments."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

NUM_FRAMES = 64  # GroundingGPT's


class TemporalPositions(nn.Module):
    """One learned vector per frame of a clip or segment of a sound, added to all of its tokens.

    This is the temporal position encoding of UnifiedMLLM (https://arxiv.org/abs/2408.02503). A clip of more frames
    than the table has gets the table stretched (linear); one of fewer gets its first rows.

    Args:
        dim: width of the tokens.
        num_frames: length of the table.
    """

    def __init__(self, dim: int, num_frames: int = NUM_FRAMES) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(num_frames, dim) * 0.02)

    def forward(self, tokens: Float[Tensor, "M N E"], tokens_per_frame: int) -> Float[Tensor, "M N E"]:
        """Tokens frame by frame, each `tokens_per_frame` long."""
        frames = self._rows(tokens.shape[1] // tokens_per_frame)
        return tokens + frames.repeat_interleave(tokens_per_frame, dim=0).to(tokens.dtype)

    def _rows(self, num_frames: int) -> Float[Tensor, "F E"]:
        if num_frames <= len(self.table):
            return self.table[:num_frames]
        return F.interpolate(self.table.T[None], size=num_frames, mode="linear", align_corners=True)[0].T
