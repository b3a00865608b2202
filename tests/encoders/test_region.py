from dataclasses import replace

import numpy as np
import pytest
import torch

from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.encoders.region import RegionEncoder
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import random_features
from mmunify.tokens import TokenRegistry
from mmunify.types import Features, Media, Region, Sample, Turn

SOURCE = random_features(8, (4, 4), num_items=3, needs=frozenset({"layers:1", "layers:2"}))


def example(folder):
    return {"in_dim": 8, "dim": 16, "mask_size": 8}


def example_values():
    return rows([(2, (0.0, 0.5, 0.5, 1.0)), (0, (0.25, 0.25, 1.0, 0.75))])


def example_context():
    return Context(kind="region", source=SOURCE)


def rows(regions, size=8):
    """Rows of boxes, with their masks."""
    made = []
    for item, (x0, y0, x1, y1) in regions:
        mask = torch.zeros(size, size)
        mask[round(y0 * size) : round(y1 * size), round(x0 * size) : round(x1 * size)] = 1
        made.append(torch.tensor([item, x0, y0, x1, y1, *mask.flatten().tolist()]))
    return torch.stack(made)


def test_a_token_is_mean_under_the_mask_plus_its_place():
    torch.manual_seed(0)
    encoder = RegionEncoder(8, 16, mask_size=8)
    features = encoder(example_values(), example_context())
    assert features.tokens.shape == (2, 1, 16)
    raster = SOURCE.tokens[2].view(4, 4, 8)
    read = encoder.mask_pool.project(raster[2:, :2].mean(dim=(0, 1)))
    torch.testing.assert_close(features.pooled[0], read)
    torch.testing.assert_close(features.tokens[0, 0], read + encoder.shape(torch.tensor([0.0, 0.5, 0.5, 1.0])))


def test_two_tokens_with_the_shape_of_the_mask():
    torch.manual_seed(0)
    encoder = RegionEncoder(8, 16, geometry="mask", merge="tokens", levels=[1, 2], mask_size=8)
    values = example_values()
    features = encoder(values, example_context())
    assert encoder.layout() == encoder.layout((5, 5))
    assert features.tokens.shape == (2, encoder.layout().num_slots, 16) == (2, 2, 16)
    torch.testing.assert_close(features.tokens[:, 1], encoder.shape(values[:, 5:]))
    torch.testing.assert_close(features.tokens[:, 0], features.pooled)


def test_without_geometry_the_place_in_the_picture_is_unknown():
    encoder = RegionEncoder(8, 16, geometry="none", mask_size=8)
    flat = Features(tokens=torch.ones(1, 16, 8), grid=(4, 4))
    tokens = encoder(rows([(0, (0, 0, 0.5, 0.5)), (0, (0.5, 0.5, 1, 1))]), Context(source=flat)).tokens
    torch.testing.assert_close(tokens[0], tokens[1])


def test_vitrons_axes_are_read_as_they_were_trained():
    """A box at the top right, read with x as rows, is one at the bottom left."""
    torch.manual_seed(0)
    plain, released = (
        RegionEncoder(8, 16, mask_size=8, cells="osprey"),
        RegionEncoder(8, 16, mask_size=8, cells="vitron"),
    )
    released.load_state_dict(plain.state_dict())
    right, left = (rows([(0, box)]) for box in ((0.5, 0.0, 1.0, 0.5), (0.0, 0.5, 0.5, 1.0)))
    context = example_context()
    torch.testing.assert_close(released(right, context).pooled, plain(left, context).pooled)
    assert not torch.allclose(released(right, context).pooled, plain(right, context).pooled)


def test_roi_align_over_levels():
    torch.manual_seed(0)
    encoder = RegionEncoder(8, 16, pooling="roi_align", levels=[1, 2], mask_size=8)
    features = encoder(example_values(), example_context())
    assert features.tokens.shape == (2, 1, 16)
    rasters = [SOURCE.layers[i].transpose(1, 2).unflatten(2, (4, 4)) for i in (1, 2)]
    torch.testing.assert_close(
        features.pooled, encoder.pyramid(rasters, torch.tensor([2, 0]), example_values()[:, 1:5])
    )
    features.tokens.sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_items_of_the_context_come_before_those_of_the_rows():
    torch.manual_seed(0)
    encoder, values = RegionEncoder(8, 16, mask_size=8), example_values()
    told = Context(source=SOURCE, source_items=torch.tensor([1, 1]))
    moved = values.clone()
    moved[:, 0] = 1
    assert torch.equal(encoder(values, told).tokens, encoder(moved, example_context()).tokens)


def test_no_region_at_all():
    encoder = RegionEncoder(8, 16, mask_size=8)
    assert encoder(example_values()[:0], example_context()).tokens.shape == (0, 1, 16)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "reads another node's features: give it `from:`"),
        (Features(tokens=torch.zeros(3, 17, 8)), "its source has 17 tokens, grid None"),
        (Features(tokens=torch.zeros(3, 32, 8), grid=(4, 4)), "one raster per item"),
        (Features(tokens=torch.zeros(2, 16, 8), grid=(4, 4)), "a region of item 2, where its source has 2 items"),
    ],
)
def test_sources_that_do_not_fit(source, message):
    with pytest.raises(DataError, match=message):
        RegionEncoder(8, 16, mask_size=8)(example_values(), Context(source=source))


def test_layers_that_the_source_was_not_asked_for():
    with pytest.raises(DataError, match=r"levels \[7\]; its source has .* layers \[1, 2\]"):
        RegionEncoder(8, 16, mask_size=8, levels=[7])(example_values(), example_context())


def test_two_tokens_of_one_kind():
    with pytest.raises(UserError, match="merge: tokens needs a second token"):
        RegionEncoder(8, geometry="none", merge="tokens")


def test_regions_of_several_pictures_in_a_model(nodes):
    """From samples to the sequence: each region's slot holds what its own picture has there."""
    nodes["encoders"]["region"] = {"name": "region", "from": "image", "dim": 16, "mask_size": 8}
    nodes["adapters"]["region"] = {"name": "linear"}
    nodes["heads"].pop("image")
    nodes["tokens"] = TokenRegistry(kinds=("image", "region"))
    model = compose(**nodes).eval()
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    rng = np.random.default_rng(0)
    pictures = [Media(kind="image", source=rng.integers(0, 255, (20, 40, 3), dtype=np.uint8)) for _ in range(3)]
    part = Media(kind="region", region=Region(box=(0.5, 0.0, 1.0, 1.0)))
    samples = [
        Sample(turns=(Turn(role="user", parts=parts),), id=str(i))
        for i, parts in enumerate([(pictures[0], part), (pictures[1], pictures[2], part, replace(part, source=0))])
    ]
    batch = processor(samples)
    assert batch.media["region"].values[:, 0].tolist() == [0, 2, 1]
    assert batch.media["region"].values[0, 1:5].tolist() == [0.5, 0.25, 1.0, 0.75]  # the picture is padded to a square
    features = model.encode(batch)
    embeds = model.embed(batch, features)
    filled = embeds[batch.media["region"].slots]
    raster = features["image"].tokens[2].view(4, 4, 32)
    read = model.encoders["region"].mask_pool.project(raster[1:3, 2:].mean(dim=(0, 1)))
    torch.testing.assert_close(features["region"].pooled[1], read)
    torch.testing.assert_close(filled[1], model.adapters["region"].project(features["region"].tokens[1, 0]))
