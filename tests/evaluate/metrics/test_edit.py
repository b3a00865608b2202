"""Edited pictures."""

from dataclasses import replace

import numpy as np
import pytest

from mmunify.evaluate.metrics.edit import EditProtocol, touched
from mmunify.evaluate.protocol import Tools, source_picture
from mmunify.types import Artifact
from tests.evaluate.worlds import answers, run


def score(tasks, paint=None, speak=lambda text: text):
    """Measures with `paint(answer) -> picture` in place of the experts."""

    def experts(answer):
        (artifact,) = run(answer)
        return [replace(artifact, data=paint(answer))]

    said = [answer for task in tasks for answer in answers(task, speak)]
    return EditProtocol()(said, Tools(run=experts if paint else run))


@pytest.mark.parametrize("task", ["edit", "remove", "recolor", "replace"])
def test_true_edits_succeed_and_unedited_pictures_do_not(task):
    assert score([task])[f"success_{task}"].value >= 0.9
    # not zero: the reader now and then takes the old digit for the new one
    assert score([task], source_picture)["success"].value <= 0.1


def test_the_background_of_true_edits_is_untouched():
    measures = score(["remove", "recolor", "replace"])
    assert measures["background_psnr"].value == 100.0
    assert measures["background_psnr_smartedit"].value > 30


def test_noise_everywhere_is_seen_in_the_background():
    def noisy(answer):
        return (answer.facts["target"].astype(int) + 4).clip(0, 255).astype(np.uint8)

    measures = score(["recolor"], noisy)
    assert measures["success"].value >= 0.9
    assert measures["background_psnr"].value == pytest.approx(-20 * np.log10(4 / 255), abs=0.3)


def test_no_picture_is_no_edit_and_no_decibel():
    measures = score(["remove"], speak=lambda _: "")
    assert measures["success"].value == 0.0
    assert measures["background_psnr"].value == 0.0


def test_global_edits_have_no_background():
    assert set(score(["edit"])) == {"success", "success_edit", "background_psnr", "background_psnr_smartedit"}
    assert score(["edit"])["background_psnr"].n == 0


def test_the_wrong_global_edit_is_told_apart():
    assert score(["edit"], lambda answer: 255 - answer.facts["target"])["success"].value < 0.2


def test_results_of_another_size_are_fitted():
    large = score(["remove"], lambda answer: answer.facts["target"].repeat(2, axis=0).repeat(2, axis=1))
    assert large["success"].value >= 0.9


def test_what_an_edit_may_touch_holds_its_box_and_its_change():
    for answer in answers("replace", number=6):
        changed = (source_picture(answer) != answer.facts["target"]).any(axis=-1)
        mask = touched(answer)
        assert mask[changed].all()
        x0, y0, x1, y1 = (round(edge * 64) for edge in answer.facts["box"])
        assert mask[y0:y1, x0:x1].all()
        assert mask.mean() < 0.5


def test_the_last_picture_counts():
    answer = answers("remove", number=1)[0]
    source = Artifact(kind="image", data=source_picture(answer), call=answer.truth.calls[0], producer="test")
    measures = EditProtocol()([answer], Tools(run=lambda a: [*run(a), source]))
    assert measures["success"].value == 0.0
