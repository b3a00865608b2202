"""A de-tokenizer, joined to what it draws: where its targets come from, and what its condition is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mmunify.errors import DataError
from mmunify.heads._features import pool_tokens
from mmunify.parts import Context, Detokenizer, Encoder, Head
from mmunify.types import Batch, Condition, Features, HeadOutput, NodeSpec, OutputBatch, Preprocess

Pair = tuple[str, int] | None
"""Encoder node and item number of the medium that an output starts from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """K items for the loss of a de-tokenizer; `document` is that of every item."""

    target: Tensor
    condition: Condition
    document: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A de-tokenizer and its neighbours.

    Behind a head it draws the outputs that the head predicts. Behind an encoder it draws the pictures that went in; if
    it starts from a source picture, it draws the outputs, from the encoder's features of them.

    Attributes:
        name: "detokenizers.image"; its targets and sources are items of this name where they are read for it alone.
        source: node that it reads, without its group.
        kind: of what it draws.
        detokenizer: the part.
        head: whose predictions it draws; None = it reads an encoder.
        encoder: whose features its states are, or are like; None = the states are like no encoder's.
        eye: encoder node that looks at pictures that went in; "" = there is none.
        looks: that encoder.
    """

    name: str
    source: str
    kind: str
    detokenizer: Detokenizer
    head: Head | None = None
    encoder: Encoder | None = None
    eye: str = ""
    looks: Encoder | None = None

    @property
    def draws_outputs(self) -> bool:
        """Whether it learns from outputs; else from the media of its encoder."""
        return self.head is not None or "image" in self.detokenizer.needs

    def media_spec(self) -> NodeSpec | None:
        """How it reads pictures that went in; None = as the encoder reads them, or not at all."""
        read = self.encoder if not self.draws_outputs else self.looks if "image" in self.detokenizer.needs else None
        own = self.detokenizer.preprocess
        if self.kind != "image" or read is None or own is None or _alike(own, read.preprocess):
            return None
        return NodeSpec(kind=self.kind, slot=None, preprocess=own)

    def output_spec(self) -> NodeSpec | None:
        """How it reads its targets among the outputs; None = they are those of the head, or there are none."""
        if self.kind != "image" or not self.draws_outputs or not self.detokenizer.reads_target:
            return None
        own, read = self.detokenizer.preprocess, None if self.encoder is None else self.encoder.preprocess
        if self.head is not None and self._takes_targets_of(self.head, own, read):
            return None
        return NodeSpec(kind=self.kind, slot=None, preprocess=own or read)

    def _takes_targets_of(self, head: Head, own: Preprocess | None, read: Preprocess | None) -> bool:
        """Whether the head's targets will do, or its outputs are words and have none."""
        if head.spec is None or head.spec.as_text:
            return True
        return own is None or (read is not None and _alike(own, read))

    # --------------------------------------------------------------------------------------- a training step

    def items(self, batch: Batch, features: Mapping[str, Features], heads: Mapping[str, HeadOutput]) -> Drawn | None:
        """What the batch holds for it; None = nothing.

        Args:
            batch: of the step.
            features: of its media, by encoder node.
            heads: what the heads made of it.
        """
        if self.head is not None:
            return self._behind_head(batch, features, heads.get(self.source))
        return self._outputs(batch, features) if self.draws_outputs else self._media(batch, features)

    def nothing(self, like: Tensor) -> Drawn:
        """No item, so that a learning de-tokenizer takes part in a step without pictures."""
        preprocess = self.detokenizer.preprocess or (None if self.encoder is None else self.encoder.preprocess)
        if self.head is not None and self.head.output_shape is not None:
            shape = self.head.output_shape
        else:
            shape = (1, 1) if self.encoder is None else (self.encoder.layout(None).num_slots, self.encoder.out_dim)
        target = like.new_zeros(0, 3, *(preprocess.size if preprocess is not None else (1, 1)))
        document = torch.zeros(0, dtype=torch.long, device=like.device)
        return Drawn(target=target, condition=Condition(states=like.new_zeros(0, *shape)), document=document)

    def _behind_head(self, batch: Batch, features: Mapping[str, Features], made: HeadOutput | None) -> Drawn | None:
        outputs = batch.outputs.get(self.source)
        if outputs is None or made is None or made.conditions is None:
            return None
        target = self._target(batch, outputs, made.conditions.states)
        if target is None:
            return None
        condition = self._with_sources(made.conditions, outputs.condition, batch, features)
        if "caption" in self.detokenizer.needs and self.head is not None and self.head.target is None:
            caption = outputs.target if isinstance(outputs.target, Tensor) else None
            condition = replace(condition, caption=caption)
        return Drawn(target=target, condition=condition, document=outputs.document)

    def _target(self, batch: Batch, outputs: OutputBatch, states: Tensor) -> Tensor | None:
        """Pixels in 0..1; a place holder where none are learned."""
        if not self.detokenizer.reads_target:
            return states.new_zeros(len(states), 1)
        own = batch.outputs.get(self.name)
        spec = self.output_spec()
        if spec is not None and spec.preprocess is not None:
            found = None if own is None else own.target
            return pixels(found, spec.preprocess) if isinstance(found, Tensor) else None
        if self.encoder is None or not isinstance(outputs.target, Tensor):
            return None
        return pixels(outputs.target, self.encoder.preprocess)

    def _media(self, batch: Batch, features: Mapping[str, Features]) -> Drawn | None:
        """The pictures that went in are what should come out."""
        media, seen = batch.media.get(self.source), features.get(self.source)
        target = self._pictures(batch, self.source, self.encoder)
        if media is None or seen is None:
            return None
        if target is None:
            raise DataError(
                f"{self.name} learns the pictures of encoders.{self.source}, and the cache holds their features alone; "
                "leave cache: out"
            )
        condition = self.condition(seen.tokens)
        return Drawn(target=target, condition=replace(condition, mask=seen.mask), document=media.document)

    def _outputs(self, batch: Batch, features: Mapping[str, Features]) -> Drawn | None:
        """Outputs that start from pictures, or from none."""
        outputs, spec, encoder = batch.outputs.get(self.name), self.output_spec(), self.encoder
        if outputs is None or spec is None or encoder is None or not isinstance(outputs.target, Tensor):
            return None
        target = pixels(outputs.target, spec.preprocess or Preprocess())
        learns = any(parameter.requires_grad for parameter in encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            made = encoder(_as_read(target, encoder.preprocess), Context(kind=self.kind, document=outputs.document))
        condition = self._with_sources(Condition(states=made.tokens), outputs.condition, batch, features)
        return Drawn(target=target, condition=replace(condition, mask=made.mask), document=outputs.document)

    def _with_sources(
        self, made: Condition, pairs: Sequence[Pair], batch: Batch, features: Mapping[str, Features]
    ) -> Condition:
        """The condition with what its items start from."""
        chosen = [pair[1] if pair is not None and pair[0] == self.eye else -1 for pair in pairs]
        index = torch.tensor(chosen, dtype=torch.long, device=made.states.device)
        needs, given = self.detokenizer.needs, index >= 0
        pictures = self._pictures(batch, self.eye, self.looks) if "image" in needs else None
        image = None if pictures is None or not bool(given.any()) else pictures[index.clamp(min=0)]
        seen = features.get(self.eye) if "features" in needs else None
        rows = None if seen is None or not len(seen.tokens) else _rows(seen, index.clamp(min=0))
        found = self.condition(made.states, image, None if image is None else given, rows)
        return replace(found, mask=made.mask, pooled=made.pooled)

    def _pictures(self, batch: Batch, node: str, encoder: Encoder | None) -> Float[Tensor, "M C H W"] | None:
        """Pixels in 0..1 of a node's media, read for the de-tokenizer or as their encoder reads them."""
        spec = self.media_spec()
        media = batch.media.get(node if spec is None else self.name)
        preprocess = spec.preprocess if spec is not None else None if encoder is None else encoder.preprocess
        if media is None or media.values is None or preprocess is None:
            return None
        return pixels(media.values[:, 0], preprocess)

    # --------------------------------------------------------------------------------------- what it starts from

    def condition(
        self,
        states: Float[Tensor, "K Q E"],
        image: Float[Tensor, "K C H W"] | None = None,
        image_mask: Bool[Tensor, "K"] | None = None,
        features: Features | None = None,
    ) -> Condition:
        """Its condition, with the features of a grey picture if it asks for them.

        Args:
            states: predicted or encoded features.
            image: source pictures, in 0..1.
            image_mask: True where an item has one; None = all have.
            features: of the source pictures.
        """
        needs = self.detokenizer.needs
        return Condition(
            states=states,
            image=image,
            image_mask=image_mask,
            features=features,
            null=self._grey(states) if "null" in needs else None,
            encoded_image=self._encoded(image, states) if "encoded_image" in needs and image is not None else None,
        )

    @torch.no_grad()
    def _encoded(self, image: Float[Tensor, "K C H W"], states: Float[Tensor, "K Q E"]) -> Tensor | None:
        """Features of pictures in 0..1 [K Q E], like the states; None = the states are like no encoder's."""
        if self.encoder is None:
            return None
        made = self.encoder(_as_read(image, self.encoder.preprocess), Context(kind=self.kind))
        return self._pooled(made, states)

    @torch.no_grad()
    def _grey(self, states: Float[Tensor, "K Q E"]) -> Float[Tensor, "Q E"] | None:
        """Features of a picture of zeros behind the normalisation, as many as there are states."""
        if self.encoder is None:
            return None
        size = self.encoder.preprocess.size
        extent = torch.tensor([[size[1], size[0]]], device=states.device)
        values = states.new_zeros(1, 1, len(self.encoder.preprocess.mean), *size)
        made = self.encoder(values, Context(kind=self.kind, extent=extent))
        return self._pooled(made, states)[0]

    def _pooled(self, features: Features, states: Float[Tensor, "K Q E"]) -> Float[Tensor, "M Q E"]:
        """As many features as there are states."""
        pool = self.head.pool if self.head is not None else "2d"
        return pool_tokens(features, states.shape[1], pool).to(states.dtype)


def pixels(values: Float[Tensor, "K C H W"], preprocess: Preprocess) -> Float[Tensor, "K C H W"]:
    """Undo a normalisation: pixels in 0..1."""
    mean, std = (values.new_tensor(numbers).view(1, -1, 1, 1) for numbers in (preprocess.mean, preprocess.std))
    return (values * std + mean).clamp(0, 1)


def _as_read(target: Float[Tensor, "K C H W"], preprocess: Preprocess) -> Float[Tensor, "K 1 C h w"]:
    """Pixels in 0..1 as an encoder of stills reads them."""
    if target.shape[2:] != preprocess.size and len(target):
        target = F.interpolate(target, preprocess.size, mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (target.new_tensor(numbers).view(1, -1, 1, 1) for numbers in (preprocess.mean, preprocess.std))
    return ((target - mean) / std).unsqueeze(1)


def _alike(first: Preprocess, second: Preprocess) -> bool:
    """Whether both fit a picture into the same still one."""
    return type(second) is Preprocess and (first.size, first.fit) == (second.size, second.fit)


def _rows(features: Features, index: Tensor) -> Features:
    mask = None if features.mask is None else features.mask[index]
    return Features(tokens=features.tokens[index], mask=mask, grid=features.grid)
