import pytest
import torch

from mmunify.detokenizers.tiny_diffusion import TinyDiffusionDetokenizer
from mmunify.errors import CheckpointError, DataError, UserError
from mmunify.parts import Draw
from mmunify.types import Condition
from tests.detokenizers.tiny_pipelines import draw_states

TINY = {"size": 16, "fold": 2, "dims": [32, 32]}
DRAW = Draw(seed=0, step=0, keys=[0, 1], part="test")
PICTURES = torch.stack([torch.full((3, 16, 16), 0.2), torch.full((3, 16, 16), 0.9)])
WAYS = ["cross_attention", "grid", "both"]


def example(folder):
    return {**TINY, "sampling": {"steps": 2}}


def example_condition(in_dim):
    return Condition(states=draw_states(2, 16, in_dim))


def build(**arguments):
    torch.manual_seed(0)
    return TinyDiffusionDetokenizer(24, **{**TINY, **arguments})


@pytest.mark.parametrize("joins", WAYS)
def test_the_default_fits_its_budget(joins):
    with torch.device("meta"):
        detokenizer = TinyDiffusionDetokenizer(128, joins=joins, source=True)
    assert sum(p.numel() for p in detokenizer.parameters()) <= 5_000_000
    assert detokenizer.canvas.shape == (48, 16, 16)
    assert detokenizer.preprocess.size == (64, 64)


@pytest.mark.parametrize("joins", WAYS)
def test_the_condition_decides(joins):
    """Two features give two colours, and without guidance's help."""
    options = {"training": {"drop": 0.0}, "sampling": {"steps": 4, "guidance": 1.0}}
    detokenizer = build(joins=joins, **options)
    losses = learn(detokenizer, steps=60, lr=3e-3)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    drawn = detokenizer.generate(example_condition(24)).mean((1, 2, 3))
    assert drawn[1] - drawn[0] > 0.3


def test_flow_learns():
    losses = learn(build(joins="grid", objective="flow", training={"drop": 0.0}), steps=25, lr=1e-2)
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])


def learn(detokenizer, steps, lr):
    optimizer, condition = torch.optim.Adam(detokenizer.parameters(), lr=lr), example_condition(24)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        draw = Draw(seed=0, step=step, keys=[0, 1], part="test")
        losses.append(detokenizer.loss(PICTURES, condition, draw).losses["denoising"])
        losses[-1].backward()
        optimizer.step()
    return [float(loss.detach()) for loss in losses]


def test_a_grid_shows_a_cell_what_lies_at_its_place():
    detokenizer = build(joins="grid").eval()
    states = draw_states(1, 16, 24)
    changed = states.clone()
    changed[0, 0] += 5
    drops = torch.tensor([False]), torch.tensor([False])
    beside = [detokenizer._tell(Condition(states=each), drops)["beside"] for each in (states, changed)]
    difference = (beside[0] - beside[1]).abs().sum((0, 1))
    assert difference.shape == (8, 8)
    assert (difference[:2, :2] > 0).all()
    assert difference.sum() == difference[:2, :2].sum()


@pytest.mark.parametrize("objective", ["flow_data", "flow", "epsilon", "v_prediction", "sample"])
def test_objectives(objective):
    detokenizer = build(objective=objective, sampling={"steps": 2})
    loss = detokenizer.loss(PICTURES, example_condition(24), DRAW).losses["denoising"]
    assert loss.isfinite()
    assert detokenizer.generate(example_condition(24)).isfinite().all()


def test_edits_start_from_a_picture():
    detokenizer = build(source=True, sampling={"steps": 2})
    plain = example_condition(24)
    edit = Condition(states=plain.states, image=PICTURES)
    losses = [detokenizer.loss(PICTURES, each, DRAW).losses["denoising"] for each in (plain, edit)]
    torch.testing.assert_close(*losses, rtol=0, atol=0)  # the new channels start at zero
    losses[1].backward()
    assert detokenizer.unet.network.conv_in.weight.grad[:, -12:].abs().max() > 0
    assert detokenizer.generate(edit).shape == PICTURES.shape


def test_guidance_changes_the_picture():
    detokenizer, condition = build(sampling={"steps": 2}), example_condition(24)
    weak, strong = (detokenizer.generate(condition, {"condition": g}) for g in (1.0, 5.0))
    assert (weak - strong).abs().max() > 1e-3


def test_no_item_means_zero_loss_and_zero_gradients():
    detokenizer = build()
    out = detokenizer.loss(PICTURES[:0], Condition(states=torch.zeros(0, 16, 24)), DRAW)
    out.losses["denoising"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in detokenizer.parameters())


# ------------------------------------------------------------------------------------------- folders


def test_folder_round_trip(tmp_path):
    detokenizer = build(joins="grid", sampling={"steps": 2})
    folder = str(detokenizer.save_folder(tmp_path / "part"))
    loaded = TinyDiffusionDetokenizer(24, sampling={"steps": 2}, path=folder)
    assert loaded.sizes == detokenizer.sizes
    condition = example_condition(24)
    assert torch.equal(loaded.generate(condition), detokenizer.generate(condition))


def test_stage_two_starts_from_the_folder_of_stage_one(tmp_path):
    one = build(sampling={"steps": 2})
    folder = str(one.save_folder(tmp_path))
    two = TinyDiffusionDetokenizer(24, source=True, sampling={"steps": 2}, path=folder)
    condition = example_condition(24)
    torch.testing.assert_close(two.generate(condition), one.generate(condition), rtol=0, atol=0)
    with torch.device("meta"):
        assert TinyDiffusionDetokenizer(24, path=folder).sizes["size"] == 16


# ------------------------------------------------------------------------------------------- errors


def test_errors(tmp_path):
    with pytest.raises(UserError, match=r"size=60 of tiny_diffusion is no multiple of fold x 2\^\(levels - 1\) = 8"):
        TinyDiffusionDetokenizer(24, size=60)
    with pytest.raises(UserError, match=r"dims of tiny_diffusion must be multiples of 32, got \[32, 40\]"):
        build(dims=[32, 40])
    with pytest.raises(DataError, match="square raster, got 7 per picture"):
        build().loss(PICTURES, Condition(states=draw_states(2, 7, 24)), DRAW)
    with pytest.raises(UserError, match="starts from no picture; say source: true"):
        build().generate(Condition(states=draw_states(2, 16, 24), image=PICTURES))
    folder = build().save_folder(tmp_path)
    (folder / "config.json").write_text((folder / "config.json").read_text().replace('"fold": 2', '"fold": 4'))
    with pytest.raises(CheckpointError, match="doesn't fit the sizes in its config.json"):
        TinyDiffusionDetokenizer(24, path=str(folder))
