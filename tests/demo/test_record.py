"""Sheet and report of a made-up demo."""

import json

import numpy as np
import pytest
from PIL import Image

from mmunify.data.digit_world.scene import digit_mask, draw_scene
from mmunify.demo.dialogue import Exchange, make_scene
from mmunify.demo.record import Record, make_panels, make_report, write_record
from mmunify.evaluate.statistics import rate
from mmunify.recipe import Recipe
from mmunify.types import Artifact, Region, Reply, TaskCall

SCENE = make_scene()
CALL = TaskCall(task="segment", instruction="the red 7")


def exchange(title, reply, files=()):
    return Exchange(title=title, prompt=f"Ask {title}", reply=reply, verdict=f"judged {title}", files=files)


@pytest.fixture
def record(tmp_path):
    mask = Artifact(kind="mask", data=digit_mask(SCENE, 0), call=CALL, producer="t", name="mask")
    exchanges = [
        exchange("box", Reply(text="it", raw="<box>it[0,0,1,1]</box>", regions=(Region(box=(0.0, 0.0, 1.0, 1.0)),))),
        exchange("mask", Reply(text="", raw="<segment>it", calls=(CALL,), artifacts=(mask,)), (tmp_path / "mask.png",)),
        exchange("removal", Reply(text="", raw="", calls=(CALL,), problems=("no_expert: none",))),
    ]
    return Record(
        recipe=Recipe.from_dict({"stages": [{"name": "adapt", "steps": 12}]}, name="demo"),
        before={"parse": {"rate": rate([False] * 4)}},
        after={"parse": {"rate": rate([True] * 4), "rate_blank": rate([True, False])}},
        scene=SCENE,
        exchanges=exchanges,
        seconds={"train": 61.4},
    )


def test_panels_show_the_scene_and_what_every_turn_made(record):
    panels = make_panels(record)
    assert [panel.title for panel in panels] == ["test scene", "1. box", "2. mask", "3. removal"]
    assert np.array_equal(panels[0].picture, draw_scene(SCENE))
    assert panels[1].picture.shape == (256, 256, 3)
    assert not np.array_equal(panels[2].picture, panels[0].picture)
    assert panels[3].picture is None
    assert panels[2].lines[:3] == ("> Ask mask", "<segment>it", "[judged mask]")
    assert panels[3].lines[1] == "(nothing)"


def test_the_report_holds_metrics_before_and_after_the_dialogue_and_the_files(record, tmp_path):
    text = make_report(record, tmp_path)
    assert "| parse | rate | 4 | 0.000 [0.00, 0.49] | 1.000 [0.51, 1.00] | 0.500 |" in text
    assert "adapt 12 steps" in text
    assert "**Ask removal**" in text and "- problem: no_expert: none" in text
    assert "- made: `mask.png`" in text
    assert "- train: 61 s" in text


def test_everything_is_written(record, tmp_path):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "mask.png").write_bytes(b"x")
    write_record(record, tmp_path)
    assert Image.open(tmp_path / "sheet.png").size[0] > 3 * 256
    assert json.loads((tmp_path / "after.json").read_text())["parse"]["rate_blank"]["n"] == 2
    assert json.loads((tmp_path / "before.json").read_text())["parse"]["rate"]["value"] == 0.0
    report = (tmp_path / "report.md").read_text()
    for name in ("sheet.png", "artifacts/mask.png", "before.json", "after.json", "report.md"):
        assert f"- `{name}`" in report
