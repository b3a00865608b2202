"""Names of another library's checkpoint -> names in a module that may sit deeper or less deep."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import Tensor

from mmunify.errors import UserError


def match_names(title: str, theirs: Sequence[str], ours: Collection[str]) -> dict[str, str]:
    """Their name -> our name; all differ by the same beginning ("model.layers.0.x" and "lm.layers.0.x").

    The longest common ending wins, so that as few leading pieces as possible are exchanged.

    Raises:
        UserError: no such beginning, or more than one.
    """
    known = set(ours)
    for tails in _endings(theirs):
        fitting = _starts(tails, known)
        if len(fitting) > 1:
            raise UserError(f"{title}: {theirs[0]} could be any of {', '.join(sorted(s + tails[0] for s in fitting))}")
        if fitting:
            return {name: fitting[0] + tail for name, tail in zip(theirs, tails, strict=True)}
    lost = next((n for n in theirs if not any(o.endswith(n.rpartition(".")[2]) for o in known)), theirs[0])
    raise UserError(
        f"{title}: its {len(theirs)} modules are not those of this model, which has no place for {lost}; "
        f"it has {', '.join(sorted(known)[:3])}, ..."
    )


def _endings(names: Sequence[str]) -> Iterator[list[str]]:
    """The names without their first pieces, as long as all of them begin alike: none dropped, one, ..."""
    pieces = [name.split(".") for name in names]
    for dropped in range(min(map(len, pieces), default=0)):
        if len({tuple(p[:dropped]) for p in pieces}) > 1:
            return
        yield [".".join(p[dropped:]) for p in pieces]


def _starts(tails: Sequence[str], known: Collection[str]) -> list[str]:
    """What can stand before all of the tails, so that they are known."""
    ending = tails[0]
    starts = [name.removesuffix(ending) for name in known if name == ending or name.endswith(f".{ending}")]
    return [start for start in starts if all(start + tail in known for tail in tails)]


def check_shape(title: str, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape, with both."""
    if tuple(tensor.shape) != shape:
        raise UserError(f"{title}: {name} has shape {tuple(tensor.shape)}, but the module needs {shape}")


def refuse_others(title: str, state: Mapping[str, Tensor], known: Collection[str], why: str) -> None:
    """Refuse tensors that would be left out silently."""
    others = [name for name in state if name not in known]
    if others:
        some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise UserError(f"{title}: {len(others)} tensors ({some}) are no {why}; they can't be read")
