"""Regions hold exactly one geometry."""

import numpy as np
import pytest

from mmunify.types import Region

GEOMETRIES = {"box": (0.0, 0.0, 1.0, 1.0), "points": ((0.5, 0.5),), "mask": np.ones((2, 2), bool)}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_one_geometry_is_enough(name):
    assert getattr(Region(**{name: GEOMETRIES[name]}), name) is not None


@pytest.mark.parametrize("names", [[], ["box", "mask"], ["box", "points", "mask"]])
def test_none_or_several_are_refused(names):
    with pytest.raises(ValueError, match="exactly one of box, points, mask; got"):
        Region(**{name: GEOMETRIES[name] for name in names})
