import shutil

import pytest
import torch

from mmunify.detokenizers.tiny_diffusion import TinyDiffusionDetokenizer, _preconditioned
from mmunify.errors import CheckpointError, DataError, UserError
from mmunify.layers.dropping import all_drops
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


def told(detokenizer, condition):
    return detokenizer._tell(condition, all_drops(condition, False, False))


def test_a_grid_shows_a_cell_what_lies_at_its_place():
    """Untrained blocks pass features through, so that each is seen where it lies, as 2 x 2 cells."""
    detokenizer = build(joins="grid")
    states = draw_states(1, 16, 24)
    changed = states.clone()
    changed[0, 0] += 5
    levels = [told(detokenizer, Condition(states=each))["near0"] for each in (states, changed)]
    difference = (levels[0] - levels[1]).abs().sum((0, 1))
    assert difference.shape == (8, 8)
    assert (difference[:2, :2] > 0).all()
    assert difference.sum() == difference[:2, :2].sum()


DRAFT = {"name": "pixel_decoder", "size": 16, "grid": 4, "dim": 16, "depth": 1}


def test_an_untrained_model_draws_its_draft():
    detokenizer, condition = build(draft=DRAFT, sampling={"steps": 1}), example_condition(24)
    torch.testing.assert_close(detokenizer.generate(condition), detokenizer.draft.generate(condition))


def test_a_draft_learns_from_its_own_losses_alone():
    detokenizer, condition = build(draft=DRAFT), example_condition(24)
    made = detokenizer.loss(PICTURES, condition, DRAW)
    assert made.losses.keys() == made.counts.keys() == {"denoising", "draft_l1", "draft_ssim"}
    own = detokenizer.draft.loss(PICTURES, condition, DRAW).losses["l1"]
    torch.testing.assert_close(made.losses["draft_l1"], own)
    made.losses["denoising"].backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in detokenizer.draft.parameters())
    made.losses["draft_l1"].backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in detokenizer.draft.parameters())


def test_a_frozen_draft_costs_no_loss():
    detokenizer = build(draft=DRAFT)
    detokenizer.draft.requires_grad_(False)
    assert detokenizer.loss(PICTURES, example_condition(24), DRAW).losses.keys() == {"denoising"}


def test_a_frozen_draft_teaches_what_makes_its_states():
    detokenizer = build(draft=DRAFT).requires_grad_(False)
    states = draw_states(2, 16, 24).requires_grad_()
    made = detokenizer.loss(PICTURES, Condition(states=states), DRAW)
    made.losses["draft_l1"].backward()
    assert states.grad.abs().sum() > 0


def test_a_folder_holds_its_draft(tmp_path):
    own = build(draft=DRAFT).draft.save_folder(tmp_path / "draft")
    detokenizer = build(draft={"name": "pixel_decoder", "path": str(own)}, sampling={"steps": 2})
    folder = detokenizer.save_folder(tmp_path / "part")
    shutil.rmtree(own)
    loaded = TinyDiffusionDetokenizer(24, sampling={"steps": 2}, path=str(folder))
    assert torch.equal(loaded.generate(example_condition(24)), detokenizer.generate(example_condition(24)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_preconditioning_is_that_of_edm(share):
    """https://arxiv.org/abs/2206.00364, table 1, for x + sigma e = sample / (1 - s), sigma = s / (1 - s)."""
    sample, answer = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    sigma, spread = share / (1 - share), 0.3
    skip, out = spread**2 / (sigma**2 + spread**2), sigma * spread / (sigma**2 + spread**2) ** 0.5
    made = _preconditioned(sample, torch.tensor(share, dtype=torch.float64), answer, spread)
    torch.testing.assert_close(made, skip * sample / (1 - share) + out * answer)


def test_cached_latents_are_learned_like_pictures():
    detokenizer = build(fold=4, dims=[32])
    latents = detokenizer.canvas.latents.encode(PICTURES)
    losses = [detokenizer.loss(each, example_condition(24), DRAW).losses for each in (PICTURES, latents)]
    torch.testing.assert_close(*losses, rtol=0, atol=0)


@pytest.mark.parametrize("prediction", [None, "epsilon", "v_prediction", "sample"])
def test_predictions(prediction, tmp_path):
    detokenizer = build(training={"prediction": prediction}, sampling={"steps": 2})
    loss = detokenizer.loss(PICTURES, example_condition(24), DRAW).losses["denoising"]
    assert loss.isfinite()
    assert detokenizer.generate(example_condition(24)).isfinite().all()
    folder = detokenizer.save_folder(tmp_path)
    assert TinyDiffusionDetokenizer(24, path=str(folder)).sizes["prediction"] == prediction


def test_edits_start_from_a_picture():
    detokenizer = build(source=True, sampling={"steps": 2})
    plain = example_condition(24)
    edit = Condition(states=plain.states, image=PICTURES)
    losses = [detokenizer.loss(PICTURES, each, DRAW).losses["denoising"] for each in (plain, edit)]
    torch.testing.assert_close(*losses, rtol=0, atol=0)  # the new channels start at zero
    torch.nn.init.normal_(detokenizer.unet.conv_out[-1].weight)  # it starts at zero, and stops gradients
    detokenizer.loss(PICTURES, edit, DRAW).losses["denoising"].backward()
    assert detokenizer.unet.source_in.weight.grad.abs().max() > 0
    assert detokenizer.generate(edit).shape == PICTURES.shape


@pytest.mark.parametrize("draft", [None, DRAFT])
def test_what_is_kept_of_the_source_is_drawn_exactly(draft):
    """Where all is kept, a picture is its source; an item without a source keeps nothing."""
    detokenizer = build(source=True, draft=draft, sampling={"steps": 1})
    torch.nn.init.ones_(detokenizer.unet.source_out[-1].bias)
    plain = example_condition(24)
    edit = Condition(states=plain.states, image=PICTURES, image_mask=torch.tensor([True, False]))
    drawn, without = detokenizer.generate(edit), build(draft=draft, sampling={"steps": 1}).generate(plain)
    torch.testing.assert_close(drawn[0], PICTURES[0])
    torch.testing.assert_close(drawn[1], without[1])


def comparing(joins="grid"):
    """A model that has learned to heed what differs from the source."""
    detokenizer = build(joins=joins, source=True, sampling={"steps": 1})
    torch.nn.init.normal_(detokenizer.unet.source_out[-1].weight)
    for leave in detokenizer.source_near.leave:
        torch.nn.init.normal_(leave.weight)
    return detokenizer


@pytest.mark.parametrize("joins", WAYS)
def test_it_is_told_where_features_differ_from_the_source(joins):
    """An item without a source is drawn as if nothing was compared."""
    detokenizer, states = comparing(joins), draw_states(2, 16, 24)
    mask = torch.tensor([True, False])

    def drawn(encoded):
        return detokenizer.generate(Condition(states=states, image=PICTURES, image_mask=mask, encoded_image=encoded))

    same, other = drawn(states), drawn(states + torch.eye(16)[5][:, None])
    as_without = drawn(None)
    torch.testing.assert_close(same[1], as_without[1])
    torch.testing.assert_close(other[1], as_without[1])
    assert (other[0] - same[0]).abs().max() > 1e-3


def test_comparing_changes_nothing_at_first():
    detokenizer = build(source=True, sampling={"steps": 2})
    torch.nn.init.normal_(detokenizer.unet.conv_out[-1].weight)
    edit = Condition(states=draw_states(2, 16, 24), image=PICTURES)
    compared = Condition(states=edit.states, image=PICTURES, encoded_image=draw_states(2, 16, 24, seed=1))
    torch.testing.assert_close(detokenizer.generate(compared), detokenizer.generate(edit), rtol=0, atol=0)


def test_comparing_learns_in_every_step():
    """Also in one whose items start from no picture, with a gradient of zero."""
    detokenizer = comparing()
    torch.nn.init.normal_(detokenizer.unet.conv_out[-1].weight)
    detokenizer.loss(PICTURES, example_condition(24), DRAW).losses["denoising"].backward()
    assert all(weight.grad is not None for weight in detokenizer.source_near.parameters())


def test_a_prediction_of_noise_keeps_nothing():
    assert build(source=True, training={"prediction": "epsilon"}).unet.source_out is None
    assert build().unet.source_out is None


def test_guidance_changes_the_picture():
    detokenizer, condition = build(sampling={"steps": 2}), example_condition(24)
    torch.nn.init.normal_(detokenizer.unet.conv_out[-1].weight)
    for leave in detokenizer.near.leave:
        torch.nn.init.normal_(leave.weight)
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
