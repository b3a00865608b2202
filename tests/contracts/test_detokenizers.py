import pytest

from mmunify.parts import Detokenizer
from mmunify.registry import DETOKENIZERS
from mmunify.testing import check_detokenizer


@pytest.mark.parametrize("name", DETOKENIZERS.names())
def test_contract(name, build_example):
    detokenizer, examples = build_example(DETOKENIZERS, name, in_dim=24)
    assert isinstance(detokenizer, Detokenizer)
    check_detokenizer(detokenizer, examples.example_condition(24))


@pytest.mark.parametrize("name", DETOKENIZERS.names())
def test_it_needs_what_a_condition_can_hold(name, build_example):
    detokenizer, _ = build_example(DETOKENIZERS, name, in_dim=24)
    assert detokenizer.needs <= {"image", "features", "null", "caption"}
    assert detokenizer.num_states is None or detokenizer.num_states > 0
