import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel

from mmunify.errors import CheckpointError, UserError
from mmunify.layers.diffusers_folder import has_folder, load_latents, load_network, load_scheduler, require_keys
from mmunify.layers.latents import CodedLatents, FoldedPixels
from tests.detokenizers.tiny_pipelines import UNET, unet, unet_folder


@pytest.fixture
def folder(tmp_path):
    return str(unet_folder(tmp_path, unet()))


def test_networks_come_with_their_weights(folder):
    loaded = load_network("unet", folder, None, "sdxl")
    assert isinstance(loaded, UNet2DConditionModel)
    for (name, ours), (_, theirs) in zip(loaded.state_dict().items(), unet().state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name
    assert isinstance(load_scheduler(folder, None, "sdxl"), EulerDiscreteScheduler)
    assert isinstance(load_latents(folder, None, "sdxl"), CodedLatents)


def test_a_config_changes_what_the_files_say(folder):
    changes = {"scheduler": {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}}
    scheduler = load_scheduler(folder, changes, "sdxl")
    assert isinstance(scheduler, DDIMScheduler)
    assert scheduler.config.prediction_type == "v_prediction"
    assert scheduler.config.beta_end == 0.012
    assert load_network("unet", folder, {"unet": {"sample_size": 4}}, "sdxl").config.sample_size == 4


def test_without_a_path():
    assert isinstance(load_latents(None, {"fold": 4}, "sdxl"), FoldedPixels)
    assert load_network("unet", None, {"unet": UNET}, "sdxl").config.in_channels == 4
    assert type(load_scheduler(None, None, "sdxl")).__name__ == "DDPMScheduler"
    assert type(load_scheduler(None, None, "x", "FlowMatchEulerDiscreteScheduler")).__name__.startswith("FlowMatch")


def test_on_the_meta_device_shapes_alone_are_read(folder):
    from pathlib import Path

    (Path(folder) / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with torch.device("meta"):
        network = load_network("unet", folder, None, "sdxl")
        scheduler = load_scheduler(folder, None, "sdxl")
    assert all(p.is_meta for p in network.parameters())
    assert not scheduler.alphas_cumprod.is_meta


def test_which_folders_there_are(folder):
    assert has_folder(folder, "unet")
    assert not has_folder(folder, "text_encoder")
    assert not has_folder(None, "unet")
    assert has_folder("somebody/model", "text_encoder")


# ------------------------------------------------------------------------------------------- errors


def test_neither_path_nor_config():
    with pytest.raises(UserError, match="sdxl needs a path, or a config with 'unet'"):
        load_network("unet", None, {"vae": {}}, "sdxl")
    with pytest.raises(UserError, match="config of sdxl has no 'unett'; it takes unet, transformer"):
        require_keys({"unett": {}}, "sdxl")


def test_classes_that_diffusers_does_not_have():
    with pytest.raises(UserError, match="'logging', which is no model or scheduler of diffusers"):
        load_network("unet", None, {"unet": {"_class_name": "logging", "x": 1}}, "sdxl")


def test_damaged_folders(tmp_path, folder):
    from pathlib import Path

    with pytest.raises(CheckpointError, match="config.json does not exist; path: is a folder as a pipeline"):
        load_network("unet", str(tmp_path / "nowhere"), None, "sdxl")
    file = Path(folder) / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="is truncated or no safetensors file"):
        load_network("unet", folder, None, "sdxl")
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(CheckpointError, match="weights are read from safetensors alone"):
        load_network("unet", folder, None, "sdxl")
