import pytest
import torch

from mmunify.encoders._pictures import single_frame
from mmunify.errors import DataError


def test_drops_the_frame_axis():
    values = torch.randn(3, 1, 3, 4, 5)
    assert torch.equal(single_frame(values, "clip"), values[:, 0])


def test_clips_are_refused_with_the_way_out():
    with pytest.raises(
        DataError, match=r"clips of 4 frames; wrap it: \{name: frames, encoder: \{name: clip, \.\.\.\}\}"
    ):
        single_frame(torch.zeros(1, 4, 3, 2, 2), "clip")
