"""The layouts of LLaVA-1.5 (https://arxiv.org/abs/2310.03744) and LLaVA-NeXT in transformers."""

from collections.abc import Mapping
from typing import Any

from mmunify.checkpoint.family import NEWLINE, Family, Tree, arguments, backbone_node, fit_of, pixel_settings
from mmunify.checkpoint.names import Names
from mmunify.errors import CheckpointError
from mmunify.model import UnifiedModel

TOWERS = {"clip_vision_model": "clip", "siglip_vision_model": "siglip"}
"""Their `model_type` of a tower -> our encoder."""


def _table(tower: str) -> list[tuple[str, str]]:
    return [
        ("model.vision_tower.", f"{tower}.model."),
        ("model.multi_modal_projector.linear_1.", "adapters.image.layers.0."),
        ("model.multi_modal_projector.linear_2.", "adapters.image.layers.2."),
        ("model.language_model.", "backbone.lm.model."),
        ("lm_head.", "backbone.lm.lm_head."),
    ]


def _nodes(config: Any, pixels: Mapping[str, Any]) -> Tree:
    return {
        "encoders": {"image": {**_tower(config), "fit": fit_of(pixels)}},
        "adapters": {"image": {"name": "mlp", "depth": 2, "bare": True}},
        "backbone": backbone_node(config.text_config, config.dtype, config.tie_word_embeddings),
        "heads": {"text": {"name": "text"}},
    }


def _next_nodes(config: Any, pixels: Mapping[str, Any]) -> Tree:
    canvases = [[width, height] for height, width in config.image_grid_pinpoints]
    wrapper = {"name": "anyres", "encoder": _tower(config), "canvases": canvases, "newline": NEWLINE}
    return {**_nodes(config, pixels), "encoders": {"image": wrapper}}


def _tower(config: Any) -> Tree:
    """Their tower, whole: the layers above the one that is read stay, so that the way back gives the same files."""
    kind, layer = config.vision_config.model_type, config.vision_feature_layer
    if kind not in TOWERS or not isinstance(layer, int):
        raise CheckpointError(
            f"a tower of type {kind!r} read at layer {layer}: clip and siglip towers are read, at one layer"
        )
    if config.projector_hidden_act != "gelu":
        raise CheckpointError(f"a projector with {config.projector_hidden_act!r} between its linears; ours has gelu")
    keeps_class = config.vision_feature_select_strategy == "full"
    kept: Tree = {"pooled": "head"} if getattr(config.vision_config, "vision_use_head", False) else {}
    if kind == "clip_vision_model":
        kept = {"pooled": "pooler", "drop_class": not keeps_class}
    return {"name": TOWERS[kind], "config": arguments(config.vision_config), "layer": layer, **kept}


def _config(model: UnifiedModel) -> Tree:
    encoder, backbone = _inner(model), model.backbone
    return {
        "tie_word_embeddings": backbone.is_tied,  # type: ignore[union-attr]
        "vision_config": _vision_config(encoder),
        "vision_feature_layer": encoder.layer if encoder.pooled in ("pooler", "head") else -1,
        "vision_feature_select_strategy": "default" if getattr(encoder, "drop_class", False) else "full",
        "image_seq_length": encoder.layout().num_slots,
    }


def _next_config(model: UnifiedModel) -> Tree:
    preprocess: Any = model.encoders["image"].preprocess
    return {**_config(model), "image_grid_pinpoints": [[height, width] for width, height in preprocess.canvases]}


def _vision_config(encoder: Any) -> Tree:
    """Their configuration of our tower; one whose upper layers were let go becomes a shorter tower."""
    settings = arguments(encoder.model.config)
    if encoder.pooled in ("pooler", "head"):
        return settings
    shorter = {"num_hidden_layers": len(encoder.model.encoder.layers)}
    return {**settings, **shorter, **({"vision_use_head": False} if hasattr(encoder.model, "head") else {})}


def _inner(model: UnifiedModel) -> Any:
    encoder: Any = model.encoders["image"]
    return getattr(encoder, "encoder", encoder)


def _processor(model: UnifiedModel, tokenizer: Any, image: str) -> Any:
    import transformers

    pictures = transformers.LlavaImageProcessor(**pixel_settings(model))
    return transformers.LlavaProcessor(pictures, tokenizer, image_token=image, **_places(model))


def _next_processor(model: UnifiedModel, tokenizer: Any, image: str) -> Any:
    import transformers

    canvases = _next_config(model)["image_grid_pinpoints"]
    settings = {**pixel_settings(model), "do_center_crop": True, "do_pad": True}
    settings["size"] = {"shortest_edge": settings["crop_size"]["height"]}
    pictures = transformers.LlavaNextImageProcessor(**settings, image_grid_pinpoints=canvases)
    return transformers.LlavaNextProcessor(pictures, tokenizer, image_token=image, **_places(model))


def _places(model: UnifiedModel) -> Tree:
    """From which their processor counts the places of a picture."""
    encoder: Any = _inner(model)
    strategy = "default" if getattr(encoder, "drop_class", False) else "full"
    prefixed = int(hasattr(encoder, "drop_class"))
    return {
        "patch_size": encoder.model.config.patch_size,
        "vision_feature_select_strategy": strategy,
        "num_additional_image_tokens": prefixed,
    }


LLAVA = Family(
    model_type="llava",
    model_class="LlavaForConditionalGeneration",
    parts=(("clip", "siglip"), "mlp"),
    names=Names(_table("encoders.image")),
    nodes=_nodes,
    config=_config,
    processor=_processor,
)
LLAVA_NEXT = Family(
    model_type="llava_next",
    model_class="LlavaNextForConditionalGeneration",
    parts=(("anyres",), "mlp"),
    names=Names([("model.image_newline", "backbone.new_rows.layout"), *_table("encoders.image.encoder")]),
    nodes=_next_nodes,
    config=_next_config,
    processor=_next_processor,
)
