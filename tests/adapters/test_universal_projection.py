import pytest
import torch

from mmunify.adapters.universal_projection import UniversalProjectionAdapter
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import random_features, randomize
from mmunify.types import Layout

TINY = {"num_queries": 3, "num_experts": 2, "depth": 1, "dim": 16, "num_heads": 2}


def example(folder):
    return {**TINY, "kinds": ["image", "audio"], "router_input": "item"}


def build(**arguments):
    torch.manual_seed(0)
    return randomize(UniversalProjectionAdapter(8, 12, **{**TINY, **arguments}))


def test_layout_is_the_learned_tokens():
    assert build().layout(Layout.of(257)) == Layout.of(3)


@pytest.mark.parametrize("gate", ["sigmoid", "softmax"])
def test_by_hand_expert_after_expert(gate):
    adapter, features = build(gate=gate), random_features(8, (2, 3))
    own = adapter.kinds["image"]
    states = torch.cat([own.queries.expand(2, -1, -1), own.project_in(features.tokens)], dim=1)
    numbers = own.router(states)
    weights = numbers.softmax(-1) if gate == "softmax" else numbers.sigmoid() / numbers.sigmoid().sum(-1, keepdim=True)
    mixed = sum(blocks[0](states)[:, :3] * weights[:, :3, i, None] for i, blocks in enumerate(adapter.experts))
    torch.testing.assert_close(adapter(features, Context()).tokens, own.project_out(mixed), atol=1e-5, rtol=0)


def test_one_expert_is_not_weighted():
    adapter, features = build(num_experts=1), random_features(8, (2, 3))
    own = adapter.kinds["image"]
    wanted = own.project_out(adapter.experts[0][0](own.enter(features.tokens))[:, :3])
    torch.testing.assert_close(adapter(features, Context()).tokens, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("router_input", "same"), [("queries", True), ("item", False)])
def test_what_the_weights_depend_on(router_input, same):
    """In the released code on the kind alone."""
    adapter = build(router_input=router_input)
    own, features = adapter.kinds["image"], random_features(8, (2, 3))
    weights = adapter._weights(own, own.enter(features.tokens), None)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
    assert torch.allclose(weights[0], weights[1]) is same


def test_kinds_share_experts_alone():
    adapter, features = build(kinds=["image", "audio"]), random_features(8, (2, 3))
    picture, sound = (adapter(features, Context(kind=kind)).tokens for kind in ("image", "audio"))
    assert (picture - sound).abs().max() > 1e-2
    adapter.kinds["audio"].load_state_dict(adapter.kinds["image"].state_dict())
    assert torch.equal(picture, adapter(features, Context(kind="audio")).tokens)


def test_kinds_that_a_step_lacks_take_part_in_it():
    adapter = build(kinds=["image", "audio"])
    adapter(random_features(8, (2, 3)), Context()).tokens.square().sum().backward()
    gradients = {name: p.grad for name, p in adapter.named_parameters()}
    assert all((g == 0).all() for name, g in gradients.items() if "audio" in name)
    assert all((g != 0).any() for name, g in gradients.items() if "audio" not in name)


def test_an_unknown_kind_is_named():
    with pytest.raises(DataError, match=r"has kinds \['image'\], and a 'fmri' came"):
        build()(random_features(8, (2, 3)), Context(kind="fmri"))


@pytest.mark.parametrize("wrong", [{"kinds": []}, {"num_queries": 0}, {"num_experts": 0}, {"depth": 0}])
def test_counts_below_one_are_refused(wrong):
    with pytest.raises(UserError, match="at least 1"):
        UniversalProjectionAdapter(8, 12, **{**TINY, **wrong})


def test_an_expert_of_onellm_has_the_computed_size():
    with torch.device("meta"):
        adapter = UniversalProjectionAdapter(1024, 4096, num_heads=16)
    assert sum(p.numel() for p in adapter.experts[0].parameters()) == 102_776_832
    assert len(adapter.experts) == 3
    assert adapter.kinds["image"].queries.shape == (30, 1024)
