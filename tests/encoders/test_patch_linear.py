import pytest
import torch

from mmunify.encoders.patch_linear import PatchLinearEncoder
from mmunify.errors import DataError, UserError
from mmunify.layers.positions import sincos_2d
from mmunify.parts import Context
from mmunify.testing import check_encoder


def example(folder):
    return {"patch_size": 8, "size": [16, 24], "dim": 16, "norm": True, "positions": "learned"}


def test_pixels_row_by_row_channels_last():
    encoder = PatchLinearEncoder(patch_size=2, size=[4, 6])
    values = torch.randn(1, 1, 3, 4, 6)
    features = encoder(values, Context())
    assert (encoder.out_dim, list(encoder.parameters())) == (12, [])
    assert features.tokens.shape == (1, 6, 12)
    wanted = values[0, 0, :, 2:4, 4:6].permute(1, 2, 0).flatten()
    assert torch.equal(features.tokens[0, 5], wanted)
    assert features.grid == (2, 3)


def test_fuyus_numbers():
    encoder = PatchLinearEncoder()
    assert encoder.out_dim == 2700
    assert encoder.preprocess.cells(None) == (36, 64)
    assert (encoder.preprocess.mean, encoder.preprocess.std) == ((0.5,) * 3, (0.5,) * 3)
    assert encoder.layout((300, 200)).num_slots == 7 * 10
    assert [run.token for run in encoder.layout((300, 200)).runs[1::2]] == ["|NEWLINE|"] * 7


def test_smaller_items_are_masked():
    encoder = PatchLinearEncoder(patch_size=2, size=[8, 8], newline="")
    values = torch.randn(2, 1, 3, 4, 6)
    features = encoder(values, Context(extent=torch.tensor([[6, 4], [3, 1]])))
    assert features.grid is None
    assert features.mask.sum(dim=1).tolist() == [6, 2] == [encoder.layout(e).num_slots for e in ((6, 4), (3, 1))]
    assert features.mask[1].view(2, 3).tolist() == [[True, True, False], [False, False, False]]
    full = encoder(values, Context(extent=torch.tensor([[6, 4], [5, 3]])))
    assert full.mask is None and full.grid == (2, 3)


def test_sine_cosine_positions_are_those_of_a_raster():
    torch.manual_seed(0)
    plain = PatchLinearEncoder(patch_size=2, size=[4, 6], dim=8)
    placed = PatchLinearEncoder(patch_size=2, size=[4, 6], dim=8, positions="sincos")
    placed.load_state_dict(plain.state_dict())
    values = torch.randn(1, 1, 3, 4, 6)
    added = placed(values, Context()).tokens - plain(values, Context()).tokens
    torch.testing.assert_close(added[0], sincos_2d((2, 3), 8), atol=1e-5, rtol=0)


def test_learned_positions_are_a_row_plus_a_column():
    encoder = PatchLinearEncoder(patch_size=2, size=[4, 6], dim=8, positions="learned")
    check_encoder(encoder)
    rows, columns = encoder.tables
    added = encoder._positions(2, 3, rows)
    torch.testing.assert_close(added[4], rows[1] + columns[1])


def test_attention_is_for_the_data_side():
    assert PatchLinearEncoder(attention="full").preprocess.attention == "full"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": True}, "needs a linear of its own: give dim"),
        ({"positions": "sincos"}, "needs a linear of its own: give dim"),
        ({"size": [16]}, r"size of patch_linear is \[height, width\], each at least a patch of 30; got \[16\]"),
        ({"size": [20, 60]}, "each at least a patch of 30"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        PatchLinearEncoder(**arguments)


def test_pictures_of_another_preprocessing():
    encoder = PatchLinearEncoder(patch_size=2, size=[8, 8])
    with pytest.raises(DataError, match=r"pictures of 1 x 1 patches, where their sizes ask for \[\[2, 3\]\]"):
        encoder(torch.zeros(1, 1, 3, 2, 2), Context(extent=torch.tensor([[6, 4]])))
