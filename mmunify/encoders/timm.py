"""Any timm model as an encoder: vision transformers, XCiT, convolutional towers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.encoders._pictures import single_frame
from mmunify.errors import CheckpointError, UserError
from mmunify.layers.weights import check_weights
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS, did_you_mean
from mmunify.types import Features, Layout, Preprocess

FILES = ("config.json", "model.safetensors")


@ENCODERS.register("timm")
class TimmEncoder(Encoder):
    """The unpooled features of any timm model (https://github.com/huggingface/pytorch-image-models), as a raster.

    Class, distillation and register tokens are dropped; `pooled` is what the model's own head would read.

    Args:
        path: folder in timm's Hugging Face format, or hub id; its weights are loaded.
        model: timm's name of an architecture, with a tag for weights ("vit_small_patch14_dinov2.lvd142m"); with a
            path, it describes the tower where no weights are read (on the meta device).
        pretrained: download the weights of `model`.
        model_args: further arguments of the architecture (embed_dim, depth, img_size, ...).
        layer: block (of a convolutional tower: stage) to read, negative from the end; the ones above are let go.
            None = the model's final features.
        layers: further indices, for `Features.layers`.
        norm: whether the model's final norm is applied to `layer` and `layers`.
        size: height and width of the pictures; None = the model's own.
        fit: how a picture becomes a square, see `Preprocess`.
        revision: of the hub repository.

    Raises:
        UserError: neither path nor model, unknown architecture or argument, or a layer that it doesn't have.
        CheckpointError: files that are missing or damaged.
    """

    def __init__(
        self,
        path: str | None = None,
        model: str | None = None,
        pretrained: bool = False,
        model_args: dict = {},
        layer: int | None = None,
        layers: list[int] = [],
        norm: bool = True,
        size: int | None = None,
        fit: Literal["pad", "stretch", "crop"] = "pad",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        source, weights = _source(path, model, pretrained, revision)
        arguments = _with_size(source, dict(model_args), size)
        self.model = _create(source, weights, arguments)
        self.external = path
        self.norm, self.layer, self.layers = norm, layer, list(layers)
        stages = list(self.model.feature_info)
        self._blocks = {index: _absolute(index, len(stages)) for index in [layer, *layers] if index is not None}
        read = stages[-1 if layer is None else self._blocks[layer]]
        if layer is not None:
            self.model.prune_intermediate_layers(sorted(set(self._blocks.values())), prune_norm=not norm)
        self.out_dim: int = self.model.num_features if layer is None else read["num_chs"]
        self.preprocess = _preprocess(self.model, arguments, size, fit)
        height, width = self.preprocess.size
        self._grid = (height // read["reduction"], width // read["reduction"])

    def save_folder(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write config.json and model.safetensors in timm's format.

        Raises:
            UserError: layers were let go (`layer:`), so the model isn't whole.
        """
        if self.layer is not None:
            raise UserError(f"a timm encoder with layer={self.layer} let layers go; only layer: null can be written")
        return save_timm(self.model, folder, dtype)

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """The raster, whatever the extent."""
        rows, columns = self._grid
        return Layout.of(rows * columns, self._grid)

    def forward(self, values: Float[Tensor, "M F C H W"], context: Context) -> Features:
        """Pictures (M, 1, 3, H, W) -> tokens (M, N, E), pooled (M, P)."""
        pixels = single_frame(values, "timm")
        rasters = self._intermediates(pixels)
        layers = {index: rasters[self._blocks[index]] for index in self.layers}
        if self.layer is not None:
            tokens = rasters[self._blocks[self.layer]]
            return Features(tokens=tokens, grid=self._grid, pooled=tokens.mean(dim=1), layers=layers)
        final = self.model.forward_features(pixels)
        pooled = self.model.forward_head(final, pre_logits=True)
        return Features(tokens=self._raster(final), grid=self._grid, pooled=pooled, layers=layers)

    def _intermediates(self, pixels: Float[Tensor, "M C H W"]) -> dict[int, Tensor]:
        """Tokens of every block that is asked for."""
        if not self._blocks:
            return {}
        blocks = sorted(set(self._blocks.values()))
        rasters = self.model.forward_intermediates(
            pixels, indices=blocks, norm=self.norm, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        return {block: raster.flatten(2).transpose(1, 2) for block, raster in zip(blocks, rasters, strict=True)}

    def _raster(self, features: Tensor) -> Float[Tensor, "M N E"]:
        """Final features of any shape -> tokens in raster order."""
        if features.dim() == 4:
            last = getattr(self.model, "output_fmt", "NCHW") == "NHWC" or features.shape[1] != self.out_dim
            tokens = features.flatten(1, 2) if last else features.flatten(2).transpose(1, 2)
        else:
            tokens = features[:, getattr(self.model, "num_prefix_tokens", 0) :]
        rows, columns = self._grid
        if tokens.shape[1] != rows * columns:
            raise UserError(
                f"the timm tower made {tokens.shape[1]} tokens where its layout says {rows}x{columns}: "
                f"feed it pictures of {self.preprocess.size}, or choose another size"
            )
        return tokens


def save_timm(
    model: Any,
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    model_args: Mapping[str, Any] | None = None,
) -> Path:
    """Write a timm model as config.json and model.safetensors, as timm's "local-dir:" and "hf-hub:" read them.

    Args:
        model: what `timm.create_model` made, unpruned.
        folder: where to; made if missing.
        dtype: of the stored weights; float16 halves the file and is loaded back as float32.
        model_args: arguments that it was made with; None = as timm remembers them.

    Raises:
        UserError: no timm model.
    """
    from safetensors.torch import save_file

    described: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    if "architecture" not in described:
        raise UserError(f"save_timm writes models of timm.create_model; {type(model).__name__} is none")
    arguments = dict(getattr(model, "_model_args", {}) if model_args is None else model_args)
    config = {
        "architecture": described["architecture"],
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "model_args": arguments,
        "pretrained_cfg": _portable(described, arguments, model.num_classes),
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {k: (v.to(dtype) if v.is_floating_point() else v).contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _portable(described: Mapping[str, Any], arguments: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """What `pretrained_cfg` says of the pictures, without where the original weights came from."""
    kept = ("interpolation", "crop_pct", "mean", "std", "first_conv", "classifier", "fixed_input_size")
    size = _square(arguments["img_size"]) if "img_size" in arguments else tuple(described["input_size"][1:])
    numbers = {key: described[key] for key in kept if key in described}
    return {**numbers, "input_size": [3, *size], "num_classes": num_classes}


def _source(path: str | None, model: str | None, pretrained: bool, revision: str | None) -> tuple[str, bool]:
    """timm's name of what to build, and whether weights are loaded."""
    on_meta = torch.get_default_device().type == "meta"
    if model is not None and (path is None or on_meta):
        return model, pretrained and not on_meta
    if path is None:
        raise UserError("a timm encoder needs path: (folder or hub id) or model: (timm's name); got neither")
    folder = Path(path) if Path(path).is_dir() else _download(path, revision)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no config.json: it is no timm folder (see its save_folder)")
    if not on_meta:
        check_weights(folder)
    return f"local-dir:{folder}", not on_meta


def _download(path: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # no such repository, no network, no valid name: one answer for the user
        raise CheckpointError(f"timm path {path!r} is neither a folder nor a hub id in reach: {error}") from error


def _create(source: str, weights: bool, arguments: dict[str, Any]) -> Any:
    import timm

    name = source.split(".")[0]
    if not source.startswith("local-dir:") and not timm.is_model(name):
        raise UserError(f"timm has no model named {name!r}{did_you_mean(name, timm.list_models())}")
    try:
        return timm.create_model(source, pretrained=weights, **{"num_classes": 0, **arguments})
    except TypeError as error:
        raise UserError(f"timm model {source!r} refuses model_args {arguments}: {error}") from error
    except (RuntimeError, OSError, KeyError) as error:
        raise CheckpointError(f"timm model {source!r} cannot be loaded with model_args {arguments}: {error}") from error


def _with_size(source: str, arguments: dict[str, Any], size: int | None) -> dict[str, Any]:
    """Towers with a table of positions take their size as an argument."""
    if size is None or "img_size" in arguments:
        return arguments
    return {**arguments, "img_size": size} if _described(source).get("fixed_input_size", False) else arguments


def _described(source: str) -> dict[str, Any]:
    """`pretrained_cfg` of a folder or of an architecture."""
    if source.startswith("local-dir:"):
        return _read_config(source).get("pretrained_cfg", {})
    import timm

    found = timm.get_pretrained_cfg(source, allow_unregistered=True)
    return {} if found is None else found.to_dict()


def _read_config(source: str) -> dict[str, Any]:
    return json.loads((Path(source.removeprefix("local-dir:")) / "config.json").read_text(encoding="utf-8"))


def _preprocess(model: Any, arguments: Mapping[str, Any], size: int | None, fit: str) -> Preprocess:
    described = model.pretrained_cfg
    chosen = size or arguments.get("img_size") or tuple(described["input_size"][1:])
    return Preprocess(
        size=_square(chosen),
        mean=tuple(described["mean"]),
        std=tuple(described["std"]),
        fit=fit,  # type: ignore[arg-type]
    )


def _square(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _absolute(layer: int, depth: int) -> int:
    if not -depth <= layer < depth:
        raise UserError(
            f"the timm tower has no layer {layer}: it has {depth}, counted 0..{depth - 1} or {-depth}..-1 from the end"
        )
    return layer % depth
