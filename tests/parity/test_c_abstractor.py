"""Our c_abstractor = timm's RegStage, torch's adaptive pooling, RegStage, with the same weights and names."""

from functools import partial

import torch
from timm.layers import LayerNorm2d
from timm.models.regnet import RegStage
from torch import nn

from mmunify.adapters.c_abstractor import CAbstractorAdapter
from mmunify.parts import Context
from mmunify.testing import randomize
from mmunify.types import Features


def test_equals_stages_of_timm():
    torch.manual_seed(0)
    stage = partial(RegStage, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)
    body = nn.Sequential(stage(2, 6, 8), nn.AdaptiveAvgPool2d((3, 3)), stage(2, 8, 8))
    readout = nn.Sequential(nn.Linear(8, 10), nn.SiLU(), nn.Linear(10, 10))
    positions = torch.randn(20, 6)
    theirs = randomize(nn.ModuleDict({"net": body, "readout": readout}))
    ours = CAbstractorAdapter(6, 10, num_queries=9, dim=8, depth=2, positions=[4, 5])
    ours.load_state_dict({**theirs.state_dict(), "positions": positions})
    tokens = torch.randn(2, 20, 6)
    picture = (tokens + positions).reshape(2, 4, 5, 6).permute(0, 3, 1, 2)
    wanted = readout(body(picture).permute(0, 2, 3, 1).reshape(2, 9, 8))
    assert wanted.std() > 0.1
    torch.testing.assert_close(ours(Features(tokens=tokens, grid=(4, 5)), Context()).tokens, wanted, atol=1e-5, rtol=0)
