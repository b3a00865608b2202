"""compose: widths, random streams, wiring and its errors."""

import pytest
import torch

from mmunify.composer import compose, part_seed
from mmunify.errors import RecipeError
from mmunify.registry import ADAPTERS, BACKBONES, ENCODERS, HEADS
from tests.conftest import TINY_CLIP


def _same(a, b, prefix=""):
    left, right = a.state_dict(), b.state_dict()
    return all(torch.equal(left[k], right[k]) for k in left if k.startswith(prefix) and k in right)


def test_swapping_one_part_leaves_the_other_weights_alone(nodes):
    first = compose(**nodes)
    second = compose(**{**nodes, "adapters": {"image": {"name": "linear"}}})
    assert _same(first, second, "heads.") and _same(first, second, "encoders.")
    assert not _same(first, compose(**nodes, seed=1), "heads.")


def test_built_parts_and_nodes_give_the_same_model(nodes, llama_folder):
    with part_seed(0, "encoders.image"):
        encoder = ENCODERS.build({"name": "clip", "config": TINY_CLIP, "layer": -2})
    backbone = BACKBONES.build({"name": "huggingface", "path": str(llama_folder)})
    with part_seed(0, "adapters.image"):
        adapter = ADAPTERS.build({"name": "mlp", "depth": 2}, in_dim=encoder.out_dim, out_dim=backbone.dim)
    with part_seed(0, "heads.image"):
        head = HEADS.build({"name": "queries", "num_queries": 16}, in_dim=backbone.dim, target_dim=encoder.out_dim)
    built = compose(
        encoders={"image": encoder},
        adapters={"image": adapter},
        backbone=backbone,
        heads={"text": HEADS.build({"name": "text"}), "image": head},
        tokens=nodes["tokens"],
    )
    made = compose(**nodes)
    assert built.state_dict().keys() == made.state_dict().keys()
    assert _same(built, made)


def test_shared_nodes_are_one_module(nodes):
    encoders = {**nodes["encoders"], "mask": {"share": "image", "kind": "image"}}
    model = compose(**{**nodes, "encoders": encoders})
    assert model.encoders["mask"] is model.encoders["image"]
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in compose(**nodes).parameters())


def test_a_list_of_adapters_is_concatenated(nodes, make_sample):
    from mmunify.data.processor import Processor

    both = [{"name": "mlp"}, {"name": "qformer", "num_queries": 3, "depth": 1, "dim": 16, "num_heads": 2}]
    model = compose(**{**nodes, "adapters": {"image": both}})
    batch = Processor(model.spec(), model.backbone.tokenizer, model.tokens)([make_sample("a")])
    assert int(batch.media["image"].slots.sum()) == 16 + 3
    assert torch.isfinite(model(batch).total)


def test_encoders_under_several_names_read_their_own_kind(nodes, make_sample):
    from mmunify.data.processor import Processor

    encoders = {
        "image": nodes["encoders"]["image"],
        "second": {"name": "clip", "kind": "image", "config": {**TINY_CLIP, "image_size": 16}},
    }
    adapters = {"image": {"name": "mlp"}, "other": {"name": "linear", "from": "second"}}
    model = compose(**{**nodes, "encoders": encoders, "adapters": adapters})
    batch = Processor(model.spec(), model.backbone.tokenizer, model.tokens)([make_sample("a")])
    assert batch.media["second"].values.shape[-2:] == (16, 16)
    assert int(batch.media["second"].slots.sum()) == 4
    assert torch.isfinite(model(batch).total)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapters": {"image": {"name": "mlp", "from": "imagge"}}}, r"adapters.image.from: no node named 'imagge'"),
        ({"adapters": {"image": {"name": "mpl"}}}, r"did you mean 'mlp'"),
        ({"detokenizers": {"image": {"name": "pixel_decoder", "from": "heads.pic"}}}, r"'heads.pic'"),
        ({"adapters": {"image": {"name": "mlp"}, "b": {"name": "mlp", "from": "image"}}}, r"one list under that node"),
        ({"encoders": {"image": {"share": "nothing"}}}, r"encoders.image.share: no node named 'nothing'"),
        ({"tuners": [{"name": "lora", "match": "*.mlp.*_proj", "on": "backbones"}]}, r"no module named 'backbones'"),
    ],
)
def test_faults_name_the_node(nodes, change, message):
    with pytest.raises(RecipeError, match=message):
        compose(**{**nodes, **change})


AGGREGATOR = {"name": "aggregator", "layers": [1, 2], "num_heads": 2}


def test_layers_that_a_reader_asks_for_reach_its_encoder(nodes, make_sample):
    from mmunify.data.processor import Processor

    model = compose(**{**nodes, "adapters": {"image": AGGREGATOR}})
    assert model.encoders["image"].layers == [1, 2]
    batch = Processor(model.spec(), model.backbone.tokenizer, model.tokens)([make_sample("a")])
    assert torch.isfinite(model(batch).total)
    series = {"name": "series", "parts": [{**AGGREGATOR, "out_dim": 32}, {"name": "linear", "in_dim": 32}]}
    assert compose(**{**nodes, "adapters": {"image": series}}).encoders["image"].layers == [1, 2]


def test_layers_that_an_encoder_does_not_give_are_a_fault(nodes):
    encoders = {"image": {**nodes["encoders"]["image"], "layers": [2]}}
    with pytest.raises(RecipeError, match=r"adapters.image: reads layers \[1, 2\], and encoders.image gives \[2\]"):
        compose(**{**nodes, "encoders": encoders, "adapters": {"image": AGGREGATOR}})


def test_output_strings_are_added_where_a_slot_uses_them(nodes):
    groups = lambda head: compose(**{**nodes, "heads": {"text": {"name": "text"}, "out": head}}).backbone.tokenizer  # noqa: E731
    assert "<img>" in groups({"name": "queries", "kind": "image"}).get_vocab()
    vocabulary = groups({"name": "masks", "kind": "mask"}).get_vocab()
    assert "<img>" not in vocabulary and "[SEG]" in vocabulary


def test_a_detokenizer_is_as_wide_as_what_its_head_makes(nodes):
    head = {"name": "hidden_states", "connector": {"name": "mlp", "out_dim": 24}}
    decoder = {"name": "tiny_diffusion", "size": 32, "dims": [32], "fold": 4}
    model = compose(**{**nodes, "heads": {"image": head}, "detokenizers": {"image": decoder}})
    assert model.heads["image"].output_shape == (256, 24) and model.detokenizers["image"].sizes["in_dim"] == 24


def test_a_bare_adapter_needs_no_strings_around_its_items(nodes):
    bare = {**nodes, "adapters": {"image": {"name": "mlp", "bare": True}}, "heads": {"text": {"name": "text"}}}
    model = compose(**bare)
    vocabulary, slot = model.backbone.tokenizer.get_vocab(), model.spec().media["image"].slot
    assert (slot.opens, slot.closes, slot.layout.num_slots) == ("", "", 16)
    assert "<slot>" in vocabulary and not {"<image>", "</image>"} & vocabulary.keys()


def test_strings_inside_an_item_become_rows_unless_they_are_ordinary_text(nodes):
    def added(newline):
        tiles = {"name": "anyres", "encoder": nodes["encoders"]["image"], "canvases": [[64, 32]], "newline": newline}
        return compose(**{**nodes, "encoders": {"image": tiles}}).backbone.new_rows

    assert len(added("<row>")["layout"]) == 1
    assert "layout" not in added("\n") and "layout" not in added("")
