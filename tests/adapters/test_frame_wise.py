import pytest
import torch

from mmunify.adapters.frame_wise import FrameWiseAdapter
from mmunify.adapters.linear import LinearAdapter
from mmunify.adapters.qformer import QFormerAdapter
from mmunify.errors import UserError
from mmunify.parts import Context
from mmunify.registry import ADAPTERS
from mmunify.types import Features, Layout, Run

TINY = {"dim": 24, "depth": 2, "num_heads": 4, "num_queries": 5}


def example(folder):
    return {"adapter": {"name": "qformer", **TINY}}


@pytest.fixture
def adapter():
    torch.manual_seed(0)
    return FrameWiseAdapter(QFormerAdapter(8, 16, **TINY)).eval()


def test_frames_are_items_of_the_adapter(adapter):
    tokens, mask = torch.randn(2, 15, 8), torch.ones(2, 15, dtype=torch.bool)
    mask[1, 10:] = False
    made = adapter(Features(tokens=tokens, mask=mask, num_frames=3), Context())
    wanted = [adapter.adapter(Features(tokens=tokens[:, 5 * i : 5 * i + 5]), Context()).tokens for i in range(3)]
    torch.testing.assert_close(made.tokens[0], torch.cat(wanted, dim=1)[0])
    assert made.num_frames == 3 and made.mask.sum(1).tolist() == [15, 10]


def test_layouts_of_frames_and_tiles(adapter):
    assert adapter.layout(Layout(runs=(Run(slots=15, num_frames=3),))).runs == (Run(slots=15, num_frames=3),)
    tile = (Run(token="<patch>"), Run(slots=6, grid=(2, 3)), Run(token="</patch>"))
    made = adapter.layout(Layout(runs=tile * 2)).runs
    assert [run.slots or run.token for run in made] == ["<patch>", 5, "</patch>"] * 2
    assert adapter.layout(Layout.of(12, (2, 3))).num_slots == 10


def test_an_adapter_that_works_token_by_token_keeps_its_mask():
    adapter = FrameWiseAdapter(LinearAdapter(8, 16))
    mask = torch.tensor([[True, True, True, False]])
    made = adapter(Features(tokens=torch.randn(1, 4, 8), mask=mask, num_frames=2), Context())
    assert torch.equal(made.mask, mask)


def test_adapters_that_read_more_than_tokens_are_refused():
    with pytest.raises(UserError, match=r"AggregatorAdapter needs \['layers:0'\] too"):
        ADAPTERS.build({"name": "frame_wise", "adapter": {"name": "aggregator", "layers": [0]}}, in_dim=8, out_dim=8)


def test_the_video_branch_of_grounding_gpt():
    """64 frames of 257 x 1408 -> 32 queries each -> 64 queries over all of them -> 64 slots of 4096."""
    inner = {"name": "qformer", "num_queries": 32, "depth": 12, "dim": 768, "out_dim": None}
    second = {"name": "qformer", "num_queries": 64, "depth": 2, "cross_attention_frequency": 1, "positions": "frames"}
    with torch.device("meta"):
        parts = [{"name": "frame_wise", "adapter": inner}, {**second, "in_dim": 768}]
        series = ADAPTERS.build({"name": "series", "parts": parts}, in_dim=1408, out_dim=4096)
        made = series(Features(tokens=torch.zeros(1, 64 * 257, 1408), num_frames=64), Context(kind="video"))
    assert made.tokens.shape == (1, 64, 4096)
    assert series.layout(Layout(runs=(Run(slots=64 * 257, num_frames=64),))).num_slots == 64
    positions = series.parts[1].temporal.table.numel()
    read = sum(p.numel() for name, p in series.parts[1].named_parameters() if not name.startswith("project."))
    assert (positions, read - positions) == (49_152, 18_954_240)
