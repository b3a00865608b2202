"""Replies as lines, with their artifacts on disk."""

import numpy as np
from PIL import Image

from mmunify.commands.replies import reply_lines
from mmunify.types import Artifact, Region, Reply, TaskCall


def test_text_regions_artifacts_and_problems(tmp_path):
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 2:5] = True
    call = TaskCall(task="segment", instruction="the red 7")
    reply = Reply(
        text="Here it is.",
        regions=(Region(box=(0.0, 0.25, 0.5, 1.0), label="red 7"), Region(points=((0.5, 0.5),))),
        artifacts=(
            Artifact(kind="mask", data=mask, call=call, producer="region_segmentation", name="mask of the red 7"),
        ),
        problems=("unclosed <edit>",),
    )
    lines = reply_lines(reply, tmp_path / "answers")
    file = tmp_path / "answers/mask of the red 7.png"
    assert lines == [
        "Here it is.",
        "  red 7: (0.0, 0.25, 0.5, 1.0)",
        "  region: ((0.5, 0.5),)",
        f"  mask by region_segmentation: {file}",
        "  problem: unclosed <edit>",
    ]
    assert np.array_equal(np.asarray(Image.open(file)) > 0, mask)


def test_a_reply_without_words_has_no_empty_line(tmp_path):
    assert reply_lines(Reply(text="  "), tmp_path) == []
    assert list(tmp_path.iterdir()) == []
