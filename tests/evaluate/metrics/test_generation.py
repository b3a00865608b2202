"""Pictures from words."""

from dataclasses import replace

import numpy as np

from mmunify.evaluate.metrics.generation import GenerationProtocol
from mmunify.evaluate.protocol import Tools
from tests.evaluate.worlds import answers, run


def score(experts=run, speak=lambda text: text):
    return GenerationProtocol()(answers("generate_image", speak), Tools(run=experts))


def test_true_pictures_can_be_read():
    measures = score()
    assert measures["read_back"].value > 0.8
    assert measures["read_back_digits"].value > 0.9
    assert measures["placed"].value > 0.8
    assert measures["placed_single"].value > 0.8 and 0 < measures["placed_single"].n < measures["placed"].n


def test_an_empty_picture_shows_nothing():
    def empty(answer):
        return [replace(artifact, data=np.full((64, 64, 3), 120, np.uint8)) for artifact in run(answer)]

    assert score(empty)["read_back_digits"].value == 0.0


def test_no_picture_is_wrong():
    assert score(speak=lambda _: "Here you are.")["read_back"].value == 0.0
