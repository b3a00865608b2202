"""Evaluation: pure metrics, protocols over generated answers, and reports, always with n and a 95 % interval.

`mmunify.evaluate(bundle)` runs the protocols; see `mmunify.evaluate.run.evaluate`.
"""

from mmunify.callables import make_callable

make_callable(__name__, "mmunify.evaluate.run:evaluate")
