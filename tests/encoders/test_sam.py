"""SAM's vision encoder as the grounding encoder."""

import pytest
import torch

from mmunify.encoders.sam import SAMEncoder
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import randomize, tiny_llama_folder
from tests.layers.test_sam import TINY_SAM, sam_folder


def example(folder):
    return {"config": TINY_SAM}


def test_it_is_the_vision_encoder_of_the_folder(tmp_path):
    model = sam_folder(tmp_path)
    encoder = SAMEncoder(path=str(tmp_path)).eval()
    pixels = torch.randn(2, 3, 32, 32)
    wanted = model.vision_encoder(pixels).last_hidden_state
    made = encoder(pixels[:, None], Context())
    assert made.grid == (4, 4) and made.tokens.shape == (2, 16, 16)
    torch.testing.assert_close(made.tokens.transpose(1, 2).unflatten(2, (4, 4)), wanted)
    assert float(made.tokens.detach().std()) > 1e-3


def test_sizes_are_those_of_the_config():
    encoder = randomize(SAMEncoder(config=TINY_SAM))
    assert encoder.out_dim == 16 and encoder.preprocess.size == (32, 32)
    assert encoder.layout((640, 480)).runs[0].grid == (4, 4)


def test_bad_input(tmp_path):
    with pytest.raises(UserError, match="SAM needs path: .* or config: .*; got neither"):
        SAMEncoder()
    with pytest.raises(UserError, match="holds a model of type 'llama', not 'sam'"):
        SAMEncoder(path=str(tiny_llama_folder(tmp_path)))
    with pytest.raises(DataError, match="takes still pictures and got clips of 2 frames"):
        SAMEncoder(config=TINY_SAM)(torch.zeros(1, 2, 3, 32, 32), Context())
