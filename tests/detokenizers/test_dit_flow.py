import pytest
import torch

from mmunify.detokenizers.dit_flow import DiTFlowDetokenizer
from mmunify.errors import RecipeError, UserError
from mmunify.layers.streams import Streams
from mmunify.parts import Draw
from mmunify.testing import randomize
from mmunify.types import Condition
from tests.detokenizers.tiny_pipelines import SANA, deep_vae, draw_states

CONNECTOR = {"depth": 1, "num_heads": 2}
DRAW = Draw(seed=0, step=0, keys=[0, 1], part="test")
PICTURES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LUMINA = {
    "_class_name": "Lumina2Transformer2DModel",
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 12,
    "hidden_size": 24,
    "num_layers": 1,
    "num_refiner_layers": 1,
    "num_attention_heads": 2,
    "num_kv_heads": 2,
    "multiple_of": 8,
    "norm_eps": 1e-5,
    "axes_dim_rope": (4, 4, 4),
    "axes_lens": (30, 16, 16),
    "cap_feat_dim": 20,
}


def config():
    return {"transformer": SANA, "fold": 2}


def example(folder):
    return {"config": config(), "connector": CONNECTOR, "sampling": {"steps": 2}}


def example_condition(in_dim):
    return Condition(states=draw_states(2, 9, in_dim))


def build(**arguments):
    torch.manual_seed(0)
    return DiTFlowDetokenizer(24, **{"config": config(), "connector": CONNECTOR, **arguments})


def sana_folder(folder):
    from diffusers import FlowMatchEulerDiscreteScheduler, SanaTransformer2DModel

    sizes = {**SANA, "in_channels": 4, "out_channels": 4}
    randomize(SanaTransformer2DModel(**sizes), std=0.2).save_pretrained(folder / "transformer")
    deep_vae().save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    return str(folder)


@torch.no_grad()
def test_it_draws_what_the_pipeline_of_sana_draws(tmp_path):
    from diffusers import SanaPipeline

    path = sana_folder(tmp_path)
    detokenizer = build(config=None, path=path, sampling={"steps": 3, "guidance": 3.0, "size": 32})
    condition = example_condition(24)
    on, off = torch.tensor([True, True]), torch.tensor([False, False])
    known, unknown = (detokenizer._tell(condition, (drop, drop)) for drop in (off, on))
    parts = {
        "vae": deep_vae(),
        "transformer": detokenizer.transformer,
        "scheduler": detokenizer.canvas.noising.scheduler(),
    }
    pipeline = SanaPipeline(tokenizer=None, text_encoder=None, **parts)
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        prompt=None,
        negative_prompt=None,
        prompt_embeds=known["states"],
        prompt_attention_mask=known["mask"],
        negative_prompt_embeds=unknown["states"],
        negative_prompt_attention_mask=unknown["mask"],
        latents=Streams.of_seed(0, 2).normal(*detokenizer.canvas.shape),
        height=32,
        width=32,
        num_inference_steps=3,
        guidance_scale=3.0,
        output_type="latent",
        use_resolution_binning=False,
    ).images
    wanted = detokenizer.canvas.latents.decode(latents)
    assert (detokenizer.generate(condition, seed=0) - wanted).abs().max() <= 1e-5


@pytest.mark.parametrize("one", ["noise", "data"])
@pytest.mark.parametrize(("target", "sign"), [("noise_minus_data", 1), ("data_minus_noise", -1)])
def test_direction_of_time_and_sign_of_the_target(one, target, sign):
    """What the transformer is told and what it should answer, seen from inside the loss."""
    detokenizer = build(flow={"one": one, "target": target}, training={"drop": 0.0})
    seen = {}

    def listen(module, args, kwargs, answer):
        seen.update(kwargs, answer=answer[0])

    detokenizer.transformer.register_forward_hook(listen, with_kwargs=True)
    loss = detokenizer.loss(PICTURES, example_condition(24), DRAW).losses["denoising"]
    data = detokenizer.canvas.latents.encode(PICTURES)
    streams = Streams(DRAW)
    streams.uniform()  # the coin of the drops
    noise, share = streams.normal(*data.shape[1:]), streams.uniform().view(-1, 1, 1, 1)
    torch.testing.assert_close(seen["hidden_states"], (1 - share) * data + share * noise)
    told = share if one == "noise" else 1 - share
    torch.testing.assert_close(seen["timestep"], 1000 * told.flatten())
    error = (seen["answer"] - sign * (noise - data)).square().mean((1, 2, 3)).sum()
    torch.testing.assert_close(loss, error)


def test_lumina_counts_the_other_way():
    """Its time is one at data, and it answers x - e."""
    flow = {"one": "data", "target": "data_minus_noise", "time_scale": 1.0}
    detokenizer = build(config={"transformer": LUMINA, "fold": 2}, flow=flow, sampling={"steps": 2})
    assert detokenizer.generate(example_condition(24)).shape == (2, 3, 16, 16)
    losses = [detokenizer.loss(PICTURES, example_condition(24), DRAW).losses["denoising"]]
    losses[0].backward()
    assert detokenizer.connector.project[0].weight.grad.abs().max() > 0


def test_masked_states_are_not_seen():
    torch.manual_seed(0)
    detokenizer = build(sampling={"steps": 2})
    mask = torch.tensor([[True] * 5 + [False] * 4] * 2)
    states = draw_states(2, 9, 24)
    noisy = torch.where(mask[..., None], states, 30.0)
    one, other = (detokenizer.generate(Condition(states=each, mask=mask)) for each in (states, noisy))
    torch.testing.assert_close(one, other)


def test_a_frozen_transformer_teaches_the_connector_alone():
    detokenizer = build(trains="none")
    detokenizer.loss(PICTURES, example_condition(24), DRAW).losses["denoising"].backward()
    assert all(p.grad is None for p in detokenizer.transformer.parameters())
    assert all(p.grad is not None for p in detokenizer.connector.parameters())


def test_the_loss_falls():
    detokenizer = build(training={"drop": 0.0})
    optimizer, losses = torch.optim.Adam(detokenizer.parameters(), lr=1e-2), []
    for _ in range(25):
        optimizer.zero_grad()
        losses.append(detokenizer.loss(PICTURES, example_condition(24), DRAW).losses["denoising"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_no_item_means_zero_loss():
    out = build().loss(PICTURES[:0], Condition(states=torch.zeros(0, 9, 24)), DRAW)
    assert float(out.losses["denoising"].detach()) == 0 == float(out.counts["denoising"])


# ------------------------------------------------------------------------------------------- errors


def test_errors():
    with pytest.raises(UserError, match="doesn't know how to call DiTTransformer2DModel; it knows SanaTransformer"):
        build(config={"transformer": {"_class_name": "DiTTransformer2DModel", "num_layers": 1}, "fold": 2})
    with pytest.raises(UserError, match="takes no prediction and no min_snr; its target is set by flow: target"):
        build(training={"min_snr": 5.0})
    with pytest.raises(RecipeError, match=r"dit_flow\.flow\.one: FlowNoise wants one of 'noise', 'data', got 'clean'"):
        build(flow={"one": "clean"})
    with pytest.raises(UserError, match="no strength 'source'; it takes condition"):
        build().generate(example_condition(24), {"source": 2.0})
