"""A constructor's signature is the schema of a recipe's node: which arguments it takes, and whether values fit."""

import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from mmunify.faults import Fault, did_you_mean

UNIONS = (typing.Union, types.UnionType)
VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def parameters(thing: Any) -> dict[str, inspect.Parameter]:
    """Named parameters of a constructor or a function, `*args` and `**kwargs` left out."""
    return {name: p for name, p in _signature(thing).parameters.items() if p.kind not in VARIADIC}


def takes_anything(thing: Any) -> bool:
    """Whether it has `**kwargs`."""
    return any(p.kind is p.VAR_KEYWORD for p in _signature(thing).parameters.values())


def _signature(thing: Any) -> inspect.Signature:
    if getattr(getattr(thing, "__init__", None), "__module__", "") == "torch.nn.modules.module":
        return inspect.Signature()  # nn.Module's own `**kwargs` are there to be refused
    try:
        return inspect.signature(thing, eval_str=True)
    except (NameError, AttributeError, TypeError):  # an annotation that exists for type checkers alone
        return inspect.signature(thing)


def argument_faults(thing: Any, given: Mapping[str, Any], path: str, runtime: Iterable[str]) -> list[Fault]:
    """Arguments that `thing` doesn't take, and required ones that neither the recipe nor the composer gives."""
    takes, title = parameters(thing), getattr(thing, "__name__", repr(thing))
    surplus = [] if takes_anything(thing) else [key for key in given if key not in takes]
    absent = [k for k, p in takes.items() if p.default is p.empty and k not in given and k not in runtime]
    listed = ", ".join(takes) if takes else "no arguments"
    return [
        *(Fault(f"{path}.{k}", f"{title} takes no {k}{_near(k, takes)} It takes {listed}") for k in surplus),
        *(Fault(f"{path}.{key}", f"required by {title} and not given") for key in absent),
    ]


def _near(key: str, takes: Mapping[str, Any]) -> str:
    return did_you_mean(key, list(takes), quoted=False)


def options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; the annotation itself if it is none."""
    return typing.get_args(annotation) if typing.get_origin(annotation) in UNIONS else (annotation,)


def type_name(annotation: Any) -> str:
    """An annotation as a user reads it: `int`, `str or None`, `one of 'mean', 'sum'`."""
    if typing.get_origin(annotation) in UNIONS:
        return " or ".join(type_name(option) for option in typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(annotation))
    if annotation in (None, type(None)):
        return "null"
    if typing.get_args(annotation):
        return str(annotation).replace("typing.", "").replace("collections.abc.", "")
    return getattr(annotation, "__name__", str(annotation))


def fits(value: Any, annotation: Any) -> bool:
    """Whether a YAML value fits a type hint; a hint that YAML cannot express fits everything."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in UNIONS:
        return any(fits(value, option) for option in args)
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in args)
    kind = origin or annotation
    if kind is None or not isinstance(kind, type):
        return value is None if kind is None else True
    return _fits_class(value, kind, args)


def _fits_class(value: Any, kind: type, args: tuple[Any, ...]) -> bool:
    if kind in (bool, type(None)):
        return isinstance(value, kind)
    if kind in (int, float):
        return isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str)
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping) and _pairs_fit(value, args)
    if issubclass(kind, Sequence | Set):
        return _is_list(value) and _items_fit(value, kind, args)
    return True


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence | Set) and not isinstance(value, str)


def _pairs_fit(value: Mapping[Any, Any], args: tuple[Any, ...]) -> bool:
    return len(args) != 2 or all(fits(key, args[0]) and fits(item, args[1]) for key, item in value.items())


def _items_fit(value: Any, kind: type, args: tuple[Any, ...]) -> bool:
    if kind is tuple and args and args[-1] is not Ellipsis:
        return len(value) == len(args) and all(fits(item, arg) for item, arg in zip(value, args, strict=True))
    return not args or all(fits(item, args[0]) for item in value)
