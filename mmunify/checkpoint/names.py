"""Names of tensors in two layouts, as one table that is read both ways."""

import re
from collections.abc import Sequence


class Names:
    """Pairs (theirs, ours) of names: `*` stands for a number, and a name that ends with a dot for all that follow it.

    The first pair that fits a name decides.

    Args:
        pairs: of the table, in order.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._to_ours = [(_pattern(theirs), _template(ours)) for theirs, ours in pairs]
        self._to_theirs = [(_pattern(ours), _template(theirs)) for theirs, ours in pairs]

    def ours(self, name: str) -> str | None:
        """Our name of their tensor; None where the table has none."""
        return _translated(name, self._to_ours)

    def theirs(self, name: str) -> str | None:
        """Their name of our tensor; None where the table has none."""
        return _translated(name, self._to_theirs)


def _translated(name: str, table: Sequence[tuple[re.Pattern[str], str]]) -> str | None:
    found = ((pattern.fullmatch(name), template) for pattern, template in table)
    return next((match.expand(template) for match, template in found if match), None)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", r"(\d+)") + ("(.+)" if name.endswith(".") else ""))


def _template(name: str) -> str:
    """The replacement that fits a pattern with as many groups."""
    pieces = (name + "*" if name.endswith(".") else name).split("*")
    return "".join(piece + rf"\g<{i}>" for i, piece in enumerate(pieces[:-1], start=1)) + pieces[-1]
