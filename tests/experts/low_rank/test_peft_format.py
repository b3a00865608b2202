import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmunify.errors import UserError
from mmunify.experts.low_rank._peft_format import (
    CONFIG,
    WEIGHTS,
    Adapter,
    AdapterTensors,
    read_adapter,
    scaling_of,
    write_adapter,
)


def adapter():
    one, two = (AdapterTensors(a=torch.randn(2, 6), b=torch.randn(8, 2), alpha=4.0) for _ in range(2))
    other = AdapterTensors(a=torch.randn(3, 8), b=torch.randn(4, 3), alpha=4.5)
    return Adapter(linears={"layers.0.up": one, "layers.1.up": two, "layers.1.down": other}, dropout=0.1, base="m")


def change(folder, **values):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize("prefix", ["", "model."])
def test_there_and_back_with_ranks_of_their_own(tmp_path, prefix):
    written = adapter()
    folder = write_adapter(tmp_path / "a", written, ["up", "down"], prefix)
    found = read_adapter(folder)
    assert (found.rslora, found.dropout, found.base) == (False, 0.1, "m")
    assert found.linears.keys() == {prefix + name for name in written.linears}
    for name, tensors in written.linears.items():
        assert torch.equal(found.linears[prefix + name].a, tensors.a)
        assert found.linears[prefix + name].alpha == tensors.alpha
    config = json.loads((folder / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (2, 4, ["up", "down"])
    assert len(config["rank_pattern"]) == len(config["alpha_pattern"]) == 1


def test_scaling():
    assert scaling_of(8, 4, False) == 2 and scaling_of(8, 4, True) == 4


def test_what_is_no_plain_lora_is_refused(tmp_path):
    with pytest.raises(UserError, match=f"has no {CONFIG}; a LoRA adapter of PEFT has"):
        read_adapter(tmp_path)
    for values, message in (
        ({"peft_type": "IA3"}, "its peft_type is 'IA3', but only LORA can be read"),
        ({"use_dora": True}, "uses use_dora, which is more than plain LoRA"),
        ({"r": 5}, r"layers.0.up has lora_A \(2, 6\) and lora_B \(8, 2\), but adapter_config.json says rank 5"),
    ):
        folder = write_adapter(tmp_path / "a", adapter(), ["up", "down"])
        change(folder, **values)
        with pytest.raises(UserError, match=message):
            read_adapter(folder)


def test_tensors_without_a_place_or_a_partner_are_refused(tmp_path):
    folder = write_adapter(tmp_path / "a", adapter(), ["up", "down"])
    state = load_file(folder / WEIGHTS)
    save_file({**state, "base_model.model.head.weight": torch.zeros(2)}, folder / WEIGHTS)
    with pytest.raises(UserError, match=r"1 tensors \(base_model.model.head.weight\) are no lora_A or lora_B"):
        read_adapter(folder)
    state.pop("base_model.model.layers.0.up.lora_B.weight")
    save_file(state, folder / WEIGHTS)
    with pytest.raises(UserError, match="layers.0.up has lora_A alone; A and B belong together"):
        read_adapter(folder)
