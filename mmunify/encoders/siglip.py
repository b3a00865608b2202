"""The vision tower of SigLIP, and of SigLIP2 where its resolution is fixed, from transformers."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from mmunify.encoders._pictures import single_frame
from mmunify.encoders._towers import SIGLIP, absolute_layer, build_tower, statistics, tower_grid
from mmunify.errors import UserError
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout, Preprocess


@ENCODERS.register("siglip")
class SigLIPEncoder(Encoder):
    """Hidden states of a SigLIP tower (https://arxiv.org/abs/2303.15343, https://arxiv.org/abs/2502.14786).

    There is no class token. Layers above the highest one that is asked for are loaded with the others and then let go:
    they are neither computed nor stored nor trained.

    Args:
        path: hub id or folder, of a vision tower or of a whole SigLIP.
        config: SiglipVisionConfig's arguments, for random weights where there is no path; with a path, it describes
            the tower where no weights are read (on the meta device).
        layer: index into the hidden states: 0 = embeddings, -1 = last layer, -2 = LLaVA-OneVision's choice.
        layers: further indices, for `Features.layers`.
        norm: whether the tower's final norm is applied to the tokens (PaliGemma: layer -1 with norm).
        pooled: "mean" of the tokens, or what the tower's own attention "head" makes of the last layer.
        fit: how a picture becomes a square, see `Preprocess`.
        dtype: of the weights; the answer has the type of the pixels.
        revision: of the hub repository.

    Raises:
        UserError: neither path nor config, no SigLIP, or a layer or head that it doesn't have.
        CheckpointError: files that are missing or damaged.
    """

    def __init__(
        self,
        path: str | None = None,
        config: dict | None = None,
        layer: int = -2,
        layers: list[int] = [],
        norm: bool = False,
        pooled: Literal["mean", "head"] = "mean",
        fit: Literal["pad", "stretch", "crop"] = "pad",
        dtype: str = "float32",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self.model = build_tower(SIGLIP, path, config, dtype, revision)
        self.external = path
        settings = self.model.config
        self.layer, self.layers, self.norm, self.pooled = layer, list(layers), norm, pooled
        self._states = {i: absolute_layer(SIGLIP, i, settings.num_hidden_layers) for i in [layer, *layers]}
        self._truncate()
        self.out_dim: int = settings.hidden_size
        self._grid = tower_grid(settings)
        mean, std = statistics(SIGLIP, path, revision)
        self.preprocess = Preprocess(size=(settings.image_size, settings.image_size), mean=mean, std=std, fit=fit)

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """The raster of patches, whatever the extent."""
        return Layout.of(self._grid[0] * self._grid[1], self._grid)

    def forward(self, values: Float[Tensor, "M F C H W"], context: Context) -> Features:
        """Pictures (M, 1, 3, H, W) -> tokens (M, N, E), pooled (M, E)."""
        states = self._hidden_states(single_frame(values, "siglip"))
        chosen = states[self._states[self.layer]]
        tokens = self.model.post_layernorm(chosen) if self.norm else chosen
        pooled = self.model.head(self.model.post_layernorm(states[-1])) if self.pooled == "head" else tokens.mean(1)
        return Features(
            tokens=tokens.to(values.dtype),
            grid=self._grid,
            pooled=pooled.to(values.dtype),
            layers={index: states[self._states[index]].to(values.dtype) for index in self.layers},
        )

    def _hidden_states(self, pixels: Float[Tensor, "M C H W"]) -> list[Tensor]:
        states = [self.model.embeddings(pixels)]
        for block in self.model.encoder.layers:
            states.append(block(states[-1], None))
        return states

    def _truncate(self) -> None:
        """Let go of what no asked-for state needs."""
        if self.pooled == "head":
            if not self.model.use_head:
                raise UserError("this siglip tower has no attention head (vision_use_head: false); use pooled: mean")
            return
        self.model.head = nn.Identity()
        self.model.encoder.layers = self.model.encoder.layers[: max(self._states.values())]
        if not self.norm:
            self.model.post_layernorm = nn.Identity()
