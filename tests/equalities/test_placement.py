"""Placing embeddings costs the same number of operations whatever the batch: no loop over tokens, items or samples."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmunify.composer import compose
from tests.conftest import TINY_CLIP
from tests.parity.composed import make_batch, rows_with_pictures

TEXT = {"model_type": "llama", "vocab_size": 48, "hidden_size": 32, "intermediate_size": 48}
SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2}
IMAGE = 47


class Operations(TorchDispatchMode):
    """Counts what is run."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def model():
    return compose(
        encoders={"image": {"name": "clip", "config": TINY_CLIP}},
        adapters={"image": {"name": "mlp"}},
        backbone={"name": "huggingface", "config": TEXT | SMALL},
        heads={"text": {"name": "text"}},
    ).eval()


def operations(model, images_per_row):
    rows, labels = rows_with_pictures(images_per_row, IMAGE, 16, vocabulary=40)
    batch = make_batch(rows, labels, IMAGE, torch.randn(sum(images_per_row), 1, 3, 32, 32))
    with torch.no_grad(), Operations() as counted:
        model.embed(batch, model.encode(batch))
    return counted.counts


def test_operations_do_not_grow_with_the_batch(model):
    few = operations(model, [2])
    assert few["aten.masked_scatter.default"] == 1
    for images_per_row in ([3], [1, 1], [2, 0, 1, 5], [1] * 20):
        assert operations(model, images_per_row) == few
