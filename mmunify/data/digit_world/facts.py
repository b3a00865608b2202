"""Ground truth of an exchange, for evaluation: what the answer, the call, the mask and the picture should be."""

from typing import Any

from mmunify.data.digit_world.edits import edit_picture
from mmunify.data.digit_world.scene import Digit, Scene, digit_mask, draw_scene
from mmunify.data.digit_world.tasks import Exchange
from mmunify.data.digit_world.words import name_of


def list_objects(scene: Scene) -> list[dict[str, Any]]:
    """The digits of a scene as plain data: name, digit, color, box (0..1)."""
    return [_object(digit.digit, digit.color, digit.norm_box(scene.size), name_of(digit)) for digit in scene.digits]


def _object(digit: int, color: str, box: Any, name: str) -> dict[str, Any]:
    return {"name": name, "digit": digit, "color": color, "box": box}


def collect_facts(exchange: Exchange, pictures: bool = True) -> dict[str, Any]:
    """Facts of one exchange; only those that it has are there.

    Args:
        exchange: what was asked and answered.
        pictures: whether to draw mask and target.

    Returns:
        answer: the short answer, the caption or the box as text.
        kind: kind of question, of referent or of prompt.
        call: the expected TaskCall.
        scene, objects: what the user looks at, as `Scene` and as plain data (see `list_objects`).
        subject, box: index and box (0..1) of the digit that the exchange is about.
        mask: Bool[H W] of that digit.
        target: uint8 [H W 3], the edited picture or the one that was asked for.
        plan: the objects that were asked for, with the boxes of their places (see `list_objects`).
        relations: (first name, relation, second name) that were asked for.
    """
    facts: dict[str, Any] = {"kind": exchange.kind or None, "answer": exchange.answer or None}
    facts |= {"call": exchange.call, "scene": exchange.scene, "target": target_picture(exchange) if pictures else None}
    facts |= _subject_facts(exchange, pictures) | _plan_facts(exchange)
    return {name: fact for name, fact in facts.items() if fact is not None}


def _subject_facts(exchange: Exchange, pictures: bool) -> dict[str, Any]:
    scene, subject = exchange.scene, exchange.subject
    if scene is None:
        return {}
    facts: dict[str, Any] = {"objects": list_objects(scene)}
    if subject is not None:
        digit: Digit = scene.digits[subject]
        facts |= {"subject": subject, "box": digit.norm_box(scene.size)}
        facts |= {"mask": digit_mask(scene, subject)} if pictures else {}
    return facts


def _plan_facts(exchange: Exchange) -> dict[str, Any]:
    plan = exchange.plan
    if plan is None:
        return {}
    objects = [_object(planned.digit, planned.color, planned.box, planned.name) for planned in plan.objects]
    return {"plan": objects, "relations": plan.relations}


def target_picture(exchange: Exchange) -> Any:
    """The picture that answers an exchange: the edited one or the one that was asked for; None = no picture does."""
    if exchange.result is not None:
        return draw_scene(exchange.result)
    if exchange.task == "edit" and exchange.scene is not None and exchange.call is not None:
        return edit_picture(draw_scene(exchange.scene), exchange.call.instruction)
    return None
