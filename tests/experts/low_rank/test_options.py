import pytest

from mmunify.errors import UserError
from mmunify.experts.low_rank._options import MixtureOptions, experts_per_layer

NAMES = [f"lm.layers.{i}.mlp.{name}" for i in range(3) for name in ("up", "down")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temprature": 2.0}, "no option 'temprature'; did you mean 'temperature'"),
        ({"site": "fnn"}, "options.site wants one of 'linear', 'ffn', got 'fnn'"),
        ({"mask": "pad"}, "options.mask wants one of 'all', 'non_pad', 'response'"),
        ({"gate_input": "tasks"}, "options.gate_input wants one of 'layer', 'task', 'modality', 'hidden'"),
        ({"jitter": 1.0}, r"options.jitter must be in \[0, 1\), got 1.0"),
        ({"ids": 0}, "options.ids must be at least 1, got 0"),
        ({"site": "ffn", "dropout_masks": "per_expert"}, "dropout_masks per_expert is for site linear"),
    ],
)
def test_impossible_options_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        MixtureOptions.of(given)


def test_one_number_of_experts_or_one_per_layer():
    assert experts_per_layer("T", NAMES, 4) == dict.fromkeys(NAMES, 4)
    per_layer = experts_per_layer("T", NAMES, [2, 4, 8])
    assert [per_layer[name] for name in NAMES] == [2, 2, 4, 4, 8, 8]
    assert experts_per_layer("T", ["a.up", "a.down"], [2, 3]) == {"a.up": 2, "a.down": 3}


def test_another_number_of_layers_is_refused_with_their_names():
    message = (
        r"T: num_experts has 2 numbers, but match names modules of 3 layers \(lm.layers.0, lm.layers.1, lm.layers.2\)"
    )
    with pytest.raises(UserError, match=message):
        experts_per_layer("T", NAMES, [2, 4])


def test_losses_of_no_weight_are_checked_and_left_out():
    options = MixtureOptions(reduce="local")
    assert options.losses({"z": 0.0, "none": 1.0}, 4) == []
    ((weight, loss),) = options.losses({"switch": 1e-3, "z": 0}, 4)
    assert weight == 1e-3
    assert loss.keywords == {"over_ranks": False}
    with pytest.raises(UserError, match="must be even, got 3"):
        options.losses({"localized_balance": 0.0}, 3)


def test_a_router_of_every_gate():
    options = MixtureOptions(gate_input="hidden", jitter=0.1, float32_gate=False)
    router = options.router("top_p", 4, 2, hidden_dim=9)
    assert (router.num_experts, router.hidden_dim, router.jitter, router.float32) == (4, 9, 0.1, False)
    assert options.router("task", 4, 2).weigh is None
