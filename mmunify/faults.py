"""What is wrong with a recipe, said so that the reader can mend it: where, what, and what was probably meant."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a recipe.

    Attributes:
        path: where it stands ("model.adapters.image.name"); "" = the recipe as a whole.
        message: what was found, what was expected.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def did_you_mean(name: str, known: Sequence[str], quoted: bool = True) -> str:
    """`"; did you mean 'mlp'?"` with the nearest known name, or `"."` when none is near."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    if not close:
        return "."
    return f"; did you mean {close[0]!r}?" if quoted else f"; did you mean {close[0]}?"


def unknown(noun: str, name: str, known: Sequence[str]) -> str:
    """`"no adapter named 'qfromer'; did you mean 'qformer'? Known: mlp, qformer"`."""
    listed = ", ".join(known) if known else "none"
    return f"no {noun} named {name!r}{did_you_mean(name, known)} Known: {listed}"
