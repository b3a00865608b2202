"""Attention inside documents = a mask over the whole row; nothing leaks from one document to the next."""

import pytest
import torch
from torch import Tensor

from mmunify.backbones._documents import KERNEL, attend, find_documents
from mmunify.backbones.huggingface import HuggingFaceBackbone
from mmunify.types import Attention

DOCUMENT = torch.tensor([[0] * 5 + [1] * 3 + [2] * 3 + [-1], [3] * 9 + [-1] * 3])
SEGMENT = torch.tensor([[0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0], [0] * 12])


def attention(document: Tensor = DOCUMENT, full: bool = False) -> Attention:
    segment = SEGMENT if full else torch.zeros_like(document)
    return Attention(document=document, segment=segment, full=segment > 0, valid=document >= 0)


def restart(document: Tensor) -> Tensor:
    """Positions that start anew in every document."""
    place = torch.arange(document.shape[1]).expand_as(document)
    new = torch.ones_like(document, dtype=torch.bool)
    new[:, 1:] = document[:, 1:] != document[:, :-1]
    return place - place.where(new, torch.zeros_like(place)).cummax(1).values


def test_pieces_of_packed_rows():
    found = find_documents(attention())
    assert found is not None and found.lengths == [5, 3, 3, 1, 9, 3]
    assert found.real == [True, True, True, False, True, False] and found.masks == [None] * 6
    masks = find_documents(attention(full=True)).masks
    assert [mask is not None for mask in masks] == [True, False, True, False, False, False]
    assert masks[2].tolist() == [[True, False, False], [True, True, True], [True, True, True]]


def test_rows_of_one_document_and_scattered_ones_need_no_pieces():
    assert find_documents(attention(torch.tensor([[0, 0, 0], [1, 1, -1]]))) is None
    assert find_documents(attention(torch.tensor([[0, 0, -1, 0, 1]]))) is None


@pytest.fixture
def backbone(llama_folder):
    return HuggingFaceBackbone(path=str(llama_folder)).double()


@pytest.mark.parametrize("full", [False, True])
def test_it_is_the_mask_over_the_whole_row(backbone, full):
    dense = HuggingFaceBackbone(path=backbone.external).double()
    dense._by_document = False
    given, kept = attention(full=full), DOCUMENT >= 0
    torch.manual_seed(0)
    states = torch.randn(2, 12, backbone.dim, dtype=torch.float64, requires_grad=True)
    results = []
    for model in (backbone, dense):
        last = model(states, given, restart(DOCUMENT)).last[kept]
        (gradient,) = torch.autograd.grad(last.square().sum(), states)
        results.append((last.detach(), gradient[kept]))
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-9 * float(wanted.abs().max()))


def test_nothing_leaks(backbone):
    states = torch.randn(2, 12, backbone.dim, dtype=torch.float64)
    before = backbone(states, attention(), restart(DOCUMENT)).last
    other = states.clone()
    other[0, 5:8] = 7.0
    after = backbone(other, attention(), restart(DOCUMENT)).last
    same = (before == after).all(-1)
    assert same[0, :5].all() and same[0, 8:11].all() and same[1, :9].all() and not same[0, 5:8].any()


def test_the_kernel_is_sdpa_where_rows_hold_one_document(backbone):
    assert backbone.lm.config._attn_implementation == KERNEL
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 6, 8)
    layer = torch.nn.Module()
    ours, _ = attend(layer, query, key, value, None)
    wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(ours, wanted.transpose(1, 2))


def test_slots_that_share_a_position_split_no_document(backbone):
    """transformers takes positions that don't count up for another document, where it is left to guess."""
    document = torch.zeros(1, 6, dtype=torch.long)
    shared = torch.tensor([[0, 1, 1, 1, 2, 3]])
    states = torch.randn(1, 6, backbone.dim, dtype=torch.float64)
    plain = HuggingFaceBackbone(path=backbone.external, kernel="eager").double()
    wanted = _by_hand(plain, states, shared)
    for model in (backbone, plain):
        torch.testing.assert_close(model(states, attention(document), shared).last, wanted, rtol=0, atol=1e-5)


def _by_hand(model: HuggingFaceBackbone, states: Tensor, position_ids: Tensor) -> Tensor:
    mask = torch.full((6, 6), torch.finfo(torch.float64).min, dtype=torch.float64).triu(1)[None, None]
    return model.lm.base_model(inputs_embeds=states, attention_mask=mask, position_ids=position_ids).last_hidden_state


def test_a_model_that_keeps_arguments_from_its_layers_gets_a_mask(backbone, monkeypatch):
    model, inner = HuggingFaceBackbone(path=backbone.external).double(), backbone.lm.model
    states = torch.randn(2, 12, backbone.dim, dtype=torch.float64)
    wanted = backbone(states, attention(), restart(DOCUMENT)).last
    original = type(inner).forward

    def forward(self, *args, documents=None, **options):
        return original(self, *args, **options)

    monkeypatch.setattr(type(inner), "forward", forward)
    ours = model(states, attention(), restart(DOCUMENT)).last
    torch.testing.assert_close(ours[DOCUMENT >= 0], wanted[DOCUMENT >= 0])
    assert model.lm.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mistral", "sliding_window": 4},
        {"model_type": "qwen3_next", "num_hidden_layers": 4},
    ],
    ids=["sliding", "recurrent"],
)
def test_models_that_ignore_masks_take_no_packed_rows(config):
    small = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    with torch.device("meta"):
        model = HuggingFaceBackbone(config={**small, "num_hidden_layers": 1, **config})
    assert model.supports == {"cache"}
