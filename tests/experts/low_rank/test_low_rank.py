"""The public names around the tuners."""

import importlib
import subprocess
import sys

import pytest

from mmunify.experts import low_rank


@pytest.mark.parametrize("name", low_rank.__all__)
def test_every_public_name_is_the_object_of_its_module(name):
    home = importlib.import_module(f"mmunify.experts.low_rank.{low_rank._HOMES[name]}")
    assert getattr(low_rank, name) is getattr(home, name)
    assert name in dir(low_rank)


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(AttributeError, match="has no attribute 'TokenContexts'"):
        _ = low_rank.TokenContexts


def test_listing_the_tuners_loads_no_torch():
    code = "import sys, mmunify; mmunify.TUNERS.names(); import mmunify.experts.low_rank; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
