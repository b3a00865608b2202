import pytest
import torch

from mmunify.detokenizers.sd_text_space import SDTextSpaceDetokenizer
from mmunify.errors import CheckpointError, DataError, UserError
from mmunify.layers.streams import Streams
from mmunify.parts import Draw
from mmunify.testing import randomize
from mmunify.types import Condition
from tests.detokenizers.tiny_pipelines import (
    XL,
    clip_text,
    clip_tokenizer,
    draw_states,
    euler,
    sd_folder,
    unet,
    unet_folder,
    vae,
)

MAPPER = {"dim": 16, "depth": 1, "num_heads": 2, "hidden_dim": 16}
DRAW = Draw(seed=0, step=0, keys=[0, 1], part="test")
PICTURES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def example(folder):
    path = str(sd_folder(folder))
    return {"path": path, "mapper": MAPPER, "caption_weight": 0.0, "denoising_weight": 1.0, "sampling": {"steps": 2}}


def example_condition(in_dim):
    return Condition(states=draw_states(2, 4, in_dim))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(sd_folder(tmp_path_factory.mktemp("sd")))


def build(path, **arguments):
    torch.manual_seed(0)
    return SDTextSpaceDetokenizer(24, path, mapper=MAPPER, **arguments)


def spoken(pipeline):
    """A condition with what the text encoder says of two captions."""
    caption, _ = pipeline.encode_prompt(["cat", "dog"], "cpu", 1, False)
    return Condition(states=draw_states(2, 4, 24), caption=caption.detach())


@torch.no_grad()
def test_the_pipeline_stays_as_it_is(path):
    """One step of diffusers' own pipeline, fed the mapper's answer."""
    from diffusers import StableDiffusionPipeline

    detokenizer, condition = build(path, sampling={"steps": 1}), example_condition(24)
    pipeline = StableDiffusionPipeline.from_pretrained(path)
    pipeline.set_progress_bar_config(disable=True)
    wanted = pipeline(
        prompt_embeds=detokenizer.mapper(condition.states),
        latents=Streams.of_seed(0, 2).normal(4, 8, 8),
        num_inference_steps=1,
        guidance_scale=7.5,
        output_type="pt",
    ).images
    assert (detokenizer.generate(condition) - wanted).abs().max() <= 1e-5


def test_only_the_mapper_learns(path):
    detokenizer = build(path, denoising_weight=1.0)
    out = detokenizer.loss(PICTURES, spoken(detokenizer.pipeline), DRAW)
    assert set(out.losses) == {"caption", "denoising"}
    sum(out.losses.values()).backward()
    learning = {name for name, p in detokenizer.named_parameters() if p.requires_grad}
    assert learning == {f"mapper.{name}" for name, _ in detokenizer.mapper.named_parameters()}
    assert all(p.grad is not None for p in detokenizer.mapper.parameters())


@pytest.mark.parametrize("distance", ["euclidean", "mse"])
def test_distances_to_the_caption(path, distance):
    detokenizer = build(path, caption_distance=distance, caption_weight=2.0)
    condition = spoken(detokenizer.pipeline)
    difference = detokenizer.mapper(condition.states) - condition.caption
    each = {"euclidean": difference.square().sum(-1).sqrt(), "mse": difference.square().mean(-1)}[distance]
    out = detokenizer.loss(PICTURES, condition, DRAW)
    torch.testing.assert_close(out.losses["caption"], 2 * each.mean(1).sum())
    assert int(out.counts["caption"]) == 2 and set(out.losses) == {"caption"}


def test_the_loss_falls(path):
    detokenizer = build(path, denoising_weight=1.0)
    condition, totals = spoken(detokenizer.pipeline), []
    optimizer = torch.optim.Adam(detokenizer.mapper.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        out = detokenizer.loss(PICTURES, condition, DRAW)
        totals.append(out.losses["caption"])
        sum(out.losses.values()).backward()
        optimizer.step()
    assert totals[-1] < 0.6 * totals[0]


def test_no_item_means_zero_loss(path):
    empty = Condition(states=torch.zeros(0, 4, 24))
    out = build(path, denoising_weight=1.0).loss(PICTURES[:0], empty, DRAW)
    assert set(out.losses) == {"caption", "denoising"}
    assert all(float(loss.detach()) == 0 for loss in out.losses.values())


def test_on_the_meta_device_shapes_alone(path):
    with torch.device("meta"):
        detokenizer = build(path)
    assert all(p.is_meta for p in detokenizer.parameters())
    assert detokenizer.mapper.project.out_features == 12


# ------------------------------------------------------------------------------------------- other media


def video_folder(folder):
    from diffusers import TextToVideoSDPipeline, UNet3DConditionModel

    network = UNet3DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock3D", "CrossAttnDownBlock3D"), up_block_types=("CrossAttnUpBlock3D", "UpBlock3D"),
        cross_attention_dim=12, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    words = {"text_encoder": clip_text(12), "tokenizer": clip_tokenizer(folder / "words")}
    parts = {"vae": vae(), "unet": randomize(network, std=0.1), "scheduler": euler()}
    TextToVideoSDPipeline(**parts, **words).save_pretrained(folder)
    return str(folder)


def test_clips(tmp_path):
    detokenizer = build(video_folder(tmp_path), kind="video", denoising_weight=1.0, sampling={"steps": 1})
    clips = torch.rand(2, 3, 3, 16, 16)
    out = detokenizer.loss(clips, spoken(detokenizer.pipeline), DRAW)
    sum(out.losses.values()).backward()
    assert all(p.grad is not None for p in detokenizer.mapper.parameters())
    made = detokenizer.generate(example_condition(24))
    assert made.ndim == 5 and made.shape[0] == 2 and made.shape[2:] == (3, 16, 16)


def audio_folder(folder):
    from diffusers import AudioLDMPipeline
    from transformers import ClapTextConfig, ClapTextModelWithProjection, SpeechT5HifiGan, SpeechT5HifiGanConfig

    network = unet(
        cross_attention_dim=(8, 16), class_embed_type="simple_projection", projection_class_embeddings_input_dim=12,
        class_embeddings_concat=True,
    )  # fmt: skip
    clap = ClapTextConfig(
        vocab_size=60, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        projection_dim=12, max_position_embeddings=90,
    )  # fmt: skip
    waves = SpeechT5HifiGanConfig(
        model_in_dim=8, upsample_initial_channel=8, upsample_rates=[2, 2], upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]], normalize_before=False, sampling_rate=400,
    )  # fmt: skip
    AudioLDMPipeline(
        vae=vae(in_channels=1, out_channels=1), text_encoder=ClapTextModelWithProjection(clap).eval(),
        tokenizer=clip_tokenizer(folder / "words"), unet=network, scheduler=euler(), vocoder=SpeechT5HifiGan(waves),
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def test_sounds(tmp_path):
    detokenizer = build(audio_folder(tmp_path), kind="audio", denoising_weight=1.0, sampling={"steps": 1})
    spectrograms = torch.randn(2, 1, 16, 8)
    condition = Condition(states=draw_states(2, 4, 24), caption=draw_states(2, 1, 12, seed=2))
    out = detokenizer.loss(spectrograms, condition, DRAW)
    sum(out.losses.values()).backward()
    assert all(p.grad is not None for p in detokenizer.mapper.parameters())
    waves = detokenizer.generate(condition)
    assert waves.ndim == 2 and len(waves) == 2


# ------------------------------------------------------------------------------------------- errors


def test_errors(tmp_path, path):
    with pytest.raises(UserError, match="nothing to learn from: caption_weight and denoising_weight are both 0"):
        build(path, caption_weight=0.0)
    with pytest.raises(DataError, match=r"Condition.caption of shape \(2, 77, 12\), got None.*caption_weight: 0"):
        build(path).loss(PICTURES, example_condition(24), DRAW)
    with pytest.raises(CheckpointError, match="can't read the pipeline .*nowhere"):
        build(str(tmp_path / "nowhere"))
    xl = str(unet_folder(tmp_path, unet(**XL)))
    with torch.device("meta"), pytest.raises(UserError, match="SDXL has two and a pooled vector: use sdxl"):
        build(xl)
