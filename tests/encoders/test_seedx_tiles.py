import pytest
import torch

from mmunify.composer import compose
from mmunify.data.pictures import prepare_views
from mmunify.data.processor import Processor
from mmunify.encoders.clip import CLIPEncoder
from mmunify.encoders.seedx_tiles import SeedXTilesEncoder
from mmunify.errors import UserError
from mmunify.parts import Context
from mmunify.registry import ADAPTERS, ENCODERS
from mmunify.testing import check_encoder, picture_values, randomize, tiny_clip_folder
from mmunify.types import SlotSpec
from tests.conftest import TINY_CLIP

SIZES = [(70, 30), (20, 20), (64, 60)]  # 2x1, 1x1, 2x2 tiles of 32 pixels


def example(folder):
    return {"encoder": {"name": "clip", "path": str(tiny_clip_folder(folder / "clip"))}}


@pytest.fixture
def clip():
    torch.manual_seed(0)
    return randomize(CLIPEncoder(config=TINY_CLIP)).eval()


def batch(encoder, sizes, pictures):
    """Views as the data side packs them, and the context."""
    views = [prepare_views(picture, encoder.preprocess) for picture in pictures]
    longest = max(len(view) for view in views)
    padded = [torch.cat([view, torch.full((longest - len(view), *view.shape[1:]), 9.0)]) for view in views]
    return torch.stack(padded), Context(extent=torch.tensor(sizes))


def pictures_of(sizes):
    from PIL import Image

    generator = torch.Generator().manual_seed(1)
    arrays = [torch.randint(0, 256, (h, w, 3), generator=generator, dtype=torch.uint8).numpy() for w, h in sizes]
    return [Image.fromarray(array) for array in arrays]


def test_every_view_is_encoded_on_its_own(clip):
    encoder = SeedXTilesEncoder(clip, positions=False).eval()
    values, context = batch(encoder, SIZES, pictures_of(SIZES))
    features = encoder(values, context)
    assert features.tokens.shape == (3, 5 * 16, 32)
    assert features.grid == (4, 4)
    assert features.mask.sum(dim=1).tolist() == [3 * 16, 2 * 16, 5 * 16]
    for item, count in enumerate([3, 2, 5]):
        alone = clip(values[item, :count].unsqueeze(1), Context())
        torch.testing.assert_close(features.tokens[item, : count * 16], alone.tokens.flatten(0, 1))
        torch.testing.assert_close(features.pooled[item], alone.pooled[-1])
        assert not features.tokens[item, count * 16 :].any()


def test_tokens_know_where_their_view_lies(clip):
    torch.manual_seed(0)
    plain, placed = SeedXTilesEncoder(clip, positions=False).eval(), SeedXTilesEncoder(clip).eval()
    values, context = batch(placed, SIZES, pictures_of(SIZES))
    added = placed(values, context).tokens - plain(values, context).tokens
    left, right, top, bottom = placed.positions.edges
    first = (0.25 * left + 0.5 * right + 0.75 * top + 0.5 * bottom) / 2
    torch.testing.assert_close(added[0, :16], first.expand(16, -1), atol=1e-5, rtol=0)
    whole = placed.positions.edges.mean(dim=0)
    torch.testing.assert_close(added[0, 32:48], whole.expand(16, -1), atol=1e-5, rtol=0)


def test_targets_are_the_whole_picture_alone(clip):
    encoder = SeedXTilesEncoder(clip).eval()
    features = check_encoder(encoder)
    assert features.mask is None
    alone = clip(picture_values(clip.preprocess), Context()).tokens
    torch.testing.assert_close(features.tokens, alone + encoder.positions.edges.mean(dim=0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("adapter", ["resampler", "mlp", "average_pool", "perceiver", "pixel_shuffle"])
@pytest.mark.parametrize("size", [*SIZES, (10_000, 10), (1, 1)])
def test_slots_are_what_adapters_make_of_the_tokens(clip, adapter, size):
    """What the data side lays out = the adapter's layout of all views = the embeddings that come."""
    arguments = {"resampler": {"num_queries": 4}, "perceiver": {"num_queries": 3, "depth": 1}}.get(adapter, {})
    built = ADAPTERS.build({"name": adapter, **arguments}, in_dim=32, out_dim=24).eval()
    encoder = SeedXTilesEncoder(clip).eval()
    slot = encoder.preprocess.slot(SlotSpec(layout=built.layout(encoder.layout())), size)
    assert slot.layout.num_slots == built.layout(encoder.layout(size)).num_slots
    both = [(20, 20), size]
    values, context = batch(encoder, both, pictures_of(both))
    embeds = built(encoder(values, context), context)
    real = embeds.tokens.shape[1] if embeds.mask is None else int(embeds.mask[1].sum())
    assert real == slot.layout.num_slots


def test_layout_with_strings(clip):
    runs = SeedXTilesEncoder(clip, opens="<tile>", closes="").layout((70, 30)).runs
    assert [run.token or run.slots for run in runs] == ["<tile>", 16, "<tile>", 16, 16]


def test_grids_and_rules_of_a_recipe(tmp_path):
    node = {"name": "seedx_tiles", "grids": [[1, 1], [3, 1]], **example(tmp_path)}
    assert ENCODERS.build(node).preprocess.grid((96, 32)) == (3, 1)
    ceiling = ENCODERS.build({"name": "seedx_tiles", "rule": "ceiling", "max_tiles": 4, **example(tmp_path)})
    assert ceiling.preprocess.grid((320, 32)) == (4, 1)
    with pytest.raises(UserError, match="grids takes pairs of whole numbers"):
        ENCODERS.build({**node, "grids": [[0, 1]]})


def test_encoders_without_a_raster():
    with pytest.raises(UserError, match="seedx_tiles needs an encoder whose tokens form a raster"):
        SeedXTilesEncoder(CLIPEncoder(config=TINY_CLIP, drop_class=False))


def test_a_batch_of_several_sizes_is_its_samples_one_by_one(nodes, make_sample):
    nodes["encoders"] = {"image": {"name": "seedx_tiles", "encoder": nodes["encoders"]["image"]}}
    nodes["adapters"] = {"image": {"name": "resampler", "num_queries": 4}}
    nodes["heads"].pop("image")
    model = compose(**nodes).eval()
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    samples = [make_sample("a" * 9, 2), make_sample("b", 0), make_sample("c" * 30, 1)]
    together = model(processor(samples))
    apart = [model(processor([sample])) for sample in samples]
    loss = sum(report.losses["text/cross_entropy"] for report in apart)
    torch.testing.assert_close(together.losses["text/cross_entropy"], loss, atol=1e-4, rtol=0)
    together.total.backward()
    assert model.encoders["image"].positions.edges.grad.abs().sum() > 0
