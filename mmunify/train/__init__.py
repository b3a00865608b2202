"""Training. `mmunify.train(recipe)` runs all stages of a recipe; see `mmunify.train.stages.train`."""

from mmunify.callables import make_callable

make_callable(__name__, "mmunify.train.stages:train")
