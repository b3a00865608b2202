"""Packed rows = one sample per row: losses and gradients; and no sample sees another one of its row."""

from dataclasses import replace

import pytest
import torch

from mmunify.composer import compose
from mmunify.data.packing import RowPacker
from mmunify.data.processor import Processor
from mmunify.layers.modes import set_modes

TUNER = {"name": "lora_moe", "match": "*.mlp.*_proj", "rank": 2, "num_experts": 3, "alpha": 4}


@pytest.fixture
def tuned(nodes):
    """A model whose adapters, heads and low-rank experts learn, in float64."""
    nodes["heads"]["image"]["attention"] = "full"
    model = compose(**nodes, tuners=[TUNER]).double()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("encoders"))
        if ".low_rank." in name:
            parameter.data.normal_(std=0.2)
    model.train()
    set_modes(model)
    return model


def losses_and_gradients(model, batches):
    """Means over the batches; an auxiliary loss is a mean over tokens, so it is compared where one batch has all."""
    model.zero_grad()
    reports = [model(batch) for batch in batches]
    losses = {name: sum(report.losses[name] for report in reports) for name in reports[0].losses}
    counts = {name: sum(int(report.counts[name]) for report in reports) for name in losses}
    total = sum(loss / max(1, counts[name]) for name, loss in losses.items())
    if len(reports) == 1:
        total = total + sum(reports[0].aux.values())
        losses |= reports[0].aux
    total.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    means = {name: loss.detach() / max(1, counts.get(name, 1)) for name, loss in losses.items()}
    return means, counts, gradients


def double(batch):
    media = {name: replace(items, values=items.values.double()) for name, items in batch.media.items()}
    outputs = {name: replace(items, target=items.target.double()) for name, items in batch.outputs.items()}
    return replace(batch, media=media, outputs=outputs)


@pytest.mark.parametrize(("max_length", "batch_tokens"), [(1024, None), (160, None), (160, 384)])
def test_packed_is_one_by_one(tuned, make_sample, max_length, batch_tokens):
    make_up = [(1, 0), (0, 1), (3, 0), (0, 0), (2, 2), (1, 1), (0, 0)]
    samples = [make_sample("abcdefg"[i] * (1 + 3 * i), *numbers) for i, numbers in enumerate(make_up)]
    processor = Processor(tuned.spec(), tuned.backbone.tokenizer, tuned.tokens, max_length=max_length)
    packer = RowPacker(processor, packing=True, batch_tokens=batch_tokens)
    examples = [packer.encode(sample) for sample in samples]
    packed = [double(batch) for batch in packer.batches(examples)]
    assert sum(batch.batch_size for batch in packed) < len(samples)
    assert (len(packed) > 1) == (batch_tokens is not None)
    alone = [double(processor.collate(examples))]
    if batch_tokens is not None:
        alone = [double(processor.collate([example])) for example in examples]
    losses, counts, gradients = losses_and_gradients(tuned, packed)
    wanted_losses, wanted_counts, wanted = losses_and_gradients(tuned, alone)
    assert counts == wanted_counts and min(counts.values()) > 0
    torch.testing.assert_close(losses, wanted_losses, rtol=0, atol=1e-6)
    assert gradients.keys() == wanted.keys() and len(gradients) > 20
    torch.testing.assert_close(gradients, wanted, rtol=0, atol=1e-6)
    assert max(float(gradient.abs().max()) for gradient in wanted.values()) > 1e-3


def test_no_sample_sees_another_one(tuned, make_sample):
    processor = Processor(tuned.spec(), tuned.backbone.tokenizer, tuned.tokens)
    packer = RowPacker(processor, packing=True)
    (batch,) = packer.batches([packer.encode(make_sample(name, 1, 1)) for name in ("a", "bb", "cc")])
    (other,) = packer.batches([packer.encode(make_sample(name, 1, 1)) for name in ("a", "xx", "cc")])
    assert batch.batch_size == 1 and batch.input_ids.shape == other.input_ids.shape
    states = []
    for each in map(double, (batch, other)):
        embeds = tuned.embed(each, tuned.encode(each))
        states.append(tuned.backbone(embeds, each.attention, each.position_ids).last[0])
    changed = (states[0] != states[1]).any(-1)
    document = batch.attention.document[0]
    assert changed[document == 1].any() and not changed[document == 0].any() and not changed[document == 2].any()
