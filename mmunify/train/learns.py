"""What learns: ordered globs over clean parameter names, applied after every part and tuner exists.

    learns: [adapters.*, backbone.*, "!*.low_rank.*"]

The last glob that matches a parameter decides; a leading `!` freezes; a parameter with several names (tied weights)
answers to all of them.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from mmunify.errors import RecipeError
from mmunify.faults import Fault
from mmunify.layers.modes import set_modes

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_NODES = ("encoders", "adapters", "heads", "detokenizers")


@dataclass(frozen=True, slots=True)
class PartCount:
    """Numbers of one part (one row of the table): parameters in total and learning, and learning tensors."""

    part: str
    total: int
    trained: int
    num_tensors: int

    @property
    def frozen(self) -> int:
        """Parameters that don't learn."""
        return self.total - self.trained


def clean_name(name: str) -> str:
    """The name of a parameter without what compilation, sharding and checkpointing put into it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def part_of(name: str) -> str:
    """The part that a clean name belongs to: "adapters.image", "backbone", "backbone (low-rank)"."""
    head, *rest = name.split(".")
    part = f"{head}.{rest[0]}" if head in _NODES and rest else head
    return f"{part} (low-rank)" if ".low_rank." in name else part


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Clean name and tensor of every parameter and every buffer that a state dict holds, tied ones by each name."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            yield clean_name(name), tensor


def parameter_names(model: nn.Module) -> list[tuple[nn.Parameter, list[str]]]:
    """Every parameter once, with all of its clean names."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(clean_name(name))
    return list(names.items())


def select(model: nn.Module, globs: Sequence[str], path: str = "learns") -> list[nn.Parameter]:
    """The parameters that `globs` let learn.

    Args:
        globs: in order; the last one that matches any name of a parameter decides.
        path: where they stand in the recipe, for messages.

    Raises:
        RecipeError: a glob that matches neither a parameter nor a part without any (with the nearest names), or
            nothing learns at all.
    """
    parameters = parameter_names(model)
    # a part without parameters (`task_tokens`) may be named, so that another part can take its place by override
    empty = [f"{clean_name(name)}." for name, part in model.named_modules() if not list(part.parameters())]
    learns = dict.fromkeys((parameter for parameter, _ in parameters), False)
    faults = []
    for index, glob in enumerate(globs):
        pattern = glob.removeprefix("!")
        matched = _matched(parameters, pattern)
        learns.update(dict.fromkeys(matched, not glob.startswith("!")))
        if not matched and not _any_matches(empty, pattern):
            faults.append(Fault(f"{path}.{index}", f"{glob!r} matches no parameter{_nearest(pattern, parameters)}"))
    if not faults and not any(learns.values()):
        faults.append(Fault(path, f"nothing learns under {list(globs)}; let at least one parameter learn"))
    if faults:
        raise RecipeError(faults)
    return [parameter for parameter, chosen in learns.items() if chosen]


def apply_learns(model: nn.Module, globs: Sequence[str], path: str = "learns") -> list[PartCount]:
    """Let the selected parameters learn, freeze all others, and put what is frozen into eval mode.

    Returns:
        The table, one row per part.

    Raises:
        RecipeError: as `select`.
    """
    learning = set(select(model, globs, path))
    for parameter, _ in parameter_names(model):
        parameter.requires_grad_(parameter in learning)
        parameter.grad = None
    set_modes(model)
    return count_parts(model)


def count_parts(model: nn.Module) -> list[PartCount]:
    """Trained and total parameters per part, tied ones counted once, under their first name."""
    rows: dict[str, list[int]] = {}
    for parameter, names in parameter_names(model):
        row = rows.setdefault(part_of(names[0]), [0, 0, 0])
        row[0] += parameter.numel()
        row[1] += parameter.numel() * parameter.requires_grad
        row[2] += parameter.requires_grad
    return [PartCount(part, *numbers) for part, numbers in rows.items()]


def learned_names(model: nn.Module) -> frozenset[str]:
    """Clean names of all that may have changed in a stage: learning parameters, and buffers of modules that train."""
    found = {name for parameter, names in parameter_names(model) if parameter.requires_grad for name in names}
    for path, module in model.named_modules():
        if module.training:
            found |= {clean_name(name) for name, _ in module.named_buffers(prefix=path, recurse=False)}
    return frozenset(found)


def _any_matches(names: Sequence[str], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _matched(parameters: Sequence[tuple[nn.Parameter, list[str]]], pattern: str) -> list[nn.Parameter]:
    return [parameter for parameter, names in parameters if _any_matches(names, pattern)]


def _nearest(pattern: str, parameters: Sequence[tuple[nn.Parameter, list[str]]]) -> str:
    """'; the nearest names are ...' over all names and their prefixes."""
    names = [name for _, found in parameters for name in found]
    prefixes = {".".join(name.split(".")[:depth]) + ".*" for name in names for depth in range(1, name.count(".") + 1)}
    close = difflib.get_close_matches(pattern, [*sorted(prefixes), *names], n=3, cutoff=0.3)
    return f"; the nearest names are {', '.join(close)}" if close else f"; its parameters are {', '.join(names[:5])}"
