import pytest

from tests.recipe.trees import recipe_tree, write


@pytest.fixture
def tree(llama_folder):
    return recipe_tree(llama_folder)


@pytest.fixture
def recipe_file(tmp_path, tree):
    return write(tmp_path / "small.yaml", tree)
