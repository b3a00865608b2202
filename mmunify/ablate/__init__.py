"""Ablations: the arms of a recipe, trained and measured, in one table.

`mmunify.ablate(recipe)` runs them; see `mmunify.ablate.run.ablate`.
"""

from mmunify.callables import make_callable

make_callable(__name__, "mmunify.ablate.run:ablate")
