import pytest
import torch

from mmunify.encoders.anyres import AnyResEncoder
from mmunify.encoders.clip import CLIPEncoder
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import check_encoder, picture_values, randomize, tiny_clip_folder
from tests.conftest import TINY_CLIP

CANVASES = [[32, 64], [64, 32], [64, 64]]


def example(folder):
    return {"encoder": {"name": "clip", "path": str(tiny_clip_folder(folder / "clip"))}, "canvases": CANVASES}


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return AnyResEncoder(randomize(CLIPEncoder(config=TINY_CLIP, layers=[0])), canvases=CANVASES).eval()


def test_tiles_become_one_map_without_its_border(encoder):
    """A strip of 64 x 20 on a canvas of two tiles: rows 0 and 3 of four are border."""
    values = torch.randn(1, 3, 3, 32, 32)
    features = encoder(values, Context(extent=torch.tensor([[64, 20]])))
    base, left, right = encoder.encoder(values[0].unsqueeze(1), Context()).tokens
    joined = torch.cat([left.view(4, 4, -1), right.view(4, 4, -1)], dim=1)
    torch.testing.assert_close(features.tokens[0, :16], base)
    torch.testing.assert_close(features.tokens[0, 16:], joined[1:3].flatten(0, 1))
    assert features.tokens.shape[1] == encoder.layout((64, 20)).num_slots == 16 + 2 * 8
    assert features.mask.all()


def test_items_of_several_sizes(encoder):
    sizes = [(30, 30), (200, 20), (20, 200), (64, 60)]
    counts = [encoder.preprocess.num_views(size) for size in sizes]
    values = torch.randn(4, max(counts), 3, 32, 32)
    features = encoder(values, Context(extent=torch.tensor(sizes)))
    assert features.mask.sum(dim=1).tolist() == [encoder.layout(size).num_slots for size in sizes]
    for item, size in enumerate(sizes):
        alone = encoder(values[item : item + 1], Context(extent=torch.tensor([size])))
        torch.testing.assert_close(features.tokens[item][features.mask[item]], alone.tokens[0])
        torch.testing.assert_close(features.layers[0][item][features.mask[item]], alone.layers[0][0])
        torch.testing.assert_close(features.pooled[item], alone.pooled[0])
    assert not features.tokens[~features.mask].any()


def test_without_a_size_it_is_the_inner_encoder(encoder):
    values = picture_values(encoder.preprocess)
    assert torch.equal(check_encoder(encoder, values).tokens, encoder.encoder(values, Context()).tokens)


def test_newlines_are_vocabulary(encoder):
    assert [run.token or run.slots for run in encoder.layout((64, 20)).runs] == [16, 8, "\n", 8, "\n"]


def test_views_of_other_preprocessing(encoder):
    with pytest.raises(DataError, match="encoder 'anyres' got 1 items of 1 views"):
        encoder(torch.zeros(1, 1, 3, 32, 32), Context(extent=torch.tensor([[64, 20]])))


def test_canvases_are_multiples_of_the_towers_size():
    with pytest.raises(UserError, match=r"multiples of 32 x 32, at least one; got \[\(336, 672\)"):
        AnyResEncoder(CLIPEncoder(config=TINY_CLIP))
    with pytest.raises(UserError, match="anyres needs an encoder whose tokens form a raster"):
        AnyResEncoder(CLIPEncoder(config=TINY_CLIP, drop_class=False), canvases=CANVASES)
