"""CLIP's vision tower, from transformers."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.encoders._pictures import single_frame
from mmunify.errors import CheckpointError, UserError
from mmunify.layers.weights import check_weights
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout, Preprocess

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
KINDS = ("clip", "clip_vision_model")


@ENCODERS.register("clip")
class CLIPEncoder(Encoder):
    """Hidden states of a CLIP vision tower (https://arxiv.org/abs/2103.00020), the CLS token dropped.

    Layers above the highest one that is asked for are loaded with the others and then let go: they are neither
    computed nor stored nor trained.

    Args:
        path: hub id or folder, of a vision tower or of a whole CLIP.
        config: CLIPVisionConfig's arguments, for random weights where there is no path; with a path, it describes the
            tower where no weights are read (on the meta device).
        layer: index into the hidden states: 0 = embeddings, -1 = last layer, -2 = LLaVA's choice.
        layers: further indices, for `Features.layers`.
        drop_class: whether the tokens are the patches alone.
        pooled: "cls" = the chosen layer's CLS; "pooler" = the last layer's CLS after CLIP's final norm.
        fit: how a picture becomes a square, see `Preprocess`.
        dtype: of the weights; the answer has the type of the pixels.
        revision: of the hub repository.

    Raises:
        UserError: neither path nor config, no CLIP, or a layer that it doesn't have.
        CheckpointError: files that are missing or damaged.
    """

    def __init__(
        self,
        path: str | None = None,
        config: dict | None = None,
        layer: int = -2,
        layers: list[int] = [],
        drop_class: bool = True,
        pooled: Literal["cls", "pooler"] = "cls",
        fit: Literal["pad", "stretch", "crop"] = "pad",
        dtype: str = "float32",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self.model = _build_tower(path, config, dtype, revision)
        self.external = path
        settings = self.model.config
        self.layer, self.layers, self.drop_class, self.pooled = layer, list(layers), drop_class, pooled
        self._states = {index: _absolute(index, settings.num_hidden_layers) for index in [layer, *layers]}
        self._truncate()
        self.out_dim: int = settings.hidden_size
        side = settings.image_size // settings.patch_size
        self._grid = (side, side)
        mean, std = _statistics(path, revision)
        size = (settings.image_size, settings.image_size)
        self.preprocess = Preprocess(size=size, mean=mean, std=std, fit=fit)

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """The raster of patches, whatever the extent; with CLS in front it is no raster."""
        rows, columns = self._grid
        return Layout.of(rows * columns, self._grid) if self.drop_class else Layout.of(rows * columns + 1)

    def forward(self, values: Float[Tensor, "M F C H W"], context: Context) -> Features:
        """Pictures (M, 1, 3, H, W) -> tokens (M, N, E), pooled (M, E)."""
        states = self._hidden_states(single_frame(values, "clip"))
        chosen = states[self._states[self.layer]]
        last = self.model.post_layernorm(states[-1]) if self.pooled == "pooler" else chosen
        return Features(
            tokens=self._patches(chosen).to(values.dtype),
            grid=self._grid if self.drop_class else None,
            pooled=last[:, 0].to(values.dtype),
            layers={index: self._patches(states[self._states[index]]).to(values.dtype) for index in self.layers},
        )

    def _hidden_states(self, pixels: Float[Tensor, "M C H W"]) -> list[Tensor]:
        states = [self.model.pre_layrnorm(self.model.embeddings(pixels))]
        for block in self.model.encoder.layers:
            states.append(block(states[-1], None))
        return states

    def _patches(self, states: Float[Tensor, "M n E"]) -> Float[Tensor, "M _ E"]:
        return states[:, 1:] if self.drop_class else states

    def _truncate(self) -> None:
        """Let go of what no asked-for state needs."""
        if self.pooled == "pooler":
            return
        self.model.post_layernorm = nn.Identity()
        self.model.encoder.layers = self.model.encoder.layers[: max(self._states.values())]


def _absolute(layer: int, depth: int) -> int:
    if not -depth - 1 <= layer <= depth:
        raise UserError(
            f"clip has no layer {layer}: its {depth} layers make hidden states 0..{depth}, "
            f"or {-depth - 1}..-1 from the end"
        )
    return layer % (depth + 1)


def _build_tower(path: str | None, config: dict | None, dtype: str, revision: str | None) -> Any:
    """Weights of `path`; random ones, or on the meta device none at all, of a configuration."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    on_meta = torch.get_default_device().type == "meta"
    if path is None or (on_meta and config is not None):
        settings = _given_settings(config)
    else:
        settings = _read_settings(path, revision)
    described = CLIPVisionConfig(**{key: value for key, value in settings.items() if key != "model_type"})
    if path is None or on_meta:
        return CLIPVisionModel(described)
    return _load_tower(path, described, dtype, revision)


def _given_settings(config: dict | None) -> dict[str, Any]:
    if config is None:
        raise UserError(
            "a clip encoder needs path: (hub id or folder) or config: (arguments of CLIPVisionConfig); got neither"
        )
    return dict(config)


def _read_settings(path: str, revision: str | None) -> dict[str, Any]:
    settings = _read_json(path, "config.json", revision)
    kind = settings.get("model_type")
    if kind not in KINDS:
        raise UserError(f"{path!r} holds a model of type {kind!r}, not a CLIP vision tower ({' or '.join(KINDS)})")
    return settings.get("vision_config", settings)


def _load_tower(path: str, config: Any, dtype: str, revision: str | None) -> Any:
    from transformers import CLIPVisionModel

    if Path(path).is_dir():
        check_weights(path)
    hub: dict[str, Any] = {"revision": revision, "use_safetensors": True, "output_loading_info": True}
    try:
        loaded: Any = CLIPVisionModel.from_pretrained(path, config=config, dtype=getattr(torch, dtype), **hub)
    except Exception as error:  # OSError, RuntimeError on shapes, ...: all mean that the files can't be used
        raise CheckpointError(f"the clip tower {path!r} cannot be loaded: {error}") from error
    model, report = loaded
    if report["missing_keys"]:
        names = sorted(report["missing_keys"])
        raise CheckpointError(f"{path!r} lacks {len(names)} tensors of its vision tower, first {names[0]!r}")
    return model


def _statistics(path: str | None, revision: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the folder's image processor, or CLIP's own."""
    local = path is not None and (Path(path).is_dir() or torch.get_default_device().type != "meta")
    found = _read_json(str(path), "preprocessor_config.json", revision, required=False) if local else {}
    return tuple(found.get("image_mean", MEAN)), tuple(found.get("image_std", STD))


def _read_json(path: str, name: str, revision: str | None, required: bool = True) -> dict[str, Any]:
    from transformers.utils import cached_file

    try:
        file = cached_file(path, name, revision=revision, _raise_exceptions_for_missing_entries=required)
    except OSError as error:
        raise CheckpointError(f"the clip tower {path!r} cannot be found: {error}") from error
    if file is None:
        return {}
    with open(file, encoding="utf-8") as stream:
        return json.load(stream)
