"""The layout of BLIP-2 (https://arxiv.org/abs/2301.12597) in transformers, with a decoder as its language model."""

from collections.abc import Mapping
from typing import Any

from mmunify.checkpoint.family import Family, Tree, arguments, backbone_node, pixel_settings
from mmunify.checkpoint.names import Names
from mmunify.errors import CheckpointError
from mmunify.model import UnifiedModel

_LAYER, _BLOCK = "qformer.encoder.layer.*.", "adapters.image.blocks.*."
_PIECES = [
    ("attention.attention.", "attention."),
    ("attention.output.dense.", "attention.output."),
    ("attention.output.LayerNorm.", "attention_norm."),
    ("crossattention.attention.", "cross."),
    ("crossattention.output.dense.", "cross.output."),
    ("crossattention.output.LayerNorm.", "cross_norm."),
    ("intermediate_query.dense.", "feed_forward.expand."),
    ("output_query.dense.", "feed_forward.reduce."),
    ("output_query.LayerNorm.", "feed_forward_norm."),
]
_TABLE = [
    ("vision_model.", "encoders.image.model."),
    ("query_tokens", "adapters.image.queries"),
    ("qformer.layernorm.", "adapters.image.norm."),
    # what both attentions call `output` stands before what they call by the name of a projection
    *((_LAYER + theirs, _BLOCK + ours) for theirs, ours in sorted(_PIECES, key=lambda piece: -len(piece[1]))),
    ("language_projection.", "adapters.image.project."),
    ("language_model.", "backbone.lm."),
]


def _nodes(config: Any, pixels: Mapping[str, Any]) -> Tree:
    _require_ours(config)
    reader = config.qformer_config
    return {
        "encoders": {
            "image": {
                "name": "clip",
                "config": arguments(config.vision_config),
                "layer": -1,
                "drop_class": False,
                "norm": True,
                "pooled": "cls",
                "fit": "stretch",
            }
        },
        "adapters": {
            "image": {
                "name": "qformer",
                "num_queries": config.num_query_tokens,
                "depth": reader.num_hidden_layers,
                "dim": reader.hidden_size,
                "num_heads": reader.num_attention_heads,
                "cross_attention_frequency": reader.cross_attention_frequency,
                "dropout": reader.hidden_dropout_prob,
                "bare": True,
            }
        },
        "backbone": backbone_node(config.text_config, config.dtype),
        "heads": {"text": {"name": "text"}},
    }


def _require_ours(config: Any) -> None:
    """Refuse what our Q-Former can't be.

    Raises:
        CheckpointError: an encoder-decoder, or a Q-Former of other proportions than BERT's.
    """
    reader = config.qformer_config
    if not config.use_decoder_only_language_model:
        raise CheckpointError(f"a language model of type {config.text_config.model_type!r} is no decoder; ours are")
    if reader.intermediate_size != 4 * reader.hidden_size or reader.use_qformer_text_input:
        raise CheckpointError(
            f"a Q-Former with feed-forwards {reader.intermediate_size} wide for states of {reader.hidden_size} and "
            f"use_qformer_text_input={reader.use_qformer_text_input}; ours are four times as wide and read no text"
        )


def _config(model: UnifiedModel) -> Tree:
    encoder: Any = model.encoders["image"]
    reader: Any = model.adapters["image"]
    crossed = [index for index, block in enumerate(reader.blocks) if block.cross is not None]
    return {
        "vision_config": arguments(encoder.model.config),
        "num_query_tokens": reader.num_queries,
        "qformer_config": {
            "num_hidden_layers": len(reader.blocks),
            "hidden_size": reader.queries.shape[1],
            "intermediate_size": 4 * reader.queries.shape[1],
            "num_attention_heads": reader.blocks[0].attention.num_heads,
            "cross_attention_frequency": crossed[1] if len(crossed) > 1 else len(reader.blocks),
            "encoder_hidden_size": encoder.out_dim,
            "hidden_dropout_prob": reader.dropout.p,
            "attention_probs_dropout_prob": reader.dropout.p,
        },
    }


def _processor(model: UnifiedModel, tokenizer: Any, image: str) -> Any:
    import transformers

    settings = pixel_settings(model)
    return transformers.BlipImageProcessor(**{key: settings[key] for key in ("size", "image_mean", "image_std")})


BLIP2 = Family(
    model_type="blip-2",
    model_class="Blip2ForConditionalGeneration",
    parts=(("clip",), "qformer"),
    names=Names(_TABLE),
    nodes=_nodes,
    config=_config,
    processor=_processor,
)
