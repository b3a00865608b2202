"""What nodes say of each other."""

import pytest

from mmunify.recipe.fields import ModelNodes
from mmunify.recipe.wiring import media_kinds, sources, wiring_faults

CLIP = {"name": "clip"}
BACKBONE = {"name": "huggingface"}
MLP = {"name": "mlp"}


def messages(**groups):
    return [str(fault) for fault in wiring_faults(ModelNodes(**groups))]


def test_a_node_reads_that_of_its_own_name():
    assert messages(encoders={"image": CLIP}, adapters={"image": MLP}, backbone=BACKBONE) == []
    assert sources("adapters", "image", MLP) == ["encoders.image"]
    assert sources("detokenizers", "image", {"name": "x"}) == ["heads.image"]
    assert sources("heads", "image", {"name": "queries"}) == ["encoders.image"]
    assert sources("heads", "text", {"name": "text"}) == []


@pytest.mark.parametrize("source", ["clip", "encoders.clip", ["clip", "encoders.image"]])
def test_from_names_nodes_with_and_without_their_group(source):
    nodes = {"clip": CLIP, "image": CLIP}
    faults = messages(encoders=nodes, adapters={"image": {**MLP, "from": source}, "clip": MLP}, backbone=BACKBONE)
    assert [fault for fault in faults if "from" in fault.partition(":")[0]] == []


def test_unknown_sources():
    found = messages(
        encoders={"image": CLIP},
        adapters={"image": {**MLP, "from": "imgae"}, "video": MLP},
        heads={"image": {"name": "queries", "target": "vidoe"}},
        detokenizers={"image": {"name": "pixel_decoder", "from": "image"}, "video": {"name": "pixel_decoder"}},
        backbone=BACKBONE,
    )
    assert [text.partition(" Known")[0] for text in found] == [
        "model.adapters.image.from: no node named 'encoders.imgae'; did you mean 'encoders.image'?",
        "model.adapters.video.from: no node named 'encoders.video'; did you mean 'encoders.image'?",
        "model.heads.image.target: no node named 'encoders.vidoe'; did you mean 'encoders.image'?",
        "model.detokenizers.image.from: no node named 'image'; did you mean 'heads.image'?",
        "model.detokenizers.video.from: no node named 'heads.video'; did you mean 'heads.image'?",
    ]


def test_share_and_kind():
    encoders = {"image": CLIP, "video": {"share": "imgae"}, "self": {"share": "self"}}
    adapters = {"image": MLP, "video": {**MLP, "kind": "vidoe"}, "self": {**MLP, "kind": "self"}}
    found = messages(encoders=encoders, adapters=adapters, backbone=BACKBONE)
    assert [text.partition(" Known")[0] for text in found] == [
        "model.encoders.video.share: no other node named 'imgae'; did you mean 'image'?",
        "model.encoders.self.share: no other node named 'self'.",
        "model.adapters.video.kind: no kind named 'vidoe'; did you mean 'video'?",
    ]


def test_an_encoder_that_nobody_reads():
    assert messages(encoders={"image": CLIP, "sam": CLIP}, adapters={"image": MLP}, backbone=BACKBONE) == [
        "model.encoders.sam: nobody reads it; add model.adapters.sam, or a node that says from: sam"
    ]


@pytest.mark.parametrize(
    "groups",
    [
        {"detokenizers": {"image": {"name": "pixel_decoder", "from": "encoders.sam"}}},
        {"heads": {"mask": {"name": "text", "from": "sam"}}, "backbone": BACKBONE},
        {"heads": {"mask": {"name": "queries", "target": "sam"}}, "backbone": BACKBONE},
    ],
)
def test_heads_and_detokenizers_read_encoders_too(groups):
    assert messages(encoders={"sam": CLIP}, **groups) == []


def test_adapters_heads_and_tuners_need_a_backbone():
    assert messages(encoders={"image": CLIP}, adapters={"image": MLP}, heads={"text": {"name": "text"}}) == [
        "model.backbone: is missing, and adapters and heads need one"
    ]
    decoder = {
        "detokenizers": {"image": {"name": "pixel_decoder", "from": "encoders.image"}},
        "encoders": {"image": CLIP},
    }
    assert messages(**decoder, tuners=[{"name": "lora", "on": "encoders.image"}]) == []
    assert messages(**decoder, tuners=[{"name": "lora"}]) == ["model.backbone: is missing, and tuners need one"]


def test_kinds_of_media():
    model = ModelNodes(
        encoders={"image": CLIP, "sam": {**CLIP, "kind": "image"}, "frames": {**CLIP, "kind": "video"}, "text": CLIP},
        heads={"text": {"name": "text"}, "balance": {"name": "x"}, "audio": {"name": "queries"}},
    )
    assert media_kinds(model) == ("image", "video", "audio")
    assert media_kinds(ModelNodes(backbone=BACKBONE)) == ("image",)


def test_masks_and_boxes_are_kinds_of_outputs_and_no_media():
    heads = {"seg": {"name": "masks", "kind": "mask"}, "where": {"name": "boxes", "kind": "box"}}
    model = ModelNodes(encoders={"image": {"name": "clip"}}, heads=heads, backbone={"name": "huggingface"})
    assert media_kinds(model) == ("image",) and wiring_faults(model) == []
