import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from mmunify.checkpoint import Bundle, export_model, import_model, load_bundle, save_import
from mmunify.errors import CheckpointError
from mmunify.recipe import Recipe
from mmunify.testing import tiny_clip_folder, tiny_llama_folder
from mmunify.types import Media, Sample, Text, Turn
from tests.checkpoint.published import write_llava
from tests.parity.composed import logits
from tests.parity.test_blip2 import write_blip2
from tests.parity.test_llava_next import write_llava_next

PUBLISHED = {
    "clip": lambda folder: write_llava(folder / "llava")[0],
    "siglip": lambda folder: write_llava(folder / "llava", "siglip")[0],
    "float16": lambda folder: write_llava(folder / "llava", dtype=torch.float16)[0],
    "next": lambda folder: write_llava_next(folder)[0],
    "blip2": lambda folder: (write_blip2(folder / "blip2"), folder / "blip2")[1],
}


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A published LLaVA that no test changes."""
    return write_llava(tmp_path_factory.mktemp("published") / "llava")


@pytest.fixture
def damaged(llava, tmp_path):
    """A copy of it, and a function that changes its tensors."""
    folder = shutil.copytree(llava[0], tmp_path / "damaged")

    def change(how):
        tensors = load_file(folder / "model.safetensors")
        how(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return change


def picture(side=40):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def sample(words="what?"):
    asked = Turn(role="user", parts=(Media(kind="image", source=picture()), Text(text=words)))
    return Sample(turns=(asked, Turn(role="assistant", parts=(Text(text="noise"),))), id="a")


@pytest.mark.parametrize("kind", PUBLISHED)
def test_there_and_back_is_exact_to_the_bit(kind, tmp_path):
    folder = PUBLISHED[kind](tmp_path)
    bundle = load_bundle(save_import(folder, tmp_path / "bundle"))
    again = export_model(bundle, tmp_path / "again")
    before, after = (load_file(each / "model.safetensors") for each in (folder, again))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype and torch.equal(tensor, after[name]), name
    old, new = (AutoModelForImageTextToText.from_pretrained(each).config.to_dict() for each in (folder, again))
    ignored = {"_name_or_path", "dtype", "image_text_hidden_size"}
    assert {key: old[key] for key in old.keys() - ignored} == {key: new[key] for key in new.keys() - ignored}


def test_a_bundle_of_a_published_model_needs_its_source_no_more(tmp_path):
    folder, _ = write_llava(tmp_path / "llava")
    expected = import_model(folder)
    save_import(folder, tmp_path / "bundle")
    shutil.rmtree(folder)
    loaded = load_bundle(shutil.move(tmp_path / "bundle", tmp_path / "elsewhere"))
    batch = expected.processor()([sample()])
    assert torch.equal(loaded.processor()([sample()]).input_ids, batch.input_ids)
    assert torch.equal(loaded.model(batch).total, expected.model(batch).total)


def test_pictures_stand_bare_and_are_cut_as_their_processor_does(llava):
    folder, theirs = llava
    bundle = import_model(folder)
    assert not {"</image>", "<img>"} & bundle.model.backbone.tokenizer.get_vocab().keys()
    batch = bundle.processor()([sample()])
    values = AutoProcessor.from_pretrained(folder)(images=picture(), text="<image>", return_tensors="pt")
    torch.testing.assert_close(batch.media["image"].values[0], values["pixel_values"], atol=0.02, rtol=0)
    inside = batch.media["image"].slots[0].nonzero().flatten()
    assert len(inside) == (values["input_ids"] == theirs.config.image_token_index).sum() == 16
    assert len(inside) == inside[-1] - inside[0] + 1
    with torch.no_grad():
        ids = batch.input_ids.masked_fill(batch.media["image"].slots, theirs.config.image_token_index)
        mask = batch.attention.valid
        wanted = theirs(input_ids=ids, pixel_values=batch.media["image"].values[:, 0], attention_mask=mask.long())
        made = logits(bundle.model, batch)
    known = made.shape[-1]
    torch.testing.assert_close(made[mask], wanted.logits[mask][:, :known], atol=1e-5, rtol=0)


def test_the_processor_that_is_written_agrees_with_ours(llava, tmp_path):
    bundle = import_model(llava[0])
    processor = AutoProcessor.from_pretrained(export_model(bundle, tmp_path / "again"))
    made = processor(images=picture(), text="<image>what?", return_tensors="pt", add_special_tokens=False)
    batch = bundle.processor()([sample()])
    torch.testing.assert_close(made["pixel_values"], batch.media["image"].values[:, 0], atol=0.02, rtol=0)
    assert (made["input_ids"] == llava[1].config.image_token_index).sum() == 16


@pytest.mark.parametrize("layer", [-2, -1])
def test_a_model_of_ours_gives_the_same_logits_in_their_class(layer, tmp_path):
    """A tower whose upper layers were let go, words around the picture, added tokens beyond their tables."""
    nodes = {
        "encoders": {"image": {"name": "clip", "path": str(tiny_clip_folder(tmp_path / "clip")), "layer": layer}},
        "adapters": {"image": {"name": "mlp"}},
        "backbone": {"name": "huggingface", "path": str(tiny_llama_folder(tmp_path / "llama"))},
        "heads": {"text": {"name": "text"}},
    }
    recipe = Recipe.from_dict({"model": nodes, "tokens": {"tasks": ["segment"]}})
    bundle = Bundle(recipe, recipe.build(training=False).eval())
    folder = export_model(bundle, tmp_path / "theirs")
    theirs = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    batch = bundle.processor()([sample("<segment>")])
    slot = AutoProcessor.from_pretrained(folder).tokenizer.convert_tokens_to_ids("<slot>")
    assert theirs.config.image_token_id == slot and (batch.input_ids == slot).sum() == 16
    with torch.no_grad():
        values, mask = batch.media["image"].values[:, 0], batch.attention.valid
        wanted = theirs(input_ids=batch.input_ids, pixel_values=values, attention_mask=mask.long()).logits
        made = logits(bundle.model, batch)
    assert made.shape == wanted.shape
    torch.testing.assert_close(made[mask], wanted[mask], atol=1e-5, rtol=0)


def test_names_of_older_files(llava, damaged):
    """Towers used to have a level more; files on the hub still do."""

    def rename(tensors):
        for name in [name for name in tensors if name.startswith("vision_tower.")]:
            tensors[name.replace("vision_tower.", "vision_tower.vision_model.")] = tensors.pop(name)

    old, new = import_model(damaged(rename)).model.state_dict(), import_model(llava[0]).model.state_dict()
    assert all(torch.equal(tensor, old[name]) for name, tensor in new.items())


def test_all_differences_are_named(damaged):
    def change(tensors):
        tensors["strange.weight"] = torch.zeros(2)
        del tensors["multi_modal_projector.linear_2.bias"]
        tensors["multi_modal_projector.linear_1.weight"] = torch.zeros(3, 16)

    with pytest.raises(CheckpointError, match=r"don't fit \(3 differences\)") as caught:
        import_model(damaged(change))
    assert "multi_modal_projector.linear_2.bias: missing" in str(caught.value)
    assert "strange.weight: has no place in the model" in str(caught.value)
    assert "linear_1.weight: shape [3, 16], the model has [32, 16]" in str(caught.value)


def test_a_truncated_file_and_a_pickle_are_refused(damaged):
    folder = damaged(lambda tensors: None)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="truncated or no safetensors"):
        import_model(folder)
    file.rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"never from pickles"):
        import_model(folder)


def test_another_kind_of_model_and_no_model(tmp_path):
    with pytest.raises(CheckpointError, match=r"of type 'llama'; read are llava, llava_next, blip-2"):
        import_model(tiny_llama_folder(tmp_path / "llama"))
    with pytest.raises(CheckpointError, match="neither a folder nor a hub id in reach"):
        import_model(tmp_path / "nowhere")


def test_compositions_without_a_published_layout(llava, tmp_path):
    bundle = import_model(llava[0])
    tuned = Recipe.from_dict(
        {"model": bundle.recipe.to_dict()["model"] | {"tuners": [{"name": "lora", "match": "*q_proj"}]}}
    )
    with pytest.raises(CheckpointError, match=r"low_rank.*: has no place in the model"):
        export_model(Bundle(tuned, tuned.build(training=False)), tmp_path / "out")
    tree = bundle.recipe.to_dict()["model"]
    tree["adapters"] = {"image": {"name": "linear"}}
    other = Recipe.from_dict({"model": tree})
    with pytest.raises(CheckpointError, match="no published layout holds encoder 'clip' with adapter 'linear'"):
        export_model(Bundle(other, other.build(training=False)), tmp_path / "out")


def test_a_newline_needs_a_tokenizer(tmp_path):
    folder, _ = write_llava_next(tmp_path)
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer to hold their strings.*\n.*new_rows.layout"):
        import_model(folder)
