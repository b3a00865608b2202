"""One tree of errors."""

import pytest

from mmunify import errors
from mmunify.faults import Fault


def test_users_mistakes_are_value_errors_and_ours():
    for leaf in (errors.RegistryError, errors.DataError, errors.TokenError, errors.CheckpointError):
        assert issubclass(leaf, ValueError) and issubclass(leaf, errors.MMUnifyError)
    for leaf in (errors.PlacementError, errors.TrainingError):
        assert issubclass(leaf, RuntimeError) and issubclass(leaf, errors.MMUnifyError)


@pytest.mark.parametrize(("count", "noun"), [(1, "1 fault"), (2, "2 faults")])
def test_a_recipe_error_lists_all_faults(count, noun):
    error = errors.RecipeError([Fault(f"model.{i}", f"wrong {i}") for i in range(count)])
    assert noun in str(error)
    assert all(f"model.{i}: wrong {i}" in str(error) for i in range(count))
    assert len(error.faults) == count
