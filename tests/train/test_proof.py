import pytest
import torch
from torch import nn

from mmunify.errors import TrainingError
from mmunify.train.proof import ProofCallback, checksums
from tests.train.worlds import ToyModel, fit, toy_module, toy_stage


def prove(model, folder, allow_idle=(), **stage):
    module = toy_module(model, toy_stage(**stage))
    callback = ProofCallback(model, "toy", allow_idle)
    fit(module, folder, [callback])
    return callback.proof


def test_a_sound_stage_is_proven(tmp_path):
    proof = prove(ToyModel(), tmp_path, steps=25)
    assert (proof.steps, proof.num_learning, proof.idle, proof.moved) == (20, 6, [], [])
    assert proof.changed == {"adapters.image": True, "backbone": True}
    assert proof.num_frozen == 7  # four parameters of the tower, three buffers of its norm


def test_a_short_stage_is_proven_over_what_it_has(tmp_path):
    assert prove(ToyModel(), tmp_path, steps=3).steps == 3


class WithIdle(ToyModel):
    """Has a part that nothing uses."""

    def __init__(self):
        super().__init__()
        self.adapters["sound"] = nn.Linear(4, 4).double()


def test_idle_tensors_stop_the_run_unless_they_are_allowed(tmp_path):
    with pytest.raises(TrainingError, match=r"2 of 8 learning tensors had no gradient.*sound.weight.*allow_idle"):
        prove(WithIdle(), tmp_path)
    proof = prove(WithIdle(), tmp_path, allow_idle=["adapters.sound.*"])
    assert proof.idle == ["adapters.sound.weight", "adapters.sound.bias"]
    assert proof.changed == {"adapters.image": True, "adapters.sound": False, "backbone": True}


class LowRank(nn.Module):
    """B A x with B = 0: the gradient of A is zero in the first step."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(1, 4).double()), nn.Parameter(torch.zeros(4, 1).double())

    def forward(self, x):
        return x @ self.a.T @ self.b.T


class WithLowRank(ToyModel):
    def __init__(self):
        super().__init__()
        self.backbone[0].low_rank = LowRank()
        self.backbone[0].register_forward_hook(lambda module, args, out: out + module.low_rank(args[0]))


def test_a_zero_gradient_in_the_first_step_alone_is_fine(tmp_path):
    assert prove(WithLowRank(), tmp_path, learns=["*.low_rank.*"], steps=2).changed == {"backbone (low-rank)": True}
    with pytest.raises(TrainingError, match="low_rank.a"):
        prove(WithLowRank(), tmp_path, learns=["*.low_rank.*"], steps=1)


class Scribbler(ToyModel):
    """Writes to a frozen tensor."""

    def forward(self, batch):
        with torch.no_grad():
            self.encoders["image"].linear.weight[0, 0] += 1e-9
        return super().forward(batch)


def test_a_frozen_tensor_that_changes_stops_the_run(tmp_path):
    with pytest.raises(TrainingError, match=r"1 of 7 frozen tensors changed: encoders.image.linear.weight"):
        prove(Scribbler(), tmp_path)


class LateScribbler(Scribbler):
    def forward(self, batch):
        return super().forward(batch) if batch.step >= 22 else ToyModel.forward(self, batch)


def test_frozen_tensors_are_looked_at_again_at_the_end(tmp_path):
    with pytest.raises(TrainingError, match="frozen tensors changed"):
        prove(LateScribbler(), tmp_path, steps=24)


def test_a_part_that_does_not_change_stops_the_run(tmp_path):
    model = ToyModel()
    module = toy_module(model, toy_stage())
    optimizer = torch.optim.SGD([{"params": list(model.adapters.parameters()), "peak_lr": 0.1}], lr=0.1)
    module.configure_optimizers = lambda: optimizer
    with pytest.raises(TrainingError, match="backbone should learn but did not change in 4 steps"):
        fit(module, tmp_path, [ProofCallback(model, "toy")])


def test_checksums_see_every_bit():
    tensor = torch.randn(5, dtype=torch.bfloat16)
    others = {"y": torch.tensor([True, False]), "z": torch.ones(2, dtype=torch.complex64)}
    before = checksums({"x": tensor, **others}.items())
    tensor[3] = tensor[3] * -1
    after = checksums({"x": tensor}.items())
    assert before["x"] != after["x"] and before["y"] == 1


def test_proof_survives_an_interruption():
    first, second = (ProofCallback(ToyModel(), "toy") for _ in range(2))
    assert first.state_dict() == {}
    first.is_done, first.proof.idle = True, ["x"]
    second.load_state_dict(first.state_dict())
    assert second.is_done and second.proof == first.proof
