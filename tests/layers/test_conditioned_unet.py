import pytest
import torch

from mmunify.errors import UserError
from mmunify.layers.conditioned_unet import ConditionedUNet, picture_scale, picture_sizes
from tests.detokenizers.tiny_pipelines import XL, draw_states, unet

SAMPLE, TIME, STATES = draw_states(2, 4, 8, 8), torch.tensor([10, 700]), draw_states(2, 5, 12, seed=1)
KNOWN = {"states": STATES}


def plain():
    return unet()(SAMPLE, TIME, encoder_hidden_states=STATES).sample


def test_it_is_the_network_of_diffusers():
    assert torch.equal(ConditionedUNet(unet(), 4)(SAMPLE, TIME, KNOWN), plain())


def test_sdxl_is_told_a_pooled_vector_and_sizes():
    wrapped, pooled = ConditionedUNet(unet(**XL), 4), draw_states(2, 10, seed=2)
    sizes = picture_sizes(16, 16, like=pooled)
    assert sizes.tolist() == [[16, 16, 0, 0, 16, 16]] * 2
    told = {"text_embeds": pooled, "time_ids": sizes}
    wanted = unet(**XL)(SAMPLE, TIME, encoder_hidden_states=STATES, added_cond_kwargs=told).sample
    assert torch.equal(wrapped(SAMPLE, TIME, {**KNOWN, "pooled": pooled, "sizes": sizes}), wanted)
    assert (wrapped.pooled_dim, wrapped.states_dim, wrapped.channels) == (10, 12, 8)
    assert ConditionedUNet(unet(), 4).pooled_dim is None


@pytest.mark.parametrize("source", [torch.zeros(2, 4, 8, 8), 5 * draw_states(2, 4, 8, 8, seed=3)])
def test_new_input_channels_change_nothing_at_first(source):
    """Weights of zero for the new channels; weights and bias of the old ones stay."""
    wide = ConditionedUNet(unet().double(), 4, extra=4)
    assert wide.network.config.in_channels == 8
    assert torch.equal(wide.network.conv_in.bias, unet().double().conv_in.bias)
    assert torch.equal(wide.network.conv_in.weight[:, :4], unet().double().conv_in.weight)
    assert not wide.network.conv_in.weight[:, 4:].any()
    sample, known = SAMPLE.double(), {"states": STATES.double()}
    narrow = unet().double()(sample, TIME, encoder_hidden_states=STATES.double()).sample
    torch.testing.assert_close(wide(sample, TIME, {**known, "source": source}), narrow, rtol=0, atol=1e-12)


def test_a_network_that_is_wide_already_stays():
    wide = ConditionedUNet(unet(in_channels=8), 4, extra=4)
    assert torch.equal(wide.network.conv_in.weight, unet(in_channels=8).conv_in.weight)
    for channels, extra in ((4, 0), (4, 2)):
        with pytest.raises(UserError, match=f"reads 8 channels; latents of {channels} and {extra} more were expected"):
            ConditionedUNet(unet(in_channels=8), channels, extra)


def test_a_residual_enters_behind_the_first_convolution():
    wrapped, residual = ConditionedUNet(unet(), 4), draw_states(2, 8, 8, 8, seed=4)
    changed = wrapped(SAMPLE, TIME, {**KNOWN, "residual": residual})
    shifted = unet()
    with torch.no_grad():
        shifted.conv_in.bias += 1
    ones = wrapped(SAMPLE, TIME, {**KNOWN, "residual": torch.ones(2, 8, 8, 8)})
    torch.testing.assert_close(ones, shifted(SAMPLE, TIME, encoder_hidden_states=STATES).sample)
    assert (changed - plain()).abs().max() > 1e-3
    assert torch.equal(wrapped(SAMPLE, TIME, KNOWN), plain())  # it doesn't linger


def test_masked_states_are_not_seen():
    wrapped, mask = ConditionedUNet(unet(), 4), torch.tensor([[1, 1, 1, 0, 0]] * 2)
    noisy = torch.where(mask[..., None].bool(), STATES, 50.0)
    one, other = (wrapped(SAMPLE, TIME, {"states": states, "mask": mask}) for states in (STATES, noisy))
    torch.testing.assert_close(one, other)


# ------------------------------------------------------------------------------------------- decoupled


def test_decoupled_attention_adds_a_second_answer():
    """attn(text) + scale * attn(picture), written out for one layer."""
    wrapped = ConditionedUNet(unet(), 4, decoupled=True)
    layer = next(module for name, module in wrapped.network.named_modules() if name.endswith("attn2"))
    states, picture = draw_states(2, 6, 16, seed=5), draw_states(2, 3, 12, seed=6)
    heads = lambda x: x.unflatten(2, (layer.heads, -1)).transpose(1, 2)  # noqa: E731

    def attend(keys, values):
        weights = (heads(layer.to_q(states)) @ heads(keys).transpose(2, 3) * layer.scale).softmax(-1)
        return (weights @ heads(values)).transpose(1, 2).flatten(2)

    text = attend(layer.to_k(STATES), layer.to_v(STATES))
    second = attend(layer.processor.to_k_ip[0](picture), layer.processor.to_v_ip[0](picture))
    with picture_scale(wrapped, 0.7):
        found = layer(states, encoder_hidden_states=(STATES, [picture]))
    torch.testing.assert_close(found, layer.to_out[0](text + 0.7 * second), rtol=1e-4, atol=1e-5)


def test_without_its_picture_a_decoupled_network_is_driven_by_text_alone():
    wrapped = ConditionedUNet(unet(), 4, decoupled=True)
    known = {**KNOWN, "picture": draw_states(2, 3, 12, seed=6)}
    with picture_scale(wrapped, 0.0):
        torch.testing.assert_close(wrapped(SAMPLE, TIME, known), plain())
    assert (wrapped(SAMPLE, TIME, known) - plain()).abs().max() > 1e-3


def test_second_keys_start_as_copies():
    network = ConditionedUNet(unet(), 4, decoupled=True).network
    layers = [module for name, module in network.named_modules() if name.endswith("attn2")]
    assert len(layers) == 4
    for layer in layers:
        assert torch.equal(layer.processor.to_k_ip[0].weight, layer.to_k.weight)
        assert torch.equal(layer.processor.to_v_ip[0].weight, layer.to_v.weight)


# ------------------------------------------------------------------------------------------- what learns


def learning(wrapped):
    return {name for name, p in wrapped.network.named_parameters() if p.requires_grad}


def test_what_learns():
    wrapped = ConditionedUNet(unet(), 4)
    every = {name for name, _ in wrapped.network.named_parameters()}
    wrapped.learn("keys_values")
    keys_values = {name for name in every if ".to_k." in name or ".to_v." in name}
    assert learning(wrapped) == keys_values and len(keys_values) == 4 * 2 * 2
    wrapped.learn("cross_keys_values")
    assert learning(wrapped) == {name for name in keys_values if ".attn2." in name}
    wrapped.learn("all")
    assert learning(wrapped) == every
    wrapped.learn("none")
    assert learning(wrapped) == set()
    second = ConditionedUNet(unet(), 4, decoupled=True)
    second.learn("none")
    assert len(learning(second)) == 8 and all("_ip." in name for name in learning(second))


def test_parameters_of_sdxl():
    """2.567 G; 4 more input channels of 3 x 3 for 320 channels; 140 attentions with keys and values."""
    from diffusers import UNet2DConditionModel

    config = {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    with torch.device("meta"):
        wrapped = ConditionedUNet(UNet2DConditionModel(**config), 4, extra=4)
    assert sum(p.numel() for p in wrapped.parameters()) == 2_567_463_684 + 4 * 9 * 320
    assert (wrapped.states_dim, wrapped.pooled_dim) == (2048, 1280)
    wrapped.learn("keys_values")
    assert len(learning(wrapped)) == 2 * 140
