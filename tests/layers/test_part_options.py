import pytest
from torch import nn

from mmunify.errors import RecipeError
from mmunify.layers.part_options import SamplingOptions, TrainingOptions, read_options, strengths


def test_given_values_and_defaults():
    options = read_options(TrainingOptions, {"drop": 0.2, "null": "learned"}, "sdxl.training")
    assert (options.drop, options.null, options.min_snr) == (0.2, "learned", None)
    assert strengths(SamplingOptions(guidance=3.0)) == {"condition": 3.0, "source": 1.5}


def test_what_a_recipe_leaves_out_comes_from_the_part():
    layer = read_options(nn.Linear, {"bias": False}, "x.y", in_features=3, out_features=2)
    assert layer.weight.shape == (2, 3) and layer.bias is None


def test_all_faults_are_named_together():
    with pytest.raises(RecipeError) as caught:
        read_options(TrainingOptions, {"dropp": 0.1, "null": "grey", "min_snr": "five"}, "sdxl.training")
    message = str(caught.value)
    assert "sdxl.training.dropp: TrainingOptions takes no dropp; did you mean drop?" in message
    assert "sdxl.training.null: TrainingOptions wants one of 'zeros', 'learned', 'given', got 'grey'" in message
    assert "sdxl.training.min_snr: TrainingOptions wants float or null, got 'five'" in message
