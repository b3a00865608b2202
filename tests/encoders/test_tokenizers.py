import pytest
import torch

from mmunify.encoders._tokenizers import PICTURES, make_tokenizer
from mmunify.errors import DataError, UserError


@pytest.mark.parametrize(
    ("kind", "shape", "count"), [("audio", (128, 1024), 1212), ("imu", (6, 400), 391), ("fmri", (15724,), 8)]
)
def test_published_sizes(kind, shape, count):
    with torch.device("meta"):
        tokenizer = make_tokenizer(kind, 1024, {})
    assert (tokenizer.shape, tokenizer.num_tokens) == (shape, count)
    assert tokenizer.positions.shape == (count + 1, 1024)


def test_point_clouds_at_the_published_size():
    with torch.device("meta"):
        tokenizer = make_tokenizer("point", 64, {})
    assert (tokenizer.shape, tokenizer.num_tokens) == ((8192, 6), 512)


def test_class_token_in_front_and_positions_on_all():
    tokenizer = make_tokenizer("fmri", 8, {"voxels": 5, "num_tokens": 3})
    first, values = torch.randn(8), torch.randn(2, 5)
    tokens = tokenizer(values, first)
    assert tokens.shape == (2, 4, 8)
    torch.testing.assert_close(tokens[1, 0], first + tokenizer.positions[0])
    spread = tokenizer.network.spread(values).view(2, 8, 3)
    torch.testing.assert_close(tokens[0, 2], spread[0, :, 1] + tokenizer.positions[2])


def test_pictures_are_read_by_the_tower():
    assert [make_tokenizer(kind, 8, {}) for kind in PICTURES] == [None] * 4


def test_bad_kinds_arguments_and_shapes():
    with pytest.raises(UserError, match="no tokenizer named 'adio'; did you mean 'audio'"):
        make_tokenizer("adio", 8, {})
    with pytest.raises(UserError, match="the tokenizer of 'imu' refuses {'legnth': 3}"):
        make_tokenizer("imu", 8, {"legnth": 3})
    with pytest.raises(UserError, match="no tokenizer named 'image'"):
        make_tokenizer("image", 8, {"size": 3})
    with pytest.raises(DataError, match=r"items of shape \(4,\), where this encoder reads \(5,\)"):
        make_tokenizer("fmri", 8, {"voxels": 5})(torch.zeros(1, 4), torch.zeros(8))
