"""Evaluation: `mmunify.evaluate(bundle)` measures a model, see `mmunify.evaluate.run.evaluate`."""

from mmunify.callables import make_callable

make_callable(__name__, "mmunify.evaluate.run:evaluate")
