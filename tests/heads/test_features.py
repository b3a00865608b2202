"""Targets pooled and compared, and connectors that make what is compared with them."""

import pytest
import torch

from mmunify.errors import DataError, RecipeError, UserError
from mmunify.heads._features import (
    build_connector,
    connect,
    distance,
    made_width,
    num_made,
    pool_tokens,
    require_distance,
    supervised_tokens,
    wanted_tokens,
)
from mmunify.types import Features, OutputBatch


def test_pooling_averages_neighbours():
    tokens = torch.arange(16.0).reshape(1, 16, 1)
    pooled = pool_tokens(Features(tokens=tokens, grid=(4, 4)), 4)
    assert pooled[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]
    with pytest.raises(UserError, match=r"5 queries can't be matched with 16 target tokens"):
        pool_tokens(Features(tokens=tokens, grid=(4, 4)), 5)


def test_neighbours_in_raster_order_are_averaged_as_in_seedx():
    """256 tokens of a 16 x 16 raster -> 64: means of four cells of a row."""
    tokens = torch.randn(2, 256, 3)
    pooled = pool_tokens(Features(tokens=tokens, grid=(16, 16)), 64, "1d")
    wanted = torch.nn.functional.avg_pool1d(tokens.transpose(1, 2), 4, 4).transpose(1, 2)
    torch.testing.assert_close(pooled, wanted)
    torch.testing.assert_close(pooled.reshape(2, 16, 4, 3)[:, 3, 2], tokens.reshape(2, 16, 16, 3)[:, 3, 8:12].mean(1))
    with pytest.raises(UserError, match="choose num_queries=256 or a divisor of it"):
        pool_tokens(Features(tokens=tokens), 7, "1d")


def test_items_count_alike_whatever_their_number_of_tokens():
    predicted, wanted = torch.zeros(2, 5, 3), torch.ones(2, 5, 3)
    assert float(distance("mse", predicted, wanted)) == pytest.approx(2)
    assert float(distance("euclidean", predicted, wanted)) == pytest.approx(2 * 3**0.5)
    assert float(distance("mse", predicted[:, :1], wanted[:, :1])) == pytest.approx(2)
    assert float(distance("mse", predicted[:0], wanted[:0])) == 0
    with pytest.raises(UserError, match="loss of a masks head: no distance named 'cosin'; did you mean 'cosine'"):
        require_distance("cosin", "masks")


def test_targets_are_pooled_to_what_was_predicted():
    target = Features(tokens=torch.arange(16.0).reshape(1, 16, 1), grid=(4, 4))
    pooled = wanted_tokens({"target": target}, torch.zeros(1, 4, 1), "image")
    torch.testing.assert_close(pooled, pool_tokens(target, 4))
    nothing = torch.zeros(0, 4, 1)
    assert wanted_tokens({}, nothing, "image") is nothing
    with pytest.raises(DataError, match="2 output items of node 'image' have no target picture"):
        wanted_tokens({}, torch.zeros(2, 4, 1), "image")


def test_a_tower_is_supervised_where_outputs_belong_to_it():
    features = {"video": Features(tokens=torch.arange(6.0).reshape(3, 2, 1))}
    pairs = (("video", 2), None, ("image", 0), ("video", 0))
    outputs = OutputBatch(slots=None, document=torch.zeros(4, dtype=torch.long), target=None, condition=pairs)
    assert supervised_tokens(features, outputs, "video", "token_labels")[:, :, 0].tolist() == [[4, 5], [0, 1]]
    assert supervised_tokens(features, None, "video", "token_labels") is features["video"].tokens
    with pytest.raises(DataError, match=r"token_labels reads encoder node 'audio'; the batch has \['video'\]"):
        supervised_tokens(features, None, "audio", "token_labels")


@pytest.mark.parametrize(
    ("node", "made"),
    [
        (None, 9),
        ({"name": "mlp"}, 9),
        ({"name": "resampler", "num_queries": 4}, 4),
        ({"name": "series", "parts": [{"name": "mlp", "out_dim": 6}, {"name": "additive", "grid": 2}]}, 4),
        ({"name": "over_source", "adapter": {"name": "additive", "grid": 2}}, 4),
    ],
)
def test_a_connector_makes_as_many_features_as_it_says(node, made):
    connector = build_connector(node, 6, 8, target="image")
    assert num_made(connector, 9) == made
    assert connect(connector, torch.randn(2, 9, 6)).shape == (2, made, 8)
    nobody = connect(connector, torch.randn(2, 9, 6), torch.zeros(2, 9, dtype=torch.bool))
    assert made != 9 or not nobody.any()


def test_widths_of_connectors():
    assert made_width(None, 8, 8, "queries") == made_width({"name": "mlp", "out_dim": 8}, None, None, "queries") == 8
    with pytest.raises(UserError, match="width that a queries head predicts is not known: name a target"):
        made_width({"name": "mlp"}, None, None, "queries")
    with pytest.raises(UserError, match="makes features of width 4, and its loss compares them with .* width 8"):
        made_width({"name": "mlp", "out_dim": 4}, 8, 8, "queries")


def test_faults_of_a_connector():
    with pytest.raises(RecipeError, match="connector.num_querys"):
        build_connector({"name": "resampler", "num_querys": 4}, 6, 8)
    over = {"name": "over_source", "adapter": {"name": "mlp"}}
    with pytest.raises(UserError, match="'over_source' reads the features of the picture that an edit starts from"):
        build_connector(over, 6, 8)
