import pytest
import torch

from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.testing import check_encoder, picture_values


class InContext(Encoder):
    """An encoder that needs more of its context than its values: `example_context()` gives it."""

    def __init__(self, encoder, context):
        super().__init__()
        self.encoder, self.context = encoder, context
        self.out_dim, self.preprocess = encoder.out_dim, encoder.preprocess

    def layout(self, extent=None):
        return self.encoder.layout(extent)

    def forward(self, values, context):
        return self.encoder(values, self.context)


@pytest.mark.parametrize("name", ENCODERS.names())
def test_contract(name, build_example):
    encoder, examples = build_example(ENCODERS, name)
    assert isinstance(encoder, Encoder)
    values = examples.example_values() if hasattr(examples, "example_values") else None
    checked = InContext(encoder, examples.example_context()) if hasattr(examples, "example_context") else encoder
    check_encoder(checked, values)


@pytest.mark.parametrize("name", ENCODERS.names())
def test_layout_does_not_depend_on_the_call(name, build_example):
    encoder, _ = build_example(ENCODERS, name)
    assert encoder.layout((640, 480)) == encoder.layout((640, 480))
    assert encoder.layout((640, 480)).num_slots > 0


@pytest.mark.parametrize("name", ENCODERS.names())
def test_state_dict_round_trip(name, build_example):
    encoder, _ = build_example(ENCODERS, name)
    tensors = {key: value.clone() for key, value in encoder.state_dict().items()}
    other, _ = build_example(ENCODERS, name)
    other.load_state_dict(tensors)
    assert all(bool((other.state_dict()[key] == value).all()) for key, value in tensors.items())


@pytest.mark.parametrize("name", ENCODERS.names())
def test_the_same_seed_gives_the_same_answer(name, build_example):
    answers = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        encoder, examples = build_example(ENCODERS, name)
        values = (
            examples.example_values() if hasattr(examples, "example_values") else picture_values(encoder.preprocess)
        )
        known = hasattr(examples, "example_context")
        context = examples.example_context() if known else Context(kind=encoder.preprocess.kind)
        answers.append(encoder.eval()(values, context).tokens)
    assert torch.equal(answers[0], answers[1])
    assert "path" in str(examples.example.__code__.co_consts) or not torch.equal(answers[0], answers[2])
