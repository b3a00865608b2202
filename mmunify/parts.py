"""The contracts. A part is an `nn.Module` (an expert: a plain object) with one of these; parts never import parts.

Letters: see `mmunify.types`. A contract is abstract, a part is a leaf: no part subclasses a part.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.types import (
    Artifact,
    Attention,
    Batch,
    Condition,
    Embeds,
    Features,
    HeadOutput,
    Hidden,
    Layout,
    Media,
    OutputBatch,
    Preprocess,
    SideText,
    SlotSpec,
    TaskCall,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What encoders and adapters may know of the items beside their values.

    Attributes:
        kind: of the media.
        extent: [M 2] original (width, height).
        document: [M] document of every item.
        task: task index per document.
        side_ids, side_mask: [M L] token ids of a text beside every item (InstructBLIP), if there is one.
        source: Features of the node that an encoder reads `from:` (region encoders); for the connector of a head, of
            the pictures that its items start from, masked where an item starts from none.
        source_items: [M] item of `source` that every item belongs to.
    """

    kind: str = "image"
    extent: Tensor | None = None
    document: Tensor | None = None
    task: Tensor | None = None
    side_ids: Tensor | None = None
    side_mask: Tensor | None = None
    source: Features | None = None
    source_items: Tensor | None = None


class Draw:
    """Random numbers that depend on (seed, step, sample key, part) alone, whatever the batch or the rank."""

    def __init__(self, *, seed: int, step: int, keys: Sequence[int], part: str) -> None:
        self.keys = tuple(keys)
        self._base = (seed, step, sum(ord(c) * 131**i for i, c in enumerate(part)))

    def generator(self, item: int) -> torch.Generator:
        """The generator of one item."""
        words = (*self._base, self.keys[item])
        return torch.Generator().manual_seed(hash(words) & 0x7FFF_FFFF_FFFF_FFFF)

    def normal(self, *shape: int, device: torch.device | str = "cpu") -> Float[Tensor, "K ..."]:
        """Standard normal noise [K, *shape], one independent stream per item."""
        rows = [torch.randn(shape, generator=self.generator(i)) for i in range(len(self.keys))]
        return (torch.stack(rows) if rows else torch.empty(0, *shape)).to(device)

    def uniform(self, *shape: int, device: torch.device | str = "cpu") -> Float[Tensor, "K ..."]:
        """Uniform numbers in [0, 1), shaped as in `normal`."""
        rows = [torch.rand(shape, generator=self.generator(i)) for i in range(len(self.keys))]
        return (torch.stack(rows) if rows else torch.empty(0, *shape)).to(device)


class Part(nn.Module, ABC):
    """What all tensor parts share.

    Attributes:
        external: for a part loaded from a `path:`, that path (hub id or folder): a bundle stores a reference
            to it instead of its tensors as long as they were never trained; None = the bundle stores all.
        node: name of the node that the composer gave to the part ("image"); a head finds its items by it.
        added: globs, within an external part, of tensors that its path does not provide (rows of new tokens).
        players: names of adversaries -> globs of their parameters, for parts that train against each other.
    """

    external: str | None = None
    node: str = ""
    added: ClassVar[Sequence[str]] = ("new_rows.*", "new_output_rows.*")
    players: ClassVar[Mapping[str, Sequence[str]]] = {}

    def save_folder(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write the part in its library's own format, so that `path:` loads it again.

        Args:
            folder: where to; made if missing.
            dtype: of the stored weights.

        Raises:
            UserError: the part has no format of its own.
        """
        raise UserError(f"{type(self).__name__} has no folder format; a bundle stores it")


class Encoder(Part):
    """Media -> Features."""

    out_dim: int
    preprocess: Preprocess
    cacheable: ClassVar[bool] = True
    """False if the features of an item depend on more than the item: on others of its batch, on another node's."""

    @abstractmethod
    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """Tokens of one item of this original (width, height), before any adapter."""

    def layout_of(self, kind: str, extent: tuple[int, int] | None = None) -> Layout:
        """The layout of media of one kind, for an encoder that reads several; others have one for all."""
        return self.layout(extent)

    def preprocess_of(self, kind: str) -> Preprocess:
        """How media of one kind become values, likewise."""
        return self.preprocess

    @abstractmethod
    def forward(self, values: Float[Tensor, "M ..."], context: Context) -> Features:
        """Encode M items; pictures come as [M F C H W]."""


class Adapter(Part):
    """Features -> Embeds. The composer gives `in_dim` and `out_dim`."""

    needs: frozenset[str] = frozenset()
    """Of "pooled", "layers:<index>", "side_text", "source": what it reads beside `tokens`."""
    bare: bool = False
    """Whether items stand in the sequence without the strings of their kind around them; a node says it."""
    side_text: SideText | None = None
    """How the words beside an item become ids, for an adapter that reads them."""

    @abstractmethod
    def layout(self, layout: Layout) -> Layout:
        """Slots of one item, given the encoder's layout."""

    @abstractmethod
    def forward(self, features: Features, context: Context) -> Embeds:
        """Map M items of N tokens to S slots of width D."""


class Backbone(Part):
    """A causal language model that reads embeddings and answers with hidden states, never with logits."""

    dim: int
    num_layers: int
    tokenizer: Any
    supports: frozenset[str] = frozenset()
    """Of "packed", "full_attention", "cache", "shared_positions"."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @abstractmethod
    def new_cache(self) -> Any:
        """An empty key/value cache for generation; its `crop(-n)` forgets the last n columns."""

    @abstractmethod
    def add_tokens(self, groups: Mapping[str, Sequence[str]]) -> None:
        """Add vocabulary strings; each group's new rows are one parameter, separate from the old table."""

    @abstractmethod
    def embed(self, ids: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows D"]:
        """Rows of the input table."""

    @abstractmethod
    def unembed(self, states: Float[Tensor, "n D"], rows: Int[Tensor, "k"] | None = None) -> Float[Tensor, "n V"]:
        """Logits of states, over all rows of the output table or over `rows`."""

    @abstractmethod
    def forward(
        self,
        inputs_embeds: Float[Tensor, "B T D"],
        attention: Attention,
        position_ids: Int[Tensor, "B T"],
        layers: Sequence[int] = (),
        cache: Any = None,
    ) -> Hidden:
        """Run the layers. With a `cache`, `attention` covers cached and new positions, the others the new ones."""


class Tuner(ABC):
    """Wraps linears or blocks of a module that exists (LoRA, LoRA-MoE). Not a module itself."""

    @abstractmethod
    def apply(self, module: nn.Module) -> list[str]:
        """Wrap in place; returns the names that were wrapped. Nothing matched is an error."""


@runtime_checkable
class Slot(Protocol):
    """An output slot that is open during generation."""

    def run(self, embeds: Float[Tensor, "K S D"], commit: bool = True) -> Float[Tensor, "K S D"]:
        """States of S further positions of the K open rows, against their cached prefix."""
        ...


Unembed = Callable[..., Tensor]
"""`Backbone.unembed`, handed to heads: states [n D] -> logits [n V]."""


class Head(Part):
    """Hidden + Batch -> HeadOutput. The composer gives `in_dim` (backbone width) and `target_dim` (its encoder's)."""

    needs_backbone: ClassVar[bool] = True
    """False for a head that reads encoder features alone."""
    target: str | None = None
    """Encoder node whose features of the output's target are learned; None = no features are needed."""
    eye: str | None = None
    """First encoder node of its target's kind (given by the composer): outputs that start from a medium name it so."""
    features: str | None = None
    """Encoder node whose features of a medium that went in it reads, beside the states."""
    layers: Sequence[int] = ()
    """Indices of the hidden states that it reads of all positions before its slot (-1 = the last)."""
    strings: Sequence[str] = ()
    """Vocabulary that belongs to it (`<p>`), beside the strings of its slot."""
    makes: Literal["features", "mask", "box", "score"] = "features"
    """"features" for a de-tokenizer, a "mask" or a "box" of a medium, or a "score" that nobody draws."""
    output_shape: tuple[int, int] | None = None
    """(Q, E) of the features that it makes of an item; None = it makes none."""
    encodes_target: bool = True
    """False where the features of the target are not needed, since a linked de-tokenizer teaches the head."""
    pool: Literal["2d", "1d"] = "2d"
    """How more features than it makes are averaged, to be compared with its own."""

    def items(self, batch: Batch) -> OutputBatch | None:
        """The batch's output items of this node; None when it has none."""
        return batch.outputs.get(self.node)

    @property
    @abstractmethod
    def spec(self) -> SlotSpec | None:
        """Its output slot; None = it opens none."""

    def target_preprocess(self, encoder: Encoder) -> Preprocess | None:
        """How its targets are read, where they are regions of media of `features`; None = as `target` says."""
        return None

    def slot_inputs(self, outputs: OutputBatch, features: Features | None, embeds: Embeds | None) -> Embeds | None:
        """What fills the slots of K items on the way in; None = nothing."""
        return None

    def counts(self, batch: Batch) -> Mapping[str, Tensor] | None:
        """What its losses will be divided by, if the batch tells; None = its forward pass must be run to know."""
        return None

    @abstractmethod
    def forward(
        self, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features], unembed: Unembed | None
    ) -> HeadOutput:
        """Losses as sums with counts. `features` holds the media's by encoder node, the target's under "target"."""

    def generate(self, slot: Slot, num_items: int) -> Tensor:
        """Predict the open slots of `num_items` rows: [K Q E]."""
        raise TypeError(f"{type(self).__name__} opens no slot, so it has nothing to generate")


class Detokenizer(Part):
    """Features or codes -> pixels, trainable."""

    preprocess: Preprocess | None = None
    """How its targets are read; None = as the encoder that it inverts."""
    needs: frozenset[str] = frozenset()
    """Of "image" (a source picture), "features" (of that picture, by the encoder that looks at it), "encoded_image" (by
    the one whose features the states are like), "null" (features of a grey picture) and "caption" (states of a text
    encoder): what it reads of a condition beside its states."""
    num_states: int | None = None
    """States of an item that it reads; None = any number."""
    reads_target: bool = True
    """False for one that learns from captions alone."""

    @abstractmethod
    def loss(self, target: Float[Tensor, "K C H W"], condition: Condition, draw: Draw) -> HeadOutput:
        """Sum of the loss over K items, with its count."""

    @abstractmethod
    def generate(
        self, condition: Condition, guidance: Mapping[str, float] = {}, seed: int = 0
    ) -> Float[Tensor, "K C H W"]:
        """Pixels in 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """What an expert may work on: the media of the conversation so far, newest last."""

    media: tuple[Media, ...] = ()
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


class Expert(ABC):
    """A model or an algorithm behind the router. Not a module: it owns its weights as it likes."""

    tasks: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    licence: str = "Apache-2.0"

    def available(self) -> str | None:
        """None when it can run, or why it cannot."""
        return None

    @abstractmethod
    def __call__(self, call: TaskCall, workspace: Workspace) -> list[Artifact]:
        """Answer one call."""
