"""Words: captions, scenes as text, and a vocabulary that covers everything that is ever said."""

import re

import numpy as np
import pytest

from mmunify.data.datasets.digit_text import DigitText
from mmunify.data.digit_world import words
from mmunify.data.digit_world.scene import Digit, Scene, make_scene
from mmunify.types import Text


def _digit(digit: int, color: str, box: tuple[int, int, int, int]) -> Digit:
    return Digit(digit=digit, color=color, box=box, sample=0, place=(*box[:2], 20))


SCENE = Scene(
    digits=(
        _digit(3, "orange", (40, 2, 56, 22)),
        _digit(7, "red", (4, 36, 20, 60)),
        _digit(1, "blue", (29, 30, 34, 46)),
    )
)


def test_captions_go_from_left_to_right() -> None:
    assert words.caption(SCENE) == "a red 7, a blue 1 and an orange 3"
    assert words.caption(Scene(digits=SCENE.digits[:2])) == "a red 7 and an orange 3"
    assert words.caption(Scene(digits=SCENE.digits[:1])) == "an orange 3"


def test_articles() -> None:
    assert [words.article(name) for name in ("orange 1", "red 8", "8", "1")] == [
        "an orange 1",
        "a red 8",
        "an 8",
        "a 1",
    ]


def test_cells_belong_to_the_box_that_holds_their_centre() -> None:
    owners = words.cell_owners(SCENE)
    centres = np.arange(8) * 8 + 4
    for index, digit in enumerate(SCENE.digits[:2]):
        x0, y0, x1, y1 = digit.box
        inside = ((centres >= y0) & (centres < y1))[:, None] & ((centres >= x0) & (centres < x1))
        np.testing.assert_array_equal(owners == index, inside)


def test_a_digit_between_the_centres_gets_the_cell_of_its_own_centre() -> None:
    # columns 29..34 hold no centre (28 and 36 are the nearest)
    assert np.argwhere(words.cell_owners(SCENE) == 2).tolist() == [[4, 3]]


def test_every_digit_of_a_drawn_scene_has_a_cell() -> None:
    for seed in range(300):
        scene = make_scene(np.random.default_rng(seed))
        assert set(words.cell_owners(scene).ravel()) == {-1, *range(len(scene.digits))}


def test_scene_text_tells_every_place_of_every_digit_beside_its_name() -> None:
    told = words.scene_text(SCENE)
    facts = re.findall(r"([a-z]+ \d) ([a-z]+)(\d+)", told)
    assert told.startswith("scene: ") and len(facts) == 6 * len(SCENE.digits)
    red = {name: int(place) for owner, name, place in facts if owner == "red 7"}
    assert red == {"left": 4, "top": 36, "right": 20, "bottom": 60, "x": 12, "y": 48}


def test_scene_text_mixes_the_facts_and_stays_the_same_for_a_scene() -> None:
    told = words.scene_text(SCENE)
    owners = re.findall(r"[a-z]+ \d(?= )", told)
    assert told == words.scene_text(SCENE)
    assert owners != sorted(owners, key=owners.index)
    order = re.findall(r"(left|top|right|bottom|x|y)\d", told)
    assert order[:6] != order[6:12]


def test_users_vary_phrase_and_case() -> None:
    rng = np.random.default_rng(0)
    said = {words.ask(rng, ("Find {what}.", "Where is {what}?"), what="the 7") for _ in range(200)}
    assert said == {"Find the 7.", "find the 7", "Where is the 7?", "where is the 7"}


def test_the_vocabulary_covers_everything_that_is_said() -> None:
    known = set(words.vocabulary())
    samples = [*(DigitText(seed=1)[index] for index in range(400)), *(DigitText("test")[index] for index in range(200))]
    said = [part.text for sample in samples for turn in sample.turns for part in turn.parts if isinstance(part, Text)]
    used = {word for text in said for word in words.WORD.findall(re.sub(r"</?\w+>", " ", text))}
    assert used - known == set()


@pytest.mark.parametrize("word", ["left12", "y64", "scene:", ".", "[", "36", "0", "0.016", "0.312", "1.000", "Remove"])
def test_the_vocabulary_holds(word: str) -> None:
    assert word in words.vocabulary()


def test_the_vocabulary_is_small_and_sorted() -> None:
    entries = words.vocabulary()
    assert entries == sorted(set(entries))
    assert len([entry for entry in entries if re.fullmatch(r"\d\.\d{3}", entry)]) == 65
    assert len([entry for entry in entries if re.fullmatch(r"[a-z]+\d+", entry)]) == 6 * 65
    assert len(entries) < 650
