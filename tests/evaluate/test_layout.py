"""LayoutGPT's rules on hand-made cases and on the real NSR-1K files, where they are at hand."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmunify.evaluate import layout

NSR = Path(__file__).parents[3] / "shared" / "fixtures" / "weixi-feng+LayoutGPT"
needs_nsr = pytest.mark.skipif(not NSR.is_dir(), reason=f"NSR-1K files are absent: no folder {NSR}")


def read(path):
    return json.loads((NSR / path).read_text())


def as_box(numbers):
    return tuple(float(x) for x in numbers)


@needs_nsr
def test_ground_truth_of_the_counting_half_scores_the_known_numbers():
    scored = [
        layout.score_record([label for label, _ in record["object_list"]], record)
        for record in read("dataset/NSR-1K/counting/counting.val.json")
    ]
    assert len(scored) == 762
    assert np.mean([s.precision for s in scored if s.precision is not None]) == pytest.approx(0.998187, abs=5e-7)
    assert np.mean([s.recall for s in scored if s.recall is not None]) == pytest.approx(0.998187, abs=5e-7)
    assert np.mean([s.accurate for s in scored]) == pytest.approx(0.990814, abs=5e-7)


@needs_nsr
@pytest.mark.parametrize(("convert", "right"), [(layout.xywh_to_xyxy, 264), (as_box, 226)])
def test_ground_truth_of_the_spatial_half_and_the_xywh_trap(convert, right):
    found = Counter(
        layout.score_relation(
            [(name, as_box(convert(box))) for name, box in (record["obj1"], record["obj2"])],
            record["obj1"][0],
            record["obj2"][0],
            record["relation"],
        )
        for record in read("dataset/NSR-1K/spatial/spatial.val.json")
    )
    assert found[True] == right
    assert found[None] == 19


@needs_nsr
def test_gpt4s_released_layouts_score_the_published_rate():
    records = {r["id"]: r for r in read("dataset/NSR-1K/spatial/spatial.val.json")}
    found = []
    for answer in read("llm_output/spatial/gpt4.spatial.k-similar.k_8.px_64.json"):
        record = records[int(answer["query_id"])]
        boxes = [(name, as_box(box)) for name, box in answer["object_list"] if name is not None]
        found.append(layout.score_relation(boxes, record["obj1"][0], record["obj2"][0], record["relation"]))
    assert len(found) == 1415
    assert found.count(None) == 36
    assert found.count(True) / len(found) == pytest.approx(0.9159, abs=5e-5)


def test_counts_against_the_wanted_numbers():
    score = layout.score_counts(["cat", "cat", "dog", "tree"], [("cat", 1), ("dog", 1)])
    assert (score.accurate, score.precision, score.recall) == (False, 2 / 4, 1.0)
    assert score.iou == 2 / 3
    assert layout.score_counts(["cat"], [("cat", 1)]) == layout.CountScore(True, 1.0, 1.0, 1.0)
    assert layout.score_counts(["tree"], [("cat", 1)]) == layout.CountScore(False, 0.0, 0.0, 0.0)


def test_articles_are_stripped_as_characters():
    assert layout.count_categories(["a cat", "the cat"], ["cat"]) == Counter({"cat": 2})
    # "ant" loses every letter, and the empty rest is part of any name: wrong, and what published rows contain
    assert layout.count_categories(["ant"], ["cat"]) == Counter({"cat": 1})


@pytest.mark.parametrize(
    ("labels", "truth", "right"),
    [
        (["a"] * 3 + ["b"], [("a", 3), ("b", 2)], True),
        (["a"] * 3 + ["b"] * 4, [("a", 3), ("b", 2)], False),
        (["a"] * 2 + ["b"], [("a", 3), ("b", 2)], False),
        (["a"] * 2 + ["b"] * 2, [("a", 2), ("b", 2)], True),
    ],
)
def test_comparisons_want_the_first_number_and_the_sign(labels, truth, right):
    names = {"a": "clock", "b": "vase"}
    score = layout.score_comparison([names[x] for x in labels], [(names[x], n) for x, n in truth])
    assert score == layout.CountScore(right)


@pytest.mark.parametrize(
    ("box", "name"),
    [
        ((0.8, 0.4, 1.0, 0.6), "right"),
        ((0.0, 0.4, 0.2, 0.6), "left"),
        ((0.4, 0.0, 0.6, 0.2), "top"),
        ((0.4, 0.8, 0.6, 1.0), "bottom"),
        ((0.75, 0.0, 1.0, 0.25), "diagonal"),
        ((0.375, 0.375, 0.625, 0.625), "diagonal"),
    ],
)
def test_relations_seen_from_a_box_in_the_middle(box, name):
    assert layout.relation(box, (0.375, 0.375, 0.625, 0.625)) == name


def test_next_to_takes_both_sides_and_placeholders_are_missing():
    boxes = [("dog", (0.0, 0.4, 0.2, 0.6)), ("cat", (0.5, 0.4, 0.7, 0.6))]
    assert layout.score_relation(boxes, "dog", "cat", "next to") is True
    assert layout.score_relation(boxes, "dog", "cat", "top") is False
    assert layout.score_relation([("dog", (0.0, 0.0, 0.0, 0.0)), boxes[1]], "dog", "cat", "left") is None
