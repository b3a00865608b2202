"""One frozen vision transformer for all kinds of media, a tokenizer for each (OneLLM)."""

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from mmunify.encoders._tokenizers import make_tokenizer, preprocess_kind
from mmunify.encoders._towers import CLIP, build_tower, statistics, tower_grid
from mmunify.errors import DataError, UserError
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout, Preprocess


@ENCODERS.register("universal")
class UniversalEncoder(Encoder):
    """OneLLM's universal encoder (https://arxiv.org/abs/2312.03700): all tokens of a CLIP tower, class token included.

    Pictures go through the tower's own patches; the mean over an item's pictures is its features. Sound, motion
    signals, brain scans and point clouds have tokenizers with positions of their own, and share class token and blocks.
    A node's `kind` says which tokenizer reads it; nodes that `share:` this one are read by the same module.

    Args:
        path: hub id or folder of a CLIP (OneLLM: ViT-L/14, frozen).
        config: CLIPVisionConfig's arguments, for random weights where there is no path.
        modalities: kind -> arguments of its tokenizer: "image", "video" (num_frames), "rgbd", "rgbn" (pairs of
            pictures), "audio" (bins, frames, kernel, stride), "imu" (channels, length, kernel, stride), "fmri" (voxels,
            num_tokens), "point" (num_points, channels, num_groups, group_size).
        fit: how a picture becomes a square, see `Preprocess`.
        dtype: of the tower's weights; the answer has the type of the values.
        revision: of the hub repository.

    Raises:
        UserError: no modality, or one without a tokenizer; neither path nor config.
        CheckpointError: files that are missing or damaged.
    """

    added = (*Encoder.added, "tokenizers.*")

    def __init__(
        self,
        path: str | None = None,
        config: dict | None = None,
        modalities: dict[str, dict[str, Any] | None] = {"image": {}},  # noqa: B006
        fit: Literal["pad", "stretch", "crop"] = "pad",
        dtype: str = "float32",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        if not modalities:
            raise UserError("a universal encoder needs at least one modality, such as modalities: {image: {}}")
        self.model = build_tower(CLIP, path, config, dtype, revision)
        self.external = path
        settings = self.model.config
        self.out_dim: int = settings.hidden_size
        made = {kind: make_tokenizer(kind, self.out_dim, arguments or {}) for kind, arguments in modalities.items()}
        self.kinds = tuple(made)
        self.tokenizers = nn.ModuleDict({kind: tokenizer for kind, tokenizer in made.items() if tokenizer is not None})
        rows, columns = tower_grid(settings)
        self._num_patches = rows * columns
        mean, std = statistics(CLIP, path, revision)
        size = (settings.image_size, settings.image_size)
        picture = Preprocess(size=size, mean=mean, std=std, fit=fit)
        self._preprocess = {
            kind: preprocess_kind(kind, tokenizer, picture, modalities[kind]) for kind, tokenizer in made.items()
        }
        self.preprocess = self._preprocess[self.kinds[0]]

    def preprocess_of(self, kind: str) -> Preprocess:
        """Pictures, clips, spectrograms, or numbers as they are.

        Raises:
            UserError: a kind without a tokenizer.
        """
        return self._preprocess[self._known(kind)]

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """Class token and tokens of the first modality, whatever the extent."""
        return self.layout_of(self.kinds[0])

    def layout_of(self, kind: str, extent: tuple[int, int] | None = None) -> Layout:
        """Class token and tokens of a kind; raises as `preprocess_of` does."""
        known = self._known(kind)
        if known in self.tokenizers:
            return Layout.of(1 + self.tokenizers[known].num_tokens)  # type: ignore[operator]
        return Layout.of(1 + self._num_patches)

    def forward(self, values: Float[Tensor, "M ..."], context: Context) -> Features:
        """Values of the node's kind -> tokens (M, N, E), pooled (M, E).

        Raises:
            DataError: a kind without a tokenizer.
        """
        if context.kind not in self.kinds:
            raise DataError(f"this universal encoder reads {list(self.kinds)}, and got a medium of {context.kind!r}")
        if context.kind in self.tokenizers:
            first = self.model.embeddings.class_embedding
            tokens = self._blocks(self.tokenizers[context.kind](values, first.to(values.dtype)).to(first.dtype))
        else:
            tokens = self._blocks(self.model.embeddings(values.flatten(0, 1)))
            tokens = tokens.unflatten(0, values.shape[:2]).mean(dim=1)
        tokens = tokens.to(values.dtype)
        return Features(tokens=tokens, pooled=tokens[:, 0])

    def _known(self, kind: str) -> str:
        if kind not in self.kinds:
            raise UserError(
                f"a node of kind {kind!r} is read by a universal encoder of {list(self.kinds)}: name the kind in its "
                f"modalities, with the arguments of its tokenizer, or give the node one of these kinds (kind: ...)"
            )
        return kind

    def _blocks(self, tokens: Float[Tensor, "M n E"]) -> Float[Tensor, "M n E"]:
        states = self.model.pre_layrnorm(tokens)
        for block in self.model.encoder.layers:
            states = block(states, None)
        return self.model.post_layernorm(states)
