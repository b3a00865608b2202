"""Referents: words that point at one digit point at no other, checked by other code."""

from collections import Counter

import numpy as np

from mmunify.data.digit_world import phrases, referents
from mmunify.data.digit_world.conversations import draw_clear_scene
from mmunify.data.digit_world.scene import Digit, Scene, make_scene


def _meant(scene: Scene, words: str) -> list[int]:
    """Indices of all digits that the words could mean."""
    digits = scene.digits
    x = [(d.box[0] + d.box[2]) / 2 for d in digits]
    y = [(d.box[1] + d.box[3]) / 2 for d in digits]
    total = sum(d.digit for d in digits)
    tests = {
        "the largest digit": lambda i: digits[i].digit == max(d.digit for d in digits),
        "the smallest digit": lambda i: digits[i].digit == min(d.digit for d in digits),
        "the leftmost digit": lambda i: x[i] < min(x) + 4,
        "the rightmost digit": lambda i: x[i] > max(x) - 4,
        "the top digit": lambda i: y[i] < min(y) + 4,
        "the bottom digit": lambda i: y[i] > max(y) - 4,
        phrases.SUM_OF_OTHERS: lambda i: len(digits) == 3 and digits[i].digit == total - digits[i].digit,
    }

    def by_name(i: int) -> bool:
        named = words.removeprefix("the ").removesuffix(" digit")
        return named in (f"{digits[i].color} {digits[i].digit}", digits[i].color, str(digits[i].digit))

    return [i for i in range(len(digits)) if tests.get(words, by_name)(i)]


def test_words_mean_exactly_one_digit() -> None:
    rng = np.random.default_rng(0)
    kinds: Counter[str] = Counter()
    for _ in range(1500):
        scene = draw_clear_scene(rng, "train", (1, 2, 3, 4))
        index, words, kind = referents.make_referent(scene, rng)
        assert _meant(scene, words) == [index], words
        kinds[kind] += 1
    assert set(kinds) == {"name", "digit", "color", "largest", "smallest", *phrases.SIDES, "sum"}
    assert kinds["sum"] > 10


def test_all_referents_of_a_scene_are_right() -> None:
    for seed in range(200):
        scene = make_scene(np.random.default_rng(seed))
        for index, words, _ in [*referents.named_referents(scene), *referents.reasoned_referents(scene)]:
            assert _meant(scene, words) == [index]


def _scene(*values: int) -> Scene:
    return Scene(digits=tuple(Digit(digit=v, color="red", box=(0, 0, 9, 9), sample=0, place=(0, 0, 9)) for v in values))


def test_the_sum_of_the_others_is_one_digit_or_none() -> None:
    assert referents.sum_of_others(_scene(2, 7, 5)) == 1
    assert referents.sum_of_others(_scene(4, 0, 4)) is None  # both fours are the sum of the other two
    assert referents.sum_of_others(_scene(0, 0, 0)) is None
    assert referents.sum_of_others(_scene(2, 7, 6)) is None
    assert referents.sum_of_others(_scene(3, 3)) is None


def test_ties_are_not_the_largest() -> None:
    kinds = {kind for _, _, kind in referents.reasoned_referents(_scene(5, 5, 1))}
    assert kinds == {"smallest"}
