"""Groups of arguments that a recipe writes as a mapping."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from mmunify.errors import RecipeError
from mmunify.faults import Fault
from mmunify.layers.diffusion_noise import Prediction
from mmunify.signature import argument_faults, fits, parameters, type_name

Group = TypeVar("Group")


def read_options(group: type[Group], given: Mapping[str, Any], path: str, **runtime: Any) -> Group:
    """Build `group` from a mapping, after checking it as the arguments of a part are checked.

    Args:
        group: a class or a dataclass.
        given: from the recipe.
        path: the argument's name ("sdxl.training"), for messages.
        runtime: arguments that the recipe leaves out.

    Raises:
        RecipeError: unknown keys or values of another type, all named together.
    """
    takes = {name: each.annotation for name, each in parameters(group).items()}
    faults = argument_faults(group, given, path, tuple(runtime))
    faults += [
        Fault(f"{path}.{key}", f"{group.__name__} wants {type_name(takes[key])}, got {value!r}")
        for key, value in given.items()
        if key in takes and not fits(value, takes[key])
    ]
    if faults:
        raise RecipeError(faults)
    return group(**{**runtime, **given})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How a de-tokenizer is trained.

    Attributes:
        prediction: see `DiffusionNoise`; None = as the scheduler says.
        min_snr: see `DiffusionNoise`.
        drop: probability that the condition alone is dropped.
        drop_source: that the source picture alone is dropped.
        drop_both: that both are.
        null: what stands in for a dropped condition: features of "zeros", a "learned" vector, or those that the
            condition brings along ("given": SEED-X takes the features of a grey picture).
    """

    prediction: Prediction | None = None
    min_snr: float | None = None
    drop: float = 0.1
    drop_source: float = 0.0
    drop_both: float = 0.0
    null: Literal["zeros", "learned", "given"] = "zeros"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """How a de-tokenizer draws.

    Attributes:
        steps: of the scheduler.
        guidance: strength of the condition; 1 = no guidance.
        source_guidance: strength of the source picture.
        size: side of the pictures; None = as the network was made for.
    """

    steps: int = 30
    guidance: float = 7.5
    source_guidance: float = 1.5
    size: int | None = None


def strengths(options: SamplingOptions) -> dict[str, float]:
    """By the names that `guidance:` of a call uses."""
    return {"condition": options.guidance, "source": options.source_guidance}
