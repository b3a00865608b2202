"""`mmunify convert`, both ways."""

import pytest
from safetensors.torch import load_file

from mmunify.cli import main
from tests.checkpoint.published import write_llava


def run(*arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return left.value.code


def test_there_and_back(tmp_path, capsys):
    folder, _ = write_llava(tmp_path / "llava")
    assert run("convert", str(folder), "--to", str(tmp_path / "bundle")) == 0
    assert run("convert", str(tmp_path / "bundle"), "--to", str(tmp_path / "again")) == 0
    assert f"{tmp_path / 'bundle'} -> {tmp_path / 'again'}" in capsys.readouterr().out
    before, after = (load_file(each / "model.safetensors") for each in (folder, tmp_path / "again"))
    assert before.keys() == after.keys()


def test_what_is_neither_ends_with_code_2(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert run("convert", str(tmp_path), "--to", str(tmp_path / "out")) == 2
    assert "a model of type 'bert'" in capsys.readouterr().err
