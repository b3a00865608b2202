import torch

from mmunify.layers.empty_prompt import empty_prompt
from tests.detokenizers.tiny_pipelines import sd_folder, unet, unet_folder


def test_what_the_pipeline_says_of_an_empty_prompt(tmp_path):
    from diffusers import StableDiffusionPipeline

    folder = str(sd_folder(tmp_path))
    states, pooled = empty_prompt(folder, 12, None, "sdxl")
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    wanted, _ = pipeline.encode_prompt("", "cpu", 1, False)
    torch.testing.assert_close(states, wanted[0])
    assert states.shape == (77, 12) and states.abs().max() > 0.1
    assert not states.requires_grad and pooled is None


def test_without_a_text_encoder_it_is_zeros(tmp_path):
    folder = str(unet_folder(tmp_path, unet()))
    for path in (folder, None):
        states, pooled = empty_prompt(path, 12, 10, "sdxl")
        assert states.shape == (77, 12) and pooled.shape == (10,)
        assert not states.any()


def test_on_the_meta_device_nothing_is_read(tmp_path):
    folder = str(unet_folder(tmp_path, unet()))
    (tmp_path / "text_encoder").mkdir()
    with torch.device("meta"):
        states, pooled = empty_prompt(folder, 12, 10, "sdxl")
    assert states.is_meta and pooled.is_meta
