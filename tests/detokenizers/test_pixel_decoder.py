import pytest
import torch

from mmunify.detokenizers.pixel_decoder import PixelDecoder
from mmunify.errors import CheckpointError, DataError, UserError
from mmunify.parts import Draw
from mmunify.types import Condition

TINY = {"size": 16, "grid": 4, "dim": 16, "depth": 1}
DRAW = Draw(seed=0, step=0, keys=[0, 1], part="test")


def example(folder):
    return dict(TINY)


def example_condition(in_dim):
    return Condition(states=torch.randn(2, 16, in_dim, generator=torch.Generator().manual_seed(0)))


def test_the_default_fits_its_budget():
    decoder = PixelDecoder(in_dim=128)
    assert sum(p.numel() for p in decoder.parameters()) <= 400_000
    assert decoder.generate(Condition(states=torch.randn(1, 64, 128))).shape == (1, 3, 64, 64)
    assert decoder.preprocess.size == (64, 64)


def test_features_stay_in_their_place():
    """A changed patch changes the pixels near it more than those in the far corner."""
    torch.manual_seed(0)
    decoder = PixelDecoder(8, size=32, grid=8, dim=16, depth=1).eval()
    states = torch.randn(1, 64, 8)
    changed = states.clone()
    changed[0, 0] += 5
    difference = (decoder(changed) - decoder(states)).abs().sum((0, 1))
    assert difference[:8, :8].mean() > 5 * difference[24:, 24:].mean()


def test_objectives():
    target, condition = torch.rand(2, 3, 16, 16), example_condition(8)
    torch.manual_seed(0)
    plain = PixelDecoder(8, **TINY, ssim_weight=0.0)
    pixels = plain(condition.states)
    out = plain.loss(target, condition, DRAW)
    assert set(out.losses) == {"l1"}
    torch.testing.assert_close(out.losses["l1"], (pixels - target).abs().mean((1, 2, 3)).sum())
    assert out.counts["l1"] == 2
    torch.testing.assert_close(out.predictions["pixels"], pixels)
    torch.manual_seed(0)
    squared = PixelDecoder(8, **TINY, objective="mse").loss(target, condition, DRAW)
    assert set(squared.losses) == {"mse"}
    torch.testing.assert_close(squared.losses["mse"], (pixels - target).square().mean((1, 2, 3)).sum())


def test_structure_is_weighed_beside_l1():
    target, condition = torch.rand(2, 3, 16, 16), example_condition(8)
    decoders = []
    for weight in (0.2, 0.4):
        torch.manual_seed(0)
        decoders.append(PixelDecoder(8, **TINY, ssim_weight=weight))
    light, heavy = (decoder.loss(target, condition, DRAW).losses for decoder in decoders)
    torch.testing.assert_close(heavy["ssim"], 2 * light["ssim"])
    torch.testing.assert_close(heavy["l1"], light["l1"])


def test_no_item_means_zero_loss_and_zero_gradients():
    decoder = PixelDecoder(8, **TINY)
    out = decoder.loss(torch.rand(0, 3, 16, 16), Condition(states=torch.zeros(0, 16, 8)), DRAW)
    sum(out.losses.values()).backward()
    assert all(float(loss.detach()) == 0 for loss in out.losses.values())
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in decoder.parameters())


def test_learns_two_pictures():
    torch.manual_seed(0)
    decoder, condition = PixelDecoder(8, **TINY), example_condition(8)
    target = torch.stack([torch.full((3, 16, 16), 0.2), torch.full((3, 16, 16), 0.9)])
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        sum(decoder.loss(target, condition, DRAW).losses.values()).backward()
        optimizer.step()
    assert (decoder.generate(condition) - target).abs().mean() < 0.05


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.0), (torch.float16, 1e-3)])
def test_folder_round_trip(tmp_path, dtype, tolerance):
    decoder = PixelDecoder(8, **TINY)
    folder = decoder.save_folder(tmp_path / "decoder", dtype=dtype)
    loaded = PixelDecoder(8, path=str(folder))
    assert loaded.external == str(folder)
    assert loaded.size == 16
    states = example_condition(8).states
    assert (loaded(states) - decoder(states)).abs().max() <= tolerance


def test_on_the_meta_device_a_folder_gives_shapes_alone(tmp_path):
    folder = PixelDecoder(8, **TINY).save_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    with torch.device("meta"):
        decoder = PixelDecoder(8, path=str(folder))
    assert decoder.size == 16
    assert all(p.is_meta for p in decoder.parameters())


# ------------------------------------------------------------------------------------------- errors


def test_another_number_of_features():
    with pytest.raises(DataError, match="grid=4 decodes 16 features per picture, got 9"):
        PixelDecoder(8, **TINY)(torch.zeros(1, 9, 8))


def test_sizes_that_do_not_fit():
    with pytest.raises(UserError, match="size=60 of a pixel_decoder must be grid=8 times a power of two"):
        PixelDecoder(8, size=60)
    with pytest.raises(UserError, match="multiple of 16, got 24"):
        PixelDecoder(8, dim=24)


def test_a_folder_for_another_encoder(tmp_path):
    folder = PixelDecoder(8, **TINY).save_folder(tmp_path)
    with pytest.raises(UserError, match="decodes features of width 8, the encoder's are 12 wide"):
        PixelDecoder(12, path=str(folder))


def test_damaged_folders(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        PixelDecoder(8, path=str(tmp_path / "nowhere"))
    file = PixelDecoder(8, **TINY).save_folder(tmp_path) / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated"):
        PixelDecoder(8, path=str(tmp_path))


def test_weights_that_do_not_fit_their_config(tmp_path):
    PixelDecoder(8, **TINY).save_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"in_dim": 8, "size": 16, "grid": 4, "dim": 16, "depth": 2}')
    with pytest.raises(CheckpointError, match="doesn't fit the sizes in its config.json"):
        PixelDecoder(8, path=str(tmp_path))
