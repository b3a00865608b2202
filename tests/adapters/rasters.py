"""What holds for adapters that paint a raster of their own."""

from mmunify.parts import Adapter, Context
from mmunify.testing import random_features
from mmunify.types import Features, Layout


def check_own_raster(adapter: Adapter) -> None:
    """An adapter (6 -> 8, double) makes 2 x 2 cells whatever raster it reads."""
    for features in (random_features(6, (5, 7)), random_features(6, (1, 3))):
        double = Features(tokens=features.tokens.double(), grid=features.grid)
        assert adapter(double, Context()).tokens.shape[1:] == (4, 8)
        assert adapter.layout(Layout.of(features.tokens.shape[1], features.grid)) == Layout.of(4, (2, 2))
