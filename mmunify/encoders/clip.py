"""CLIP's vision tower, from transformers."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from mmunify.encoders._pictures import single_frame
from mmunify.encoders._towers import CLIP, TowerKind, absolute_layer, build_tower, statistics, tower_grid
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout, Preprocess

MEAN, STD = CLIP.mean, CLIP.std
EVA = TowerKind(
    name="clip",
    title="BLIP-2",
    classes=("Blip2VisionConfig", "Blip2VisionModel"),
    kinds=("blip_2_vision_model",),
    mean=CLIP.mean,
    std=CLIP.std,
)
"""The EVA-CLIP tower of BLIP-2 (https://arxiv.org/abs/2301.12597): no norm before the blocks, q, k and v in one."""


@ENCODERS.register("clip")
class CLIPEncoder(Encoder):
    """Hidden states of a CLIP vision tower (https://arxiv.org/abs/2103.00020), the CLS token dropped.

    Layers above the highest one that is asked for are loaded with the others and then let go: they are neither
    computed nor stored nor trained.

    Args:
        path: hub id or folder, of a vision tower or of a whole CLIP.
        config: CLIPVisionConfig's arguments, for random weights where there is no path; with a path, it describes the
            tower where no weights are read (on the meta device). `model_type: blip_2_vision_model` with
            Blip2VisionConfig's arguments is BLIP-2's EVA-CLIP tower, which takes no path.
        layer: index into the hidden states: 0 = embeddings, -1 = last layer, -2 = LLaVA's choice.
        layers: further indices, for `Features.layers`.
        drop_class: whether the tokens are the patches alone.
        norm: whether CLIP's final norm is applied to the tokens (BLIP-2: layer -1 with norm).
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
        norm: bool = False,
        pooled: Literal["cls", "pooler"] = "cls",
        fit: Literal["pad", "stretch", "crop"] = "pad",
        dtype: str = "float32",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        kind = EVA if path is None and (config or {}).get("model_type") in EVA.kinds else CLIP
        self.model = build_tower(kind, path, config, dtype, revision)
        self.external = path
        settings = self.model.config
        self.layer, self.layers, self.drop_class = layer, list(layers), drop_class
        self.norm, self.pooled = norm, pooled
        self._states = {index: absolute_layer(kind, index, settings.num_hidden_layers) for index in [layer, *layers]}
        self._truncate()
        self.out_dim: int = settings.hidden_size
        self._grid = tower_grid(settings)
        mean, std = statistics(kind, path, revision)
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
        tokens = self.model.post_layernorm(chosen) if self.norm else chosen
        return Features(
            tokens=self._patches(tokens).to(values.dtype),
            grid=self._grid if self.drop_class else None,
            pooled=last[:, 0].to(values.dtype),
            layers={index: self._patches(states[self._states[index]]).to(values.dtype) for index in self.layers},
        )

    def _hidden_states(self, pixels: Float[Tensor, "M C H W"]) -> list[Tensor]:
        first = self.model.embeddings(pixels)
        is_clip = hasattr(self.model, "pre_layrnorm")  # the blocks of BLIP-2's tower take no mask either
        states = [self.model.pre_layrnorm(first) if is_clip else first]
        for block in self.model.encoder.layers:
            states.append(block(states[-1], None) if is_clip else block(states[-1]))
        return states

    def _patches(self, states: Float[Tensor, "M n E"]) -> Float[Tensor, "M _ E"]:
        return states[:, 1:] if self.drop_class else states

    def _truncate(self) -> None:
        """Let go of what no asked-for state needs."""
        if self.pooled == "pooler":
            return
        if not self.norm:
            self.model.post_layernorm = nn.Identity()
        self.model.encoder.layers = self.model.encoder.layers[: max(self._states.values())]
