"""Which attention patterns the kernels' fast path may take."""

import torch

from mmunify.types import Attention


def attention(document, valid, full=False):
    document, valid = torch.tensor(document), torch.tensor(valid)
    return Attention(document=document, segment=document * 0, full=valid & full, valid=valid)


def test_right_padded_rows_are_plain():
    assert attention([[0, 0, -1], [1, 1, 1]], [[True, True, False], [True, True, True]]).is_plain


def test_packed_rows_holes_and_full_segments_are_not():
    assert not attention([[0, 0, 1]], [[True, True, True]]).is_plain
    assert not attention([[0, -1, 0]], [[True, False, True]]).is_plain
    assert not attention([[0, 0, 0]], [[True, True, True]], full=True).is_plain
