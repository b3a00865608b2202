"""Batches by hand, and the logits of a composition, for comparisons with whole models of transformers."""

import torch

from mmunify.types import Attention, Batch, MediaBatch


def make_batch(rows, labels, image_id, values, extents=None) -> Batch:
    """Rows of ids of any length; `image_id` stands where an image's embeddings go."""
    length = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    learned = torch.tensor([[*row, *[-100] * (length - len(row))] for row in labels])
    valid = torch.arange(length) < torch.tensor([[len(row)] for row in rows])
    documents = torch.arange(len(rows))[:, None].expand_as(ids)
    zeros = torch.zeros_like(ids)
    slots = (ids == image_id) & valid
    media = MediaBatch(
        values=values,
        slots=slots,
        document=torch.zeros(len(values), dtype=torch.long),
        extent=torch.ones(len(values), 2, dtype=torch.long) if extents is None else extents,
    )
    return Batch(
        input_ids=ids,
        labels=learned,
        position_ids=torch.arange(length).expand_as(ids).where(valid, zeros),
        attention=Attention(document=documents.where(valid, -1), segment=zeros, full=zeros.bool(), valid=valid),
        task=torch.zeros(len(rows), dtype=torch.long),
        media={"image": media},
        keys=tuple(range(len(rows))),
    )


def logits(model, batch) -> torch.Tensor:
    """[B T V] of all positions, which the library itself never computes."""
    states = model.backbone(model.embed(batch, model.encode(batch)), batch.attention, batch.position_ids).last
    return model.backbone.unembed(states.flatten(0, 1)).view(*states.shape[:2], -1)


def rows_with_pictures(images_per_row, image_id, places, vocabulary, seed=0):
    """Random rows of words with `places` positions per picture, and labels at the words behind the last one."""
    generator = torch.Generator().manual_seed(seed)
    rows, labels = [], []
    for index, count in enumerate(images_per_row):
        row: list[int] = []
        for _ in range(count):
            row += [*_words(3 + index, vocabulary, generator), *[image_id] * places]
        answer = _words(5 + 2 * index, vocabulary, generator)
        rows.append([*row, *answer])
        labels.append([*[-100] * len(row), *answer])
    return rows, labels


def _words(count, vocabulary, generator):
    return torch.randint(3, vocabulary, (count,), generator=generator).tolist()
