import pytest
import torch

from mmunify.errors import UserError
from mmunify.layers.mask_decoder import MaskDecoder


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_masks_are_as_many_times_larger_as_promised(steps):
    decoder = MaskDecoder(6, dim=16, depth=1, num_heads=2, steps=steps)
    assert decoder.scale == 2**steps
    assert decoder(torch.randn(2, 6, 3, 5), torch.randn(2, 1, 16)).shape == (2, 3 * 2**steps, 5 * 2**steps)


def test_items_do_not_see_each_other_and_prompts_matter():
    torch.manual_seed(0)
    decoder = MaskDecoder(6, dim=16, depth=2, num_heads=2, steps=1)
    raster, prompts = torch.randn(3, 6, 4, 4), torch.randn(3, 1, 16)
    together = decoder(raster, prompts)
    alone = torch.cat([decoder(raster[i : i + 1], prompts[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (decoder(raster, prompts.flip(0)) - together).abs().max() > 1e-3


def test_at_first_every_pixel_is_probably_outside():
    torch.manual_seed(0)
    decoder = MaskDecoder(6, dim=16, depth=1, num_heads=2)
    raster, prompts = torch.randn(2, 6, 4, 4), torch.randn(2, 1, 16)
    assert decoder(raster, prompts).sigmoid().mean() < 0.1
    moved = decoder(raster, prompts)
    with torch.no_grad():
        decoder.bias += 1
    torch.testing.assert_close(decoder(raster, prompts), moved + 1)


def test_gradients_reach_every_parameter():
    decoder = MaskDecoder(6, dim=16, depth=2, num_heads=2)
    decoder(torch.randn(1, 6, 4, 4), torch.randn(1, 1, 16)).square().sum().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []


def test_widths_that_cannot_be_divided():
    with pytest.raises(UserError, match="dim=12 of a mask decoder must be a multiple of 2"):
        MaskDecoder(6, dim=12, num_heads=4)
