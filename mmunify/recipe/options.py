"""Options: changes of a recipe that have a name, so that one word picks one of them.

    options:
      heads:
        default: task_tokens
        task_tokens: {}
        queries: {model: {heads: {image: {name: queries}}}}

`heads=queries` on the command line, or `heads: queries` in a recipe based on this one, merges the option over the
recipe that offers it; all that comes later (a recipe based on it, further overrides) is merged over both.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any

from mmunify.faults import Fault, unknown

DEFAULT, CHOSEN = "default", "chosen"
"""Keys of a group that are no options: the one that holds where nothing is said, and the one that was merged."""

Tree = dict[str, Any]


def apply_options(trees: Sequence[Mapping[str, Any]], reserved: Sequence[str]) -> tuple[list[Tree], Tree, list[Fault]]:
    """Put the chosen options between the trees.

    Args:
        trees: the recipe's layers, the lowest first.
        reserved: keys that every recipe has, so that no group may be called so.

    Returns:
        The layers without their `options` and choices, the chosen options among them; the groups, each with what was
        `chosen`; and faults: unknown options, groups without a default, names that are taken.
    """
    groups, homes = _groups(trees)
    wrong = {name: _group_faults(name, group, reserved) for name, group in groups.items()}
    good = [name for name, found in wrong.items() if not found]
    choices = {name: tree[name] for tree in trees for name in good if name in tree}
    picked: Tree = {name: choices.get(name, groups[name].get(DEFAULT)) for name in good}
    layers: list[Tree] = []
    for place, tree in enumerate(trees):
        layers.append({key: value for key, value in tree.items() if key not in ("options", *good)})
        offered = [name for name in good if homes[name] == place and picked[name] in _names(groups[name])]
        layers += [deepcopy(groups[name][picked[name]]) for name in offered]
    faults = [*chain(*wrong.values()), *chain(*(_choice_faults(name, groups[name], picked[name]) for name in good))]
    return layers, {name: _marked(group, choices.get(name)) for name, group in groups.items()}, faults


def _choice_faults(name: str, group: Mapping[str, Any], chosen: Any) -> list[Fault]:
    known = _names(group)
    return [] if chosen is None or chosen in known else [Fault(name, unknown("option", str(chosen), known))]


def describe_options(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line per group: what was chosen, and what else can be."""
    return [
        f"{name}={group[CHOSEN]} (options: {', '.join(_names(group))})"
        for name, group in groups.items()
        if CHOSEN in group
    ]


def _groups(trees: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Tree], dict[str, int]]:
    """Groups of all trees, and the tree that offers each first."""
    groups: dict[str, Tree] = {}
    homes: dict[str, int] = {}
    for place, tree in enumerate(trees):
        offered = tree.get("options")
        for name, group in offered.items() if isinstance(offered, Mapping) else ():
            homes.setdefault(name, place)
            groups[name] = {**groups.get(name, {}), **(group if isinstance(group, Mapping) else {DEFAULT: group})}
    return groups, homes


def _group_faults(name: str, group: Tree, reserved: Sequence[str]) -> list[Fault]:
    path = f"options.{name}"
    if name in reserved:
        return [Fault(path, f"{name!r} is a key of every recipe; choose another name")]
    wrong = [Fault(f"{path}.{key}", f"wants keys of a recipe, got {group[key]!r}") for key in _names(group)]
    wrong = [fault for fault, key in zip(wrong, _names(group), strict=True) if not isinstance(group[key], Mapping)]
    chosen = group.get(DEFAULT, group.get(CHOSEN))
    if chosen not in _names(group):
        wrong.append(Fault(f"{path}.{DEFAULT}", unknown("option", str(chosen), _names(group))))
    return wrong


def _names(group: Mapping[str, Any]) -> list[str]:
    return [key for key in group if key not in (DEFAULT, CHOSEN)]


def _marked(group: Tree, choice: Any) -> Tree:
    """The group as a resolved recipe keeps it: its option is merged already, so there is no default any more."""
    options = {key: group[key] for key in _names(group)}
    return {CHOSEN: choice or group.get(DEFAULT, group.get(CHOSEN)), **options}
