import pytest
import torch

from mmunify.detokenizers.instruct_pix2pix import InstructPix2PixDetokenizer
from mmunify.errors import DataError, UserError
from mmunify.layers.empty_prompt import empty_prompt
from mmunify.parts import Draw
from mmunify.testing import randomize
from mmunify.types import Condition, Features
from tests.detokenizers.tiny_pipelines import draw_states, sd_folder, unet, unet_folder

QFORMER = {"num_queries": 77, "dim": 16, "depth": 2, "num_heads": 2}
DRAW = Draw(seed=0, step=0, keys=[0, 1], part="test")
PICTURES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SOURCE = Features(tokens=draw_states(2, 12, 16, seed=3), grid=(3, 4))
ON, OFF = torch.tensor([True, True]), torch.tensor([False, False])


def example(folder):
    path = unet_folder(folder, unet())
    return {"path": str(path), "qformer": QFORMER, "interaction": False, "sampling": {"steps": 2}}


def example_condition(in_dim):
    return Condition(states=draw_states(2, 6, in_dim), image=PICTURES)


def build(folder, **arguments):
    torch.manual_seed(0)
    path = str(unet_folder(folder, unet()))
    return InstructPix2PixDetokenizer(24, path, qformer=QFORMER, features_dim=16, **arguments)


def condition(**changes):
    return Condition(**{"states": draw_states(2, 6, 24), "image": PICTURES, "features": SOURCE, **changes})


def test_the_interaction_starts_silent(tmp_path):
    """SmartEdit's module begins from a U-Net that edits already."""
    detokenizer = build(tmp_path)
    with_it = detokenizer._tell(condition(), (OFF, OFF))
    states, residual = with_it["states"], with_it.pop("residual")
    assert torch.equal(states, detokenizer.qformer(condition().states))
    assert residual.shape == (2, 8, 8, 8) and not residual.any()
    sample, time = draw_states(2, 4, 8, 8), torch.tensor([5, 500])
    plain = unet()(sample, time, encoder_hidden_states=states).sample
    torch.testing.assert_close(detokenizer.unet(sample, time, with_it), plain, rtol=0, atol=0)


def test_what_is_dropped_leaves_no_trace(tmp_path):
    """Nothing of the source reaches a network that is told nothing, nor anything of the instruction."""
    detokenizer = build(tmp_path)
    randomize(detokenizer.interaction)
    nothing = detokenizer._tell(condition(), (ON, ON))
    assert not nothing["source"].any() and not nothing["residual"].any()
    assert torch.equal(nothing["states"], detokenizer.empty_states.expand(2, -1, -1))
    other = detokenizer._tell(condition(states=draw_states(2, 6, 24, seed=9)), (ON, OFF))
    source_alone = detokenizer._tell(condition(), (ON, OFF))
    for name in other:
        assert torch.equal(other[name], source_alone[name]), name
    assert source_alone["source"].any() and source_alone["residual"].any()


def test_a_dropped_instruction_is_the_empty_prompt(tmp_path):
    path = str(sd_folder(tmp_path))
    detokenizer = InstructPix2PixDetokenizer(24, path, qformer=QFORMER, interaction=False)
    states = detokenizer._tell(condition(), (torch.tensor([True, False]), OFF))["states"]
    torch.testing.assert_close(states[0], empty_prompt(path, 12, None, "test")[0])
    torch.testing.assert_close(states[1:], detokenizer.qformer(condition().states[1:]), rtol=1e-4, atol=1e-5)


def test_or_what_the_qformer_makes_of_zeros(tmp_path):
    detokenizer = build(tmp_path, null="zeros", interaction=False)
    states = detokenizer._tell(condition(), (ON, OFF))["states"]
    torch.testing.assert_close(states, detokenizer.qformer(torch.zeros(2, 6, 24)))


def test_all_of_it_learns(tmp_path):
    detokenizer = build(tmp_path, training={"drop": 0.0, "drop_source": 0.0, "drop_both": 0.0})
    randomize(detokenizer.interaction)
    detokenizer.loss(PICTURES, condition(), DRAW).losses["denoising"].backward()
    idle = [name for name, p in detokenizer.named_parameters() if p.requires_grad and (p.grad is None)]
    assert idle == []
    assert detokenizer.interaction.spread.weight.grad.abs().max() > 0
    assert detokenizer.unet.network.conv_in.weight.grad[:, 4:].abs().max() > 0


def test_the_default_drops_are_those_of_instruct_pix2pix(tmp_path):
    options = build(tmp_path).training_options
    assert (options.drop, options.drop_source, options.drop_both) == (0.05, 0.05, 0.05)


def test_the_loss_falls(tmp_path):
    detokenizer = build(tmp_path, training={"drop": 0.0, "drop_source": 0.0, "drop_both": 0.0})
    optimizer = torch.optim.Adam([p for p in detokenizer.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(detokenizer.loss(PICTURES, condition(), DRAW).losses["denoising"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_pictures_and_guidance(tmp_path):
    detokenizer = build(tmp_path, sampling={"steps": 2})
    randomize(detokenizer.interaction)
    edited = detokenizer.generate(condition(), seed=1)
    assert edited.shape == PICTURES.shape
    freer = detokenizer.generate(condition(), {"source": 1.0, "condition": 1.0}, seed=1)
    assert (edited - freer).abs().max() > 1e-4


# ------------------------------------------------------------------------------------------- errors


def test_errors(tmp_path):
    detokenizer = build(tmp_path)
    with pytest.raises(DataError, match="fill Condition.features, or say interaction: false"):
        detokenizer.loss(PICTURES, condition(features=None), DRAW)
    with pytest.raises(UserError, match="no strength 'image'; it takes condition, source"):
        detokenizer.generate(condition(), {"image": 1.0})
    with pytest.raises(UserError, match="77 states and the qformer 5 queries; say qformer: {num_queries: 77}"):
        InstructPix2PixDetokenizer(24, str(tmp_path), qformer={**QFORMER, "num_queries": 5})
