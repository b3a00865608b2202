import pickle

import pytest
import torch
from safetensors.torch import save_file

from mmunify.errors import CheckpointError
from mmunify.layers.weights import check_weights, quiet_loading, read_weights


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.arange(64.0)}, path)
    return path


def test_reads_what_was_written(file):
    assert torch.equal(read_weights(file)["weight"], torch.arange(64.0))
    check_weights(file.parent)


@pytest.mark.parametrize("kept", [0, 4, 40, 200])
def test_truncated_files_are_named(file, kept):
    file.write_bytes(file.read_bytes()[:kept])
    for read in (lambda: read_weights(file), lambda: check_weights(file.parent)):
        with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated or no safetensors file"):
            read()


def test_a_pickle_under_the_name_is_refused(file):
    file.write_bytes(pickle.dumps({"weight": [1.0]}))
    with pytest.raises(CheckpointError, match="no safetensors file"):
        read_weights(file)


def test_a_folder_with_pickles_alone_says_so(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"the folder holds pytorch_model\.bin: .* never from pickles"):
        check_weights(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="gone/model.safetensors does not exist"):
        read_weights(tmp_path / "gone" / "model.safetensors")


def test_local_folders_load_without_bars_and_downloads_with_them(tmp_path):
    from transformers.utils import logging

    logging.enable_progress_bar()
    quiet_loading("some/hub-id")
    assert logging.is_progress_bar_enabled()
    quiet_loading(str(tmp_path))
    assert not logging.is_progress_bar_enabled()
