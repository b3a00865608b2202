"""Training. `mmunify.train(recipe)` runs all stages of a recipe; see `mmunify.train.stages.train`."""

import sys
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """This package, callable: `mmunify.train` is the function and the folder, whichever was imported first."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `mmunify.train.stages.train`."""
        from mmunify.train.stages import train

        return train(*args, **kwargs)


sys.modules[__name__].__class__ = _Package
