"""The errors that mmunify raises: one tree, so that a caller can catch all of them or exactly one.

Every message names the thing, its value, what was expected and what to do.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmunify.faults import Fault


class MMUnifyError(Exception):
    """Base of every error that mmunify raises on purpose."""


class UserError(MMUnifyError, ValueError):
    """Something the user gave is wrong; the command line answers it with exit code 2."""


class RegistryError(UserError):
    """An unknown name, or a name that is already taken."""


class RecipeError(UserError):
    """A recipe with faults; all of them are reported together, each with its path in the recipe."""

    def __init__(self, faults: "Sequence[Fault]") -> None:
        self.faults = list(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        noun = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(f"the recipe has {len(self.faults)} {noun}:\n{lines}")


class DataError(UserError):
    """A record, a medium or a data set that cannot be used."""


class TokenError(UserError):
    """A call or a region that cannot be written as text."""


class CheckpointError(UserError):
    """A bundle that is missing, incomplete, truncated or of another shape."""


class MissingExtraError(MMUnifyError, ImportError):
    """An optional package is absent; the message says which extra brings it."""


class PlacementError(MMUnifyError, RuntimeError):
    """Embeddings and slots of a batch do not match."""


class TrainingError(MMUnifyError, RuntimeError):
    """Training broke one of its own promises (what learns, finite losses)."""
