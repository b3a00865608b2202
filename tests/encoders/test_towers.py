import pytest
import torch

from mmunify.encoders._towers import CLIP, SIGLIP, absolute_layer, build_tower, statistics
from mmunify.errors import CheckpointError, UserError
from mmunify.testing import tiny_clip_folder
from tests.conftest import TINY_CLIP


def test_statistics_of_a_folder_or_of_the_kind(tmp_path):
    folder = str(tiny_clip_folder(tmp_path))
    assert statistics(CLIP, folder, None) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    assert statistics(CLIP, None, None) == (CLIP.mean, CLIP.std)
    (tmp_path / "preprocessor_config.json").unlink()
    assert statistics(CLIP, folder, None) == (CLIP.mean, CLIP.std)


@pytest.mark.parametrize(("layer", "index"), [(0, 0), (3, 3), (-1, 3), (-4, 0)])
def test_layers_are_counted_from_both_ends(layer, index):
    assert absolute_layer(CLIP, layer, 3) == index


def test_random_or_without_numbers():
    assert not next(build_tower(CLIP, None, TINY_CLIP, "float32", None).parameters()).is_meta
    with torch.device("meta"):
        assert next(build_tower(CLIP, "no/where", TINY_CLIP, "float32", None).parameters()).is_meta


def test_messages_name_the_encoder_and_its_configuration(tmp_path):
    with pytest.raises(
        UserError, match=r"a siglip encoder needs path: .* \(arguments of SiglipVisionConfig\); got neither"
    ):
        build_tower(SIGLIP, None, None, "float32", None)
    with pytest.raises(CheckpointError, match="the siglip tower .*nowhere.* cannot be found"):
        build_tower(SIGLIP, str(tmp_path / "nowhere"), None, "float32", None)
