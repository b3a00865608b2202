"""Names drawn with weights."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mmunify.errors import DataError
from mmunify.faults import unknown


class Lots:
    """Draws one of several names.

    Args:
        names: the names, equally likely, or their weights.
        known: names that may be asked for.
        what: noun for messages.

    Raises:
        DataError: no name, an unknown one, or a weight that is not positive.
    """

    def __init__(self, names: Sequence[str] | Mapping[str, float], known: Collection[str], what: str) -> None:
        weights = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, 1.0)
        if not weights:
            raise DataError(f"name at least one {what}: {', '.join(known)}")
        for name, weight in weights.items():
            if name not in known:
                raise DataError(unknown(what, name, list(known)))
            if not weight > 0:
                raise DataError(f"weight {weight} of {what} {name!r} must be positive; or leave it out")
        self.names = list(weights)
        self._bounds = np.cumsum(list(weights.values())) / sum(weights.values())

    def draw(self, rng: np.random.Generator) -> str:
        """One of the names."""
        return self.names[int(np.searchsorted(self._bounds[:-1], rng.random(), side="right"))]
