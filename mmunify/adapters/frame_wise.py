"""Any adapter, on every frame for itself."""

from dataclasses import replace

from mmunify.errors import UserError
from mmunify.layers.rasters import count_frames, join_frames, map_runs, repeat_layout, slots_mask, split_frames
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout, Run


@ADAPTERS.register("frame_wise")
class FrameWiseAdapter(Adapter):
    """Every frame, segment or tile of an item goes through an adapter as if it were an item.

    GroundingGPT (https://arxiv.org/abs/2401.06071), whose branches UnifiedMLLM takes over, has a BLIP-2 Q-Former on
    each frame in front of the one that reads all frames: a `series` of `{name: frame_wise, adapter: {name: qformer}}`
    and `{name: qformer, positions: frames}`.

    Args:
        adapter: node of the adapter.

    Raises:
        UserError: an adapter that reads more than the tokens.
    """

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        if adapter.needs:
            raise UserError(
                f"frame_wise hands tokens of a frame on, and {type(adapter).__name__} needs {sorted(adapter.needs)} too"
            )
        self.adapter = adapter

    def layout(self, layout: Layout) -> Layout:
        """The adapter's layout of one frame, for every frame; strings stay where they are."""
        runs = map_runs(layout, lambda run: run).runs
        return Layout(runs=tuple(made for run in runs for made in self._frames_of(run)))

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, F N, E) -> (M, F S, D)."""
        frames, num_frames = split_frames(features)
        made = self.adapter(frames, replace(context, extent=None, document=None))
        mask = made.mask if made.mask is not None else slots_mask(frames, made.tokens.shape[1], num_frames)
        return join_frames(made.tokens, mask, num_frames)

    def _frames_of(self, run: Run) -> tuple[Run, ...]:
        if run.token:
            return (run,)
        count = count_frames(run)
        return repeat_layout(self.adapter.layout(Layout.of(run.slots // count, run.grid)), count).runs
