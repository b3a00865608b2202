"""`<at>` -> boxes."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mmunify.errors import DataError
from mmunify.heads.boxes import BoxHead
from tests.heads.worlds import make_model, output, talk

KIND = "box"


def example(folder):
    return {"features": "image"}


def example_target(rng):
    x, y, w, h = rng.uniform(0.1, 0.4, 4)
    return (x, y, x + w, y + h)


@pytest.fixture
def world(llama_folder):
    return make_model(llama_folder, {"box": {"name": "boxes"}})


def test_losses_are_l1_and_giou_in_the_frame_of_the_padded_picture(world):
    from torchvision.ops import generalized_box_iou_loss

    model, processor = world
    batch = processor([talk("a", output("box", (0.25, 0.25, 0.5, 1.0)))])
    target = batch.outputs["box"].target
    torch.testing.assert_close(target, torch.tensor([[0.25, 8 / 24, 0.5, 20 / 24]]))
    report = model.eval()(batch)
    boxes = report.outputs["box"].predictions["boxes"]
    torch.testing.assert_close(report.losses["box/l1"], 2.0 * F.l1_loss(boxes, target))
    torch.testing.assert_close(report.losses["box/giou"], 0.2 * generalized_box_iou_loss(boxes, target)[0])


def test_corners_are_in_order_whatever_the_states():
    boxes = BoxHead(8)._boxes(torch.randn(50, 1, 8) * 20)
    assert bool((boxes[:, :2] <= boxes[:, 2:]).all()) and bool(((boxes > -0.5) & (boxes < 1.5)).all())


def test_predicted_boxes_become_regions_of_the_original_picture(world):
    from mmunify.infer.decode import read_boxes

    model, _ = world
    boxes = torch.tensor([[0.25, 8 / 24, 0.5, 20 / 24], [0.1, 0.0, 0.2, 0.1]])  # the second lies in the padding
    (region,) = read_boxes(model, "box", boxes, (24, 16))
    assert region.box == pytest.approx((0.25, 0.25, 0.5, 1.0))


def test_bad_input(world):
    model, processor = world
    with pytest.raises(DataError, match="sample 'a': box .* has no area in its picture of 24 x 16"):
        processor([talk("a", output("box", (0.5, 0.5, 0.2, 0.6)))])
    with pytest.raises(DataError, match=r"is \(x0, y0, x1, y1\) in 0..1; got shape \(3,\)"):
        processor([talk("a", output("box", (0.5, 0.5, 0.2)))])
    batch = processor([talk("a", output("box", (0.1, 0.1, 0.2, 0.2)))])
    with pytest.raises(DataError, match="1 outputs of node 'box' have no boxes"):
        model(replace(batch, outputs={"box": replace(batch.outputs["box"], target=None)}))
