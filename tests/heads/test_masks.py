"""`[SEG]` -> masks: shapes, losses, frames, and what cannot work."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmunify import losses
from mmunify.errors import DataError, RecipeError, UserError
from mmunify.heads.masks import MaskHead
from mmunify.testing import randomize
from mmunify.types import Features, Region
from tests.heads.worlds import SIZE, generate_along, make_model, output, picture, talk

KIND = "mask"
TINY = {"name": "two_way", "dim": 16, "depth": 1, "num_heads": 2, "steps": 1}


def example(folder):
    return {"features": "image", "decoder": TINY}


def example_target(rng):
    mask = np.zeros(SIZE[::-1], bool)
    x, y = rng.integers(0, 12, 2)
    mask[y // 2 : y // 2 + 6, x : x + 8] = True
    return mask


@pytest.fixture
def world(llama_folder):
    return make_model(llama_folder, {"mask": {"name": "masks", **example(None)}})


def test_targets_lie_in_the_frame_of_the_padded_picture(world):
    model, processor = world
    mask = np.zeros((16, 24), bool)
    mask[0:16, 0:12] = True  # the left half of a picture that is padded by four rows above and below
    target = processor([talk("a", output("mask", mask))]).outputs["mask"].target
    assert target.shape == (1, 8, 8)
    wanted = torch.zeros(24, 24)
    wanted[4:20, :12] = 1
    torch.testing.assert_close(target[0], wanted.reshape(8, 3, 8, 3).mean((1, 3)))


def test_a_region_or_a_file_is_a_target_too(world, tmp_path):
    from PIL import Image

    model, processor = world
    mask = np.zeros((16, 24), bool)
    mask[4:12, 6:18] = True
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    sources = [
        mask,
        mask.astype(np.int64) * 3,
        tmp_path / "mask.png",
        Region(mask=mask),
        Region(box=(0.25, 0.25, 0.75, 0.75)),
    ]
    targets = [processor([talk("a", output("mask", source))]).outputs["mask"].target for source in sources]
    for target in targets[1:]:
        torch.testing.assert_close(target, targets[0], atol=1e-6, rtol=0)


def test_losses_are_bce_and_dice_of_every_mask(world):
    model, processor = world
    rng = np.random.default_rng(0)
    batch = processor([talk("a", output("mask", example_target(rng)), output("mask", example_target(rng)))])
    report = model.eval()(batch)
    logits = report.outputs["mask"].predictions["masks"][:, 0]
    target = batch.outputs["mask"].target
    torch.testing.assert_close(report.losses["mask/bce"], 2.0 * losses.bce(logits, target))
    torch.testing.assert_close(report.losses["mask/dice"], 0.5 * losses.dice(logits, target, 1e-3))
    assert int(report.counts["mask/dice"]) == 2


def test_the_state_before_the_token_is_read_as_published_and_the_token_is_learned(world):
    model, processor = world
    batch = processor([talk("a", output("mask", np.ones(SIZE[::-1], bool)))])
    place = int(batch.outputs["mask"].slots[0].nonzero())
    assert int(batch.labels[0, place]) == int(batch.input_ids[0, place]) == processor.encoder.ids("[SEG]")[0]
    hidden = model.backbone(model.embed(batch, model.encode(batch)), batch.attention, batch.position_ids)
    head = model.heads["mask"].eval()
    features = model.encode(batch)
    for reads, read in (("before", place - 1), ("at", place)):
        head.reads = reads
        made = head(hidden, batch, features, None).predictions["masks"]
        wanted = head._masks(hidden.last[:, [read]], features["image"])
        torch.testing.assert_close(made, wanted)


@pytest.mark.parametrize(("reads", "last"), [("before", -1), ("at", 0)])
def test_the_context_before_the_token_prompts_as_well(llama_folder, monkeypatch, reads, last):
    """What the reply said just before, each state with an offset of its own; generated as it is learned."""
    node = {"name": "masks", **example(None), "reads": reads, "context": 3}
    model, processor = make_model(llama_folder, {"mask": node})
    sample = talk("a", output("mask", np.ones(SIZE[::-1], bool)))
    batch, head = processor([sample]), model.eval().heads["mask"]
    place = int(batch.outputs["mask"].slots[0].nonzero()) + last
    features = model.encode(batch)
    hidden = model.backbone(model.embed(batch, features), batch.attention, batch.position_ids)
    prompts = head.project(hidden.last[:, place - 3 : place + 1]) + head.offsets
    wanted = head.decoder(features["image"].tokens.transpose(1, 2).unflatten(2, features["image"].grid), prompts)
    made = head(hidden, batch, features, None).predictions["masks"]
    torch.testing.assert_close(made[:, 0], wanted)
    (answer,) = generate_along(model, processor, [sample], monkeypatch)
    torch.testing.assert_close(answer.predictions["mask"], made, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="context of a masks head is a number of positions, got -1"):
        MaskHead(8, 8, decoder=TINY, context=-1)


def test_every_mask_looks_at_its_own_picture(world):
    model, processor = world
    whole = np.ones(SIZE[::-1], bool)
    latest = processor([talk("two", output("mask", whole), pictures=2)])
    first = processor([talk("two", output("mask", whole, condition=0), pictures=2)])
    assert latest.outputs["mask"].condition == (("image", 1),)
    assert first.outputs["mask"].condition == (("image", 0),)
    both = processor([talk("b", output("mask", whole)), talk("two", output("mask", whole), pictures=2)])
    assert both.outputs["mask"].condition == (("image", 0), ("image", 2))
    masks = [model.eval()(batch).outputs["mask"].predictions["masks"] for batch in (latest, first)]
    assert not torch.allclose(*masks)


def test_a_clip_has_one_mask_per_frame_with_the_same_prompt():
    torch.manual_seed(0)
    head = MaskHead(12, 8, decoder=TINY).eval()
    states, frames = torch.randn(2, 1, 12), torch.randn(2, 3, 4, 8)
    clip = head._masks(states, Features(tokens=frames.flatten(1, 2), grid=(2, 2)))
    assert clip.shape == (2, 3, 4, 4)
    for i in range(3):
        torch.testing.assert_close(clip[:, i : i + 1], head._masks(states, Features(tokens=frames[:, i], grid=(2, 2))))


def test_phrases_are_vocabulary_and_no_words_of_the_reply(llama_folder):
    from mmunify.tokens import parse_reply

    node = {"name": "masks", **example(None), "phrases": True}
    model, processor = make_model(llama_folder, {"mask": node})
    assert [len(processor.encoder.ids(string)) for string in ("<p>", "</p>", "[SEG]")] == [1, 1, 1]
    parsed = parse_reply("It is <p>the red 7</p>[SEG].", registry=model.tokens)
    assert parsed.text == "It is the red 7." and parsed.problems == ()


def test_bad_input(world, tmp_path):
    model, processor = world
    whole = np.ones(SIZE[::-1], bool)
    with pytest.raises(DataError, match=r"sample 'a': a mask of shape \(3, 3\) for a medium of 24 x 16 pixels"):
        processor([talk("a", output("mask", np.ones((3, 3))))])
    with pytest.raises(DataError, match="a mask output needs a medium of kind 'image' before it"):
        processor([talk("a", output("mask", whole), pictures=0)])
    with pytest.raises(DataError, match="no target for its mask output"):
        processor([talk("a", output("mask", None))])
    batch = processor([talk("a", output("mask", whole))])
    small = replace(batch.outputs["mask"], target=torch.zeros(1, 4, 4))
    with pytest.raises(DataError, match=r"make masks of .* \(1, 8, 8\); their targets are \[\(1, 4, 4\)\]"):
        model(replace(batch, outputs={"mask": small}))
    with pytest.raises(UserError, match="say features: NODE"):
        MaskHead(8, None, features="sam")
    with pytest.raises(RecipeError, match="no mask decoder named 'two_ways'; did you mean 'two_way'"):
        MaskHead(8, 8, decoder={"name": "two_ways"})
    with pytest.raises(RecipeError, match="decoder.depht: MaskDecoder takes no depht; did you mean depth"):
        MaskHead(8, 8, decoder={"name": "two_way", "depht": 3})


def test_the_folder_of_a_backbone_keeps_the_strings(world, tmp_path):
    model, processor = world
    folder = model.backbone.save_folder(tmp_path / "lm")
    from transformers import AutoTokenizer

    assert len(AutoTokenizer.from_pretrained(folder)("[SEG]", add_special_tokens=False).input_ids) == 1


def test_over_sam_it_is_sammodel_prompted_with_the_projected_state(llama_folder, tmp_path):
    """LISA's layout: CLIP for the backbone, SAM's encoder without an adapter for the masks."""
    from mmunify.composer import compose
    from mmunify.data.processor import Processor
    from tests.layers.test_sam import sam_folder

    sam = sam_folder(tmp_path)
    clip = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = compose(
        encoders={
            "image": {"name": "clip", "config": {**clip, "image_size": 32, "patch_size": 8}},
            "grounding": {"name": "sam", "kind": "image", "path": str(tmp_path)},
        },
        adapters={"image": {"name": "linear"}},
        backbone={"name": "huggingface", "path": str(llama_folder)},
        heads={
            "text": {"name": "text"},
            "mask": {"name": "masks", "features": "grounding", "decoder": {"name": "sam", "path": str(tmp_path)}},
        },
    ).eval()
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    rng = np.random.default_rng(0)
    batch = processor([talk("a", output("mask", example_target(rng)), output("mask", example_target(rng)))])
    assert batch.media["grounding"].slots is None and batch.outputs["mask"].target.shape == (2, 16, 16)
    made = model(batch).outputs["mask"].predictions["masks"][:, 0]
    hidden = model.backbone(model.embed(batch, model.encode(batch)), batch.attention, batch.position_ids)
    prompts = model.heads["mask"].project(hidden.last[batch.outputs["mask"].slots.roll(-1, 1)])
    raster = sam.vision_encoder(batch.media["grounding"].values[:, 0]).last_hidden_state
    wanted, _ = sam.mask_decoder(
        image_embeddings=raster,
        image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
        sparse_prompt_embeddings=prompts[None, :, None],
        dense_prompt_embeddings=sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(raster),
        multimask_output=False,
    )
    torch.testing.assert_close(made, wanted[0, :, 0], rtol=1e-4, atol=1e-5)
    assert model.heads["mask"].external == str(tmp_path) and model.heads["mask"].added == ("project.*", "offsets")


def test_pictures_masks_and_boxes_in_one_batch_are_those_of_single_replies(llama_folder, monkeypatch):
    decoder = {"name": "two_way", "dim": 16, "depth": 1, "num_heads": 2, "steps": 1}
    mapper = {"name": "mapper", "num_queries": 4, "dim": 16, "depth": 1, "num_heads": 2}
    heads = {
        "image": {"name": "queries", "num_queries": 4},
        "view": {"name": "signal_tokens", "num_tokens": 2, "connector": mapper, "target": "image"},
        "thought": {"name": "hidden_states", "num_states": 3, "opens": "<think>"},
        "mask": {"name": "masks", "decoder": decoder},
        "box": {"name": "boxes"},
    }
    model, processor = make_model(llama_folder, heads)
    randomize(model, seed=2)
    rng = np.random.default_rng(1)
    shot = lambda kind: output(kind, picture(rng))  # noqa: E731
    mask = output("mask", rng.random((16, 24)) > 0.5)
    box = output("box", (0.1, 0.2, 0.7, 0.8))
    samples = [
        talk("red", shot("image"), mask, shot("thought"), mask),
        talk("a", box),
        talk("green", shot("view"), box, mask, shot("image"), shot("view")),
    ]
    together = generate_along(model.eval(), processor, samples, monkeypatch)
    counts = [{node: len(items) for node, items in answer.predictions.items()} for answer in together]
    assert counts == [{"image": 1, "mask": 2, "thought": 1}, {"box": 1}, {"view": 2, "box": 1, "mask": 1, "image": 1}]
    for sample, answer in zip(samples, together, strict=True):
        (alone,) = generate_along(model, processor, [sample], monkeypatch)
        assert alone.ids == answer.ids
        for node, items in answer.predictions.items():
            torch.testing.assert_close(alone.predictions[node], items, rtol=1e-3, atol=1e-4)
