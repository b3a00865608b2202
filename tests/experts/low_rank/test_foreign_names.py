import pytest
import torch

from mmunify.errors import UserError
from mmunify.experts.low_rank._foreign_names import check_shape, match_names, refuse_others

OURS = [f"lm.layers.{i}.{block}.{name}" for i in range(2) for block, name in (("mlp", "up"), ("attn", "q"))]


@pytest.mark.parametrize("start", ["", "model.", "model.lm.", "lm."])
def test_beginnings_are_exchanged(start):
    theirs = [start + name.removeprefix("lm.") for name in OURS]
    assert match_names("adapter", theirs, OURS) == dict(zip(theirs, OURS, strict=True))


def test_equal_names_stay():
    assert match_names("adapter", OURS[:1], OURS) == {OURS[0]: OURS[0]}
    assert match_names("adapter", ["0"], ["0", "1"]) == {"0": "0"}


def test_what_has_no_place_or_two_is_refused():
    with pytest.raises(UserError, match="adapter: its 1 modules are not those of this model, which has no place for"):
        match_names("adapter", ["model.layers.0.mlp.gate"], OURS)
    with pytest.raises(UserError, match="model.layers.0.up could be any of a.layers.0.up, b.layers.0.up"):
        match_names("adapter", ["model.layers.0.up"], ["a.layers.0.up", "b.layers.0.up"])
    with pytest.raises(UserError, match="not those of this model"):
        match_names("adapter", ["model.layers.0.mlp.up", "model.layers.7.mlp.up"], OURS)


def test_shapes_and_strangers_are_refused_with_numbers():
    with pytest.raises(UserError, match=r"file: x has shape \(2, 3\), but the module needs \(2, 4\)"):
        check_shape("file", "x", torch.zeros(2, 3), (2, 4))
    with pytest.raises(UserError, match=r"file: 1 tensors \(b\) are no matrix"):
        refuse_others("file", {"a": torch.zeros(1), "b": torch.zeros(1)}, ["a"], "matrix")
