import pytest
import torch

from mmunify.detokenizers.sdxl import SDXLDetokenizer
from mmunify.errors import CheckpointError, DataError, RecipeError, UserError
from mmunify.layers.streams import Streams
from mmunify.parts import Draw
from mmunify.types import Condition
from tests.detokenizers.tiny_pipelines import UNET, XL, draw_states, sd_folder, unet, unet_folder, vae

RESAMPLER = {"num_queries": 4, "dim": 16, "depth": 1, "num_heads": 2, "head_dim": 8}
DRAW = Draw(seed=0, step=0, keys=[0, 1], part="test")
PICTURES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def example(folder):
    path = unet_folder(folder, unet(**XL))
    return {"path": str(path), "resampler": RESAMPLER, "sampling": {"steps": 2}}


def example_condition(in_dim):
    return Condition(states=draw_states(2, 9, in_dim))


def build(folder, network=None, **arguments):
    path = unet_folder(folder, network or unet(**XL))
    torch.manual_seed(0)
    return SDXLDetokenizer(24, str(path), resampler=RESAMPLER, **arguments)


def told(detokenizer, condition, dropped):
    """The sequence and the pooled vector of a condition, or of its absence."""
    drops = torch.full((2,), dropped), torch.full((2,), dropped)
    return detokenizer._tell(condition, drops)


def noise(detokenizer):
    return Streams.of_seed(0, 2).normal(*detokenizer.canvas.shape)


# ------------------------------------------------------------------------------------------- parity


@pytest.mark.parametrize("steps", [1, 3])
@torch.no_grad()
def test_it_draws_what_the_pipeline_of_sdxl_draws(tmp_path, steps):
    from diffusers import StableDiffusionXLPipeline

    detokenizer = build(tmp_path, sampling={"steps": steps, "guidance": 7.5})
    condition = example_condition(24)
    known, unknown = told(detokenizer, condition, False), told(detokenizer, condition, True)
    folder = str(tmp_path)
    pipeline = StableDiffusionXLPipeline(
        vae=detokenizer.canvas.latents.autoencoder,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=unet(**XL),
        scheduler=_scheduler(folder),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    wanted = pipeline(
        prompt_embeds=known["states"],
        pooled_prompt_embeds=known["pooled"],
        negative_prompt_embeds=unknown["states"],
        negative_pooled_prompt_embeds=unknown["pooled"],
        latents=noise(detokenizer),
        num_inference_steps=steps,
        guidance_scale=7.5,
        output_type="pt",
    ).images
    found = detokenizer.generate(condition, seed=0)
    assert found.std() > 0.01
    assert (found - wanted).abs().max() <= 1e-5


@torch.no_grad()
def test_it_edits_what_the_pipeline_of_instruct_pix2pix_edits(tmp_path):
    """Three-way guidance, unscaled source latents, zeros where nothing is known."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    wide = unet(in_channels=8)
    detokenizer = build(tmp_path, wide, source=True, sampling={"steps": 1, "guidance": 7.5, "source_guidance": 1.5})
    condition = Condition(states=draw_states(2, 9, 24), image=PICTURES)
    known, unknown = told(detokenizer, condition, False), told(detokenizer, condition, True)
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae=vae(),
        text_encoder=None,
        tokenizer=None,
        unet=unet(in_channels=8),
        scheduler=_scheduler(str(tmp_path)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    wanted = pipeline(
        image=PICTURES,
        prompt_embeds=known["states"],
        negative_prompt_embeds=unknown["states"],
        latents=noise(detokenizer),
        num_inference_steps=1,
        guidance_scale=7.5,
        image_guidance_scale=1.5,
        output_type="pt",
    ).images
    found = detokenizer.generate(condition, seed=0)
    assert (found - wanted).abs().max() <= 1e-5


@torch.no_grad()
def test_a_decoupled_network_without_its_picture_is_the_text_pipeline(tmp_path):
    from diffusers import StableDiffusionPipeline

    path = str(sd_folder(tmp_path))
    sampling = {"steps": 1, "guidance": 1.0}
    detokenizer = SDXLDetokenizer(24, path, joins="decoupled", resampler=RESAMPLER, sampling=sampling)
    pipeline = StableDiffusionPipeline.from_pretrained(path)
    pipeline.set_progress_bar_config(disable=True)
    start, condition = noise(detokenizer), example_condition(24)
    arguments = {"num_inference_steps": 1, "guidance_scale": 1.0, "output_type": "pt"}
    wanted = pipeline(["", ""], latents=start, **arguments).images
    silent = detokenizer.generate(condition, {"picture": 0.0})
    assert (silent - wanted).abs().max() <= 1e-5
    assert (detokenizer.generate(condition) - silent).abs().max() > 1e-4
    caption, _ = pipeline.encode_prompt(["cat", "dog"], "cpu", 1, False)
    spoken = Condition(states=condition.states, caption=caption)
    for strength in (1.0, 7.5):  # text and features are guided together, away from the empty prompt
        wanted = pipeline(["cat", "dog"], latents=start, **{**arguments, "guidance_scale": strength}).images
        found = detokenizer.generate(spoken, {"picture": 0.0, "condition": strength})
        assert (found - wanted).abs().max() <= 1e-5
    with pytest.raises(DataError, match=r"states of shape \(5, 12\) came; the pipeline's are \(77, 12\)"):
        detokenizer.generate(Condition(states=condition.states, caption=caption[:, :5]))


def _scheduler(folder):
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")


# ------------------------------------------------------------------------------------------- stages


def test_stage_two_starts_as_stage_one(tmp_path):
    """The U-Net of 8 channels, its condition absent, answers exactly as the one of 4."""
    one, two = build(tmp_path / "a").double(), build(tmp_path / "b", source=True).double()
    two.load_state_dict({**one.state_dict(), "unet.network.conv_in.weight": two.unet.network.conv_in.weight})
    sample, time = draw_states(2, 4, 8, 8).double(), torch.tensor([3, 900])
    condition, pictures = Condition(states=example_condition(24).states.double()), PICTURES.double()
    answers = [each.unet(sample, time, told(each, condition, False)) for each in (one, two)]
    torch.testing.assert_close(*answers, rtol=0, atol=1e-12)
    losses = [each.loss(pictures, condition, DRAW).losses["denoising"] for each in (one, two)]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-6)  # the loss itself is taken in 32 bits


def test_keys_and_values_really_learn(tmp_path):
    """They are not merely handed to the optimiser: they move, and nothing else of the U-Net does."""
    detokenizer = build(tmp_path)
    before = {name: p.detach().clone() for name, p in detokenizer.named_parameters()}
    optimizer = torch.optim.SGD([p for p in detokenizer.parameters() if p.requires_grad], lr=1.0)
    detokenizer.loss(PICTURES, example_condition(24), DRAW).losses["denoising"].backward()
    optimizer.step()
    moved = {name for name, p in detokenizer.named_parameters() if not torch.equal(p, before[name])}
    keys_values = {name for name in before if name.startswith("unet.") and (".to_k." in name or ".to_v." in name)}
    resampler = {name for name in before if name.startswith("resampler.")}
    assert len(keys_values) == 32
    shifts = {"resampler.pool.key.bias"}  # softmax doesn't feel what is added to all keys alike
    assert keys_values | resampler - shifts <= moved <= keys_values | resampler


def test_in_stage_two_the_new_channels_learn(tmp_path):
    detokenizer = build(tmp_path, source=True, trains="all")
    condition = Condition(states=draw_states(2, 9, 24), image=PICTURES)
    detokenizer.loss(PICTURES, condition, DRAW).losses["denoising"].backward()
    assert detokenizer.unet.network.conv_in.weight.grad[:, 4:].abs().max() > 0
    assert all(p.grad is None for p in detokenizer.canvas.parameters())


def test_gradients_reach_the_condition(tmp_path):
    """Linked to a head, its loss teaches the backbone."""
    states = draw_states(2, 9, 24).requires_grad_()
    detokenizer = build(tmp_path, training={"drop": 0.0})
    detokenizer.loss(PICTURES, Condition(states=states), DRAW).losses["denoising"].backward()
    assert (states.grad.abs().amax((1, 2)) > 0).all()


@pytest.mark.parametrize(
    ("arguments", "share"), [({}, 0.85), ({"joins": "decoupled"}, 0.95), ({"source": True, "trains": "all"}, 0.7)]
)
def test_the_loss_falls(tmp_path, arguments, share):
    detokenizer = build(tmp_path, training={"drop": 0.0}, **arguments)
    optimizer = torch.optim.Adam([p for p in detokenizer.parameters() if p.requires_grad], lr=1e-2)
    condition, losses = example_condition(24), []
    for _ in range(25):
        optimizer.zero_grad()
        losses.append(detokenizer.loss(PICTURES, condition, DRAW).losses["denoising"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < share * losses[0]


# ------------------------------------------------------------------------------------------- options


def test_predictions_and_weights_are_options(tmp_path):
    condition = example_condition(24)
    losses = {
        str(training): float(build(tmp_path, training=training).loss(PICTURES, condition, DRAW).losses["denoising"])
        for training in ({}, {"prediction": "v_prediction"}, {"min_snr": 1.0})
    }
    assert len(set(losses.values())) == 3
    assert losses["{'min_snr': 1.0}"] < losses["{}"]


def test_items_without_their_condition_see_the_null_features(tmp_path):
    detokenizer = build(tmp_path, training={"null": "given"})
    grey = draw_states(9, 24, seed=5)
    condition = Condition(states=draw_states(2, 9, 24), null=grey)
    unknown = told(detokenizer, condition, True)
    wanted, pooled = detokenizer.resampler(grey.expand(2, -1, -1))
    torch.testing.assert_close(unknown["states"], wanted)
    torch.testing.assert_close(unknown["pooled"], pooled)


def test_no_item_means_zero_loss_and_zero_gradients(tmp_path):
    detokenizer = build(tmp_path)
    out = detokenizer.loss(PICTURES[:0], Condition(states=torch.zeros(0, 9, 24)), DRAW)
    out.losses["denoising"].backward()
    assert float(out.losses["denoising"].detach()) == 0
    learning = [p for p in detokenizer.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in learning)


def test_squares_of_pixels_need_no_autoencoder():
    config = {"unet": {**UNET, "in_channels": 12, "out_channels": 12}, "fold": 2}
    detokenizer = SDXLDetokenizer(24, config=config, resampler=RESAMPLER, sampling={"steps": 1})
    assert detokenizer.external is None
    assert detokenizer.generate(example_condition(24)).shape == (2, 3, 16, 16)


def test_on_the_meta_device_shapes_alone(tmp_path):
    path = unet_folder(tmp_path, unet(**XL))
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with torch.device("meta"):
        detokenizer = SDXLDetokenizer(24, str(path), source=True, resampler=RESAMPLER)
    assert all(p.is_meta for p in detokenizer.parameters())


def test_what_a_bundle_must_store_beside_the_path(tmp_path):
    from fnmatch import fnmatchcase

    detokenizer = build(tmp_path, source=True, joins="decoupled", training={"null": "learned"})
    folder = {name for name, _ in [*unet(**XL).named_parameters()]} - {"conv_in.weight", "conv_in.bias"}
    inside = {f"unet.network.{name}" for name in folder}
    added = {
        name for name, _ in detokenizer.named_parameters() if any(fnmatchcase(name, glob) for glob in detokenizer.added)
    }
    names = {name for name, _ in detokenizer.named_parameters() if not name.startswith("canvas.")}
    assert added == names - inside


# ------------------------------------------------------------------------------------------- errors


def test_errors(tmp_path):
    with pytest.raises(UserError, match="sdxl needs a path, or a config with 'vae'"):
        SDXLDetokenizer(24)
    with pytest.raises(UserError, match="config of sdxl has no 'Unet'"):
        SDXLDetokenizer(24, config={"Unet": {}})
    with pytest.raises(CheckpointError, match="does not exist; path: is a folder as a pipeline of diffusers writes it"):
        SDXLDetokenizer(24, str(tmp_path / "nowhere"))
    detokenizer = build(tmp_path)
    with pytest.raises(UserError, match="starts from no picture; say source: true"):
        detokenizer.generate(Condition(states=draw_states(2, 9, 24), image=PICTURES))
    with pytest.raises(UserError, match="no strength 'text'; it takes condition, source, picture"):
        detokenizer.generate(example_condition(24), {"text": 3.0})
    with pytest.raises(RecipeError, match=r"sdxl\.resampler\.queries: ConditionResampler takes no queries"):
        SDXLDetokenizer(24, str(tmp_path), resampler={"queries": 3})
