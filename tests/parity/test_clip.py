"""Our clip encoder = transformers' CLIPVisionModel, whatever layers are let go."""

import pytest
import torch
from transformers import CLIPVisionModel

from mmunify.encoders.clip import CLIPEncoder
from mmunify.parts import Context
from mmunify.testing import picture_values, tiny_clip_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_clip_folder(tmp_path_factory.mktemp("clip"), depth=4)


@pytest.mark.parametrize("layer", [-1, -2, -5, 0, 3])
def test_hidden_states(folder, layer):
    ours = CLIPEncoder(path=str(folder), layer=layer, layers=[1, -3]).eval()
    theirs = CLIPVisionModel.from_pretrained(folder).eval()
    values = picture_values(ours.preprocess)
    features = ours(values, Context())
    states = theirs(values[:, 0], output_hidden_states=True).hidden_states
    assert len(states) == 5
    assert features.tokens.std() > 0.1
    torch.testing.assert_close(features.tokens, states[layer][:, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(features.pooled, states[layer][:, 0], atol=1e-5, rtol=0)
    for index in (1, -3):
        torch.testing.assert_close(features.layers[index], states[index][:, 1:], atol=1e-5, rtol=0)


def test_pooler(folder):
    ours = CLIPEncoder(path=str(folder), pooled="pooler").eval()
    theirs = CLIPVisionModel.from_pretrained(folder).eval()
    values = picture_values(ours.preprocess)
    wanted = theirs(values[:, 0]).pooler_output
    torch.testing.assert_close(ours(values, Context()).pooled, wanted, atol=1e-5, rtol=0)


def test_pictures_are_normalised_as_by_its_own_processor(folder):
    """A square picture of the tower's size only gets normalised, so both ways must agree exactly."""
    from transformers import CLIPImageProcessor

    preprocess = CLIPEncoder(path=str(folder)).preprocess
    pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    theirs = CLIPImageProcessor.from_pretrained(folder)(pixels, return_tensors="pt")["pixel_values"][0]
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (preprocess.mean, preprocess.std))
    torch.testing.assert_close((pixels / 255 - mean) / std, theirs, atol=1e-5, rtol=0)
