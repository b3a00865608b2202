"""What every head with output slots promises. Its test file says how to build one and what it learns:

KIND = "mask"                        # of the outputs
def example(folder): ...             # arguments of its node beside the widths
def example_target(rng): ...         # the target of one output about a picture of tests.heads.worlds.SIZE
"""

import numpy as np
import pytest
import torch

from mmunify.registry import HEADS
from mmunify.testing import randomize
from tests.contracts.conftest import load_examples
from tests.heads.worlds import generate_along, make_model, output, predictions, talk

SLOTTED = ["boxes", "decision", "hidden_states", "masks", "queries", "retrieval", "signal_tokens"]


@pytest.fixture
def world(llama_folder, tmp_path):
    """world(name): model, processor and samples with two, one and three outputs."""

    def make(name):
        examples = load_examples(HEADS, name)
        node = {"name": name, "kind": examples.KIND, **examples.example(tmp_path)}
        model, processor = make_model(llama_folder, {"out": node})
        rng = np.random.default_rng(0)
        outputs = lambda num: [output(examples.KIND, examples.example_target(rng)) for _ in range(num)]  # noqa: E731
        return model, processor, [talk(word, *outputs(num)) for word, num in (("red", 2), ("a", 1), ("green", 3))]

    return make


def test_every_head_with_slots_is_tested():
    without = {"text", "task_tokens", "patch_labels", "token_labels"}
    assert set(SLOTTED) == set(HEADS.names()) - without


@pytest.mark.parametrize("name", SLOTTED)
def test_slots_of_a_batch_are_those_of_the_samples(name, world):
    model, processor, samples = world(name)
    batch = processor(samples)
    assert batch.outputs["out"].document.tolist() == [0, 0, 1, 2, 2, 2]
    per_item = int(batch.outputs["out"].slots.sum()) // 6
    assert batch.outputs["out"].slots.sum(1).tolist() == [2 * per_item, per_item, 3 * per_item]


@pytest.mark.parametrize("name", [name for name in SLOTTED if name not in ("retrieval", "hidden_states")])
def test_losses_are_sums_over_items(name, world):
    model, processor, samples = world(name)
    model.eval()
    together = model(processor(samples))
    alone = [model(processor([sample])) for sample in samples]
    names = [key for key in together.losses if key.startswith("out/")]
    assert names
    for key in names:
        total = torch.stack([report.losses[key] for report in alone]).sum()
        torch.testing.assert_close(total, together.losses[key], rtol=1e-4, atol=1e-4)
        assert int(together.counts[key]) == sum(int(report.counts[key]) for report in alone) == 6


@pytest.mark.parametrize("name", SLOTTED)
def test_a_batch_without_outputs_takes_part_with_zero(name, world):
    model, processor, _ = world(name)
    report = model.train()(processor([talk("nothing")]))
    own = {key: value for key, value in report.losses.items() if key.startswith("out/")}
    assert all(float(value.detach()) == 0 and float(report.counts[key]) == 0 for key, value in own.items())
    report.total.backward()
    head = dict(model.heads["out"].named_parameters())
    assert [key for key, p in head.items() if p.grad is None or float(p.grad.abs().sum()) != 0] == []


@pytest.mark.parametrize("name", SLOTTED)
def test_twenty_steps_lower_the_loss(name, world):
    model, processor, samples = world(name)
    batch = processor(samples[:2])
    model.encoders.requires_grad_(False)
    model.train()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=5e-3)
    losses = []
    for _ in range(20):
        report = model(batch)
        own = [value / report.counts[key] for key, value in report.losses.items() if key.startswith("out/")]
        loss = torch.stack(own).sum() if own else _any_distance(report)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.75 * losses[0], losses
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.heads["out"].parameters())


@pytest.mark.parametrize("name", SLOTTED)
def test_generated_slots_are_those_of_the_forward_pass_and_batched_is_one_by_one(name, world, monkeypatch):
    model, processor, samples = world(name)
    randomize(model, seed=1)
    model.eval()
    together = generate_along(model, processor, samples, monkeypatch)
    wanted = predictions(model, processor(samples), "out")
    got = torch.cat([answer.predictions["out"] for answer in together])
    assert len(got) == 6
    if wanted is not None:
        torch.testing.assert_close(got.reshape(wanted.shape), wanted, rtol=1e-3, atol=1e-4)
    for sample, answer in zip(samples, together, strict=True):
        (alone,) = generate_along(model, processor, [sample], monkeypatch)
        assert alone.ids == answer.ids
        torch.testing.assert_close(alone.predictions["out"], answer.predictions["out"], rtol=1e-3, atol=1e-4)


def _any_distance(report):
    """For a head that a de-tokenizer teaches: its condition to ones."""
    return (report.outputs["out"].conditions.states - 1).square().mean()
