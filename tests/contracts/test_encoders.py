import pytest

from mmunify.parts import Encoder
from mmunify.registry import ENCODERS
from mmunify.testing import check_encoder


@pytest.mark.parametrize("name", ENCODERS.names())
def test_contract(name, build_example):
    encoder, examples = build_example(ENCODERS, name)
    assert isinstance(encoder, Encoder)
    values = examples.example_values() if hasattr(examples, "example_values") else None
    check_encoder(encoder, values)


@pytest.mark.parametrize("name", ENCODERS.names())
def test_layout_does_not_depend_on_the_call(name, build_example):
    encoder, _ = build_example(ENCODERS, name)
    assert encoder.layout((640, 480)) == encoder.layout((640, 480))
    assert encoder.layout((640, 480)).num_slots > 0
