"""Media that are numbers already: motion signals, brain scans, point clouds."""

from dataclasses import dataclass

from mmunify.types import Preprocess


@dataclass(frozen=True, slots=True, kw_only=True)
class NumbersPreprocess(Preprocess):
    """Numbers of one shape, taken as they are.

    Attributes:
        kind: of the node.
        shape: of an item.
    """

    kind: str = "numbers"
    shape: tuple[int, ...] = (1,)
