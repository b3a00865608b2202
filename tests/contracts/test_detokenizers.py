import pytest

from mmunify.parts import Detokenizer
from mmunify.registry import DETOKENIZERS
from mmunify.testing import check_detokenizer


@pytest.mark.parametrize("name", DETOKENIZERS.names())
def test_contract(name, build_example):
    detokenizer, examples = build_example(DETOKENIZERS, name, in_dim=24)
    assert isinstance(detokenizer, Detokenizer)
    check_detokenizer(detokenizer, examples.example_condition(24))
