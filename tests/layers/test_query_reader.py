import torch

from mmunify.adapters.qformer import QFormerAdapter
from mmunify.layers.query_reader import QueryReader
from mmunify.parts import Context
from mmunify.types import Features


def test_it_is_a_qformer_without_words():
    torch.manual_seed(0)
    reader = QueryReader(6, 10, num_queries=5, dim=16, depth=3, num_heads=2)
    theirs = QFormerAdapter(6, 10, num_queries=5, dim=16, depth=3, num_heads=2)
    theirs.load_state_dict(reader.state_dict())
    states, mask = torch.randn(2, 7, 6), torch.rand(2, 7) > 0.4
    mask[:, 0] = True
    wanted = theirs(Features(tokens=states, mask=mask), Context()).tokens
    torch.testing.assert_close(reader(states, mask), wanted)


def test_sizes_of_smart_edit():
    """Six blocks of 768, three of which read the language model; 77 x 768 go to the U-Net as they are."""
    with torch.device("meta"):
        reader = QueryReader(4096, 768)
    assert sum(block.cross is not None for block in reader.blocks) == 3
    assert reader(torch.empty(2, 32, 4096, device="meta")).shape == (2, 77, 768)
    assert isinstance(reader.project, torch.nn.Identity)
