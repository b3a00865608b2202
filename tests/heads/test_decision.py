"""Retrieve or generate."""

import pytest
import torch
from torch.nn import functional as F

from mmunify.errors import DataError, UserError
from mmunify.heads.decision import DecisionHead
from tests.heads.worlds import make_model, output, talk

KIND = "decision"


def example(folder):
    return {"dropout": 0.0}


def example_target(rng):
    return int(rng.integers(0, 2))


def test_loss_is_cross_entropy_of_the_state_at_the_token(llama_folder):
    model, processor = make_model(llama_folder, {"decision": {"name": "decision"}})
    model.eval()
    batch = processor([talk("a", output("decision", 1)), talk("bb", output("decision", 0))])
    hidden = model.backbone(model.embed(batch, model.encode(batch)), batch.attention, batch.position_ids)
    logits = model.heads["decision"].readout(hidden.last[batch.outputs["decision"].slots])
    report = model(batch)
    wanted = F.cross_entropy(logits, torch.tensor([1, 0]), reduction="sum")
    torch.testing.assert_close(report.losses["decision/cross_entropy"], wanted)
    assert torch.equal(report.outputs["decision"].predictions["class"], logits.argmax(1))


def test_bad_input(llama_folder):
    with pytest.raises(UserError, match="at least two classes, got \\['one'\\]"):
        DecisionHead(8, classes=["one"])
    model, processor = make_model(llama_folder, {"decision": {"name": "decision"}})
    with pytest.raises(DataError, match=r"classes of node 'decision' are 0..1; got \[2\]"):
        model(processor([talk("a", output("decision", 2))]))
    with pytest.raises(DataError, match="no target for its decision output"):
        processor([talk("a", output("decision", None))])
