import torch

from mmunify.layers.canvas import LatentCanvas, picture_side
from mmunify.layers.flow_noise import FlowNoise
from mmunify.layers.latents import FoldedPixels
from mmunify.layers.part_options import TrainingOptions
from mmunify.parts import Draw
from mmunify.types import Condition
from tests.detokenizers.tiny_pipelines import unet

PICTURES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
STATES = torch.zeros(2, 1, 1)


def canvas():
    return LatentCanvas(FoldedPixels(4), FlowNoise(), 16)


def test_a_source_is_zero_where_there_is_none():
    canvas_, kept = canvas(), torch.tensor([False, False])
    folded = FoldedPixels(4).encode(PICTURES)
    whole = Condition(states=STATES, image=PICTURES)
    torch.testing.assert_close(canvas_.source(whole, kept), folded)
    half = Condition(states=STATES, image=PICTURES, image_mask=torch.tensor([True, False]))
    found = canvas_.source(half, kept)
    torch.testing.assert_close(found[0], folded[0])
    assert not found[1].any()
    assert not canvas_.source(whole, ~kept).any()
    assert not canvas_.source(Condition(states=STATES), kept).any()
    assert canvas_.source(Condition(states=STATES), kept).shape == (2, 48, 4, 4)


def test_rungs_of_guidance():
    """Nothing, the source, source and condition; without a source, nothing and the condition."""
    seen = []

    def tell(condition, drops):
        seen.append((bool(drops[0].all()), bool(drops[1].all())))
        return {"states": condition.states}

    network = lambda sample, time, known: torch.zeros_like(sample)  # noqa: E731
    strengths = {"condition": 7.5, "source": 1.5}
    picture = canvas().draw(Condition(states=STATES, image=PICTURES), network, tell, strengths, 2, 0)
    assert seen == [(True, True), (True, False), (False, False)]
    assert picture.shape == PICTURES.shape
    seen.clear()
    canvas().draw(Condition(states=STATES), network, tell, strengths, 2, 0)
    assert seen == [(True, True), (False, False)]


def test_cached_latents_give_the_loss_of_their_pictures():
    draw = Draw(seed=0, step=0, keys=[0, 1], part="test")
    network = lambda sample, time, known: 0.5 * sample  # noqa: E731
    tell = lambda condition, drops: {}  # noqa: E731
    losses = [
        canvas().loss(target, Condition(states=STATES), draw, network, tell, TrainingOptions()).losses["denoising"]
        for target in (PICTURES, FoldedPixels(4).encode(PICTURES))
    ]
    torch.testing.assert_close(*losses)


def test_sizes():
    assert canvas().shape == (48, 4, 4)
    assert canvas().preprocess.size == (16, 16)
    assert picture_side(unet(), 2, None) == 16
    assert picture_side(unet(), 2, 24) == 24
