"""Contracts: random draws, defaults and messages."""

from types import SimpleNamespace

import pytest
import torch

from mmunify.errors import UserError
from mmunify.heads.text import TextHead
from mmunify.parts import Draw
from mmunify.registry import ENCODERS
from tests.conftest import TINY_CLIP


def test_draws_depend_on_seed_step_key_and_part_alone():
    one = Draw(seed=1, step=2, keys=[5, 6, 7], part="detokenizers.image")
    other = Draw(seed=1, step=2, keys=[7], part="detokenizers.image")
    assert torch.equal(one.normal(3)[2], other.normal(3)[0])
    assert torch.equal(one.uniform(2)[2], other.uniform(2)[0])
    for change in ({"seed": 2}, {"step": 3}, {"keys": [8]}, {"part": "heads.image"}):
        changed = Draw(**{"seed": 1, "step": 2, "keys": [7], "part": "detokenizers.image", **change})
        assert not torch.equal(changed.normal(3)[0], other.normal(3)[0])


def test_no_items_draw_nothing():
    assert Draw(seed=0, step=0, keys=[], part="x").normal(2, 3).shape == (0, 2, 3)


def test_parts_without_a_format_say_so(tmp_path):
    with pytest.raises(UserError, match="TextHead has no folder format"):
        TextHead().save_folder(tmp_path)
    with pytest.raises(TypeError, match="TextHead opens no slot"):
        TextHead().generate(SimpleNamespace(run=print), 1)


def test_a_head_that_says_nothing_reads_no_medium_and_makes_features():
    head = TextHead()
    assert (head.features, head.output_shape, head.encodes_target, head.pool) == (None, None, True, "2d")
    assert (head.layers, head.strings, head.makes) == ((), (), "features")
    encoder = ENCODERS.build({"name": "clip", "config": TINY_CLIP})
    assert head.target_preprocess(encoder) is None
