import torch

from mmunify.layers.latents import CodedLatents, FoldedPixels, fit_pixels, target_latents
from mmunify.layers.streams import Streams
from tests.detokenizers.tiny_pipelines import deep_vae, vae

PIXELS = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_folded_pixels_lose_nothing():
    folded = FoldedPixels(4)
    latents = folded.encode(PIXELS)
    assert latents.shape == (2, 48, 4, 4) == (2, folded.channels, 4, 4)
    assert latents.min() >= -1 and latents.max() <= 1
    torch.testing.assert_close(folded.decode(latents), PIXELS)
    torch.testing.assert_close(folded.source(PIXELS), latents)
    torch.testing.assert_close(latents[0, :16, 0, 0].view(4, 4), 2 * PIXELS[0, 0, :4, :4] - 1)


def test_coded_latents_are_those_of_diffusers():
    model = vae()
    coded = CodedLatents(model)
    assert (coded.channels, coded.factor) == (4, 2)
    posterior = model.encode(2 * PIXELS - 1).latent_dist
    torch.testing.assert_close(coded.encode(PIXELS), posterior.mode() * model.config.scaling_factor)
    torch.testing.assert_close(coded.source(PIXELS), posterior.mode())
    noise = Streams.of_seed(0, 2).normal(4, 8, 8)
    wanted = (posterior.mean + posterior.std * noise) * model.config.scaling_factor
    torch.testing.assert_close(coded.encode(PIXELS, Streams.of_seed(0, 2)), wanted)
    pixels = model.decode(coded.encode(PIXELS) / model.config.scaling_factor).sample
    torch.testing.assert_close(coded.decode(coded.encode(PIXELS)), (pixels / 2 + 0.5).clamp(0, 1))


def test_a_shift_is_undone():
    coded = CodedLatents(vae(shift_factor=0.3))
    plain = CodedLatents(vae())
    torch.testing.assert_close(coded.encode(PIXELS), plain.encode(PIXELS) - 0.3 * plain.scale)
    torch.testing.assert_close(coded.decode(coded.encode(PIXELS)), plain.decode(plain.encode(PIXELS)))


def test_the_autoencoder_never_learns():
    coded = CodedLatents(vae())
    assert not any(p.requires_grad for p in coded.parameters())
    assert not coded.encode(PIXELS.requires_grad_()).requires_grad
    PIXELS.requires_grad_(False)


def test_an_autoencoder_without_a_distribution():
    coded = CodedLatents(deep_vae())
    latents = coded.encode(PIXELS, Streams.of_seed(0, 2))
    assert latents.shape == (2, 4, 8, 8)
    assert torch.equal(latents, coded.encode(PIXELS))
    assert coded.decode(latents).shape == PIXELS.shape


def test_targets_of_another_size_and_cached_ones():
    folded, streams = FoldedPixels(4), Streams.of_seed(0, 2)
    assert target_latents(folded, torch.rand(2, 3, 40, 24), (16, 16), streams).shape == (2, 48, 4, 4)
    cached = torch.randn(2, 48, 4, 4)
    assert target_latents(folded, cached, (16, 16), streams) is cached
    assert fit_pixels(PIXELS, (16, 16)) is PIXELS
    grey = fit_pixels(torch.full((1, 3, 9, 9), 0.25), (16, 16))
    torch.testing.assert_close(grey, torch.full((1, 3, 16, 16), 0.25))
    assert fit_pixels(PIXELS.round(), (33, 33)).max() <= 1
