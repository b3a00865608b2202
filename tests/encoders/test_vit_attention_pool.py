import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from mmunify.encoders.vit_attention_pool import ViTAttentionPoolEncoder, pool_along
from mmunify.errors import CheckpointError, UserError
from mmunify.parts import Context
from mmunify.testing import check_encoder, picture_values, randomize

TINY = {"size": 32, "patch_size": 4, "dim": 16, "depth": 2, "num_heads": 2, "hidden_dim": 24, "num_queries": 16}


def example(folder):
    return {**TINY, "out_dim": 32, "pool": 2}


@pytest.fixture
def encoder():
    return randomize(ViTAttentionPoolEncoder(**TINY, out_dim=32)).eval()


def test_the_published_tower():
    with torch.device("meta"):
        tower = ViTAttentionPoolEncoder()
    assert sum(p.numel() for p in tower.parameters()) == 1_934_562_048  # "about 1.9 B"
    assert tower.patches.weight.shape == (1664, 3, 14, 14)
    assert tower.positions.shape == (256, 1664)
    assert tower.pool.attention.num_heads == 32
    assert (tower.layout().runs[0].slots, tower.layout().runs[0].grid, tower.out_dim) == (256, (16, 16), 4096)
    assert (tower.preprocess.size, tower.preprocess.fit) == ((448, 448), "stretch")


def test_targets_are_averages_in_raster_order(encoder):
    """A target token is the mean of four cells side by side, so 256 tokens become a raster of 16 x 4."""
    pooled = ViTAttentionPoolEncoder(**TINY, out_dim=32, pool=4).eval()
    pooled.load_state_dict(encoder.state_dict())
    values = picture_values(encoder.preprocess)
    tokens = encoder(values, Context()).tokens
    features = pooled(values, Context())
    assert features.grid == (4, 1)
    torch.testing.assert_close(features.tokens[:, 2], tokens[:, 8:12].mean(dim=1))
    with torch.device("meta"):
        assert ViTAttentionPoolEncoder(pool=4).layout().runs[0].grid == (16, 4)
    numbers = torch.randn(2, 256, 3)
    torch.testing.assert_close(pool_along(numbers, 4), numbers.view(2, 64, 4, 3).mean(dim=2))


def test_positions_are_resized_to_the_patches(encoder):
    """8 x 8 patches with a table of 16 x 16: bicubic, corners not aligned."""
    states = {}
    encoder.norm_before.register_forward_pre_hook(lambda _, inputs: states.update(before=inputs[0]))
    values = picture_values(encoder.preprocess)
    encoder(values, Context())
    raster = encoder.positions.view(1, 16, 16, 16).permute(0, 3, 1, 2)
    table = F.interpolate(raster, (8, 8), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(states["before"], encoder.patches(values[:, 0]).flatten(2).transpose(1, 2) + table)


def test_attention_pool_is_torchs_multi_head_attention(encoder):
    torch.manual_seed(0)
    pool, states = encoder.pool, torch.randn(2, 64, 16)
    attention = nn.MultiheadAttention(32, 1, batch_first=True)
    roles = [getattr(pool.attention, role) for role in ("query", "key", "value")]
    attention.in_proj_weight.data = torch.cat([role.weight for role in roles])
    attention.in_proj_bias.data = torch.cat([role.bias for role in roles])
    attention.out_proj.load_state_dict(pool.attention.output.state_dict())
    table = pool._table(states)
    places = F.interpolate(table.T.view(1, 32, 4, 4), (8, 8), mode="bicubic").flatten(2)[0].T
    memory = pool.memory_norm(pool.shrink(states))
    queries = (pool.queries_norm(pool.queries) + table).expand(2, -1, -1)
    wanted = attention(queries, memory + places, memory)[0]
    torch.testing.assert_close(pool(states, grid=(8, 8)), wanted, atol=1e-5, rtol=0)


def test_folder_round_trip_in_the_public_names(encoder, tmp_path):
    folder = encoder.save_folder(tmp_path)
    loaded = ViTAttentionPoolEncoder(path=str(folder), **TINY, out_dim=32).eval()
    assert loaded.external == str(folder)
    values = picture_values(encoder.preprocess)
    assert torch.equal(loaded(values, Context()).tokens, encoder(values, Context()).tokens)
    file = ViTAttentionPoolEncoder(path=str(folder / "model.safetensors"), **TINY, out_dim=32)
    assert torch.equal(file.proj, encoder.proj)
    check_encoder(loaded, values)


def test_weights_of_another_shape_or_missing(encoder, tmp_path):
    folder = encoder.save_folder(tmp_path)
    with pytest.raises(CheckpointError, match="holds another tower than this vit_attention_pool"):
        ViTAttentionPoolEncoder(path=str(folder), **{**TINY, "depth": 3}, out_dim=32)
    tensors = load_file(folder / "model.safetensors")
    del tensors["ln_post.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="norm_after.bias"):
        ViTAttentionPoolEncoder(path=str(folder), **TINY, out_dim=32)
    with pytest.raises(CheckpointError, match="does not exist"):
        ViTAttentionPoolEncoder(path=str(tmp_path / "nowhere"), **TINY, out_dim=32)


@pytest.mark.parametrize("changes", [{"pool": 3}, {"size": 30}])
def test_sizes_that_do_not_divide(changes):
    with pytest.raises(UserError, match="must divide the 4 queries of a row, and patch_size=4 the size"):
        ViTAttentionPoolEncoder(**{**TINY, "out_dim": 32, **changes})
