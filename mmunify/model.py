"""UnifiedModel: embed -> backbone -> heads. This file and `composer.py` are all that joins parts.

Letters: see `mmunify.types`.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.errors import PlacementError
from mmunify.experts.low_rank._context import TokenContext, use_tokens
from mmunify.experts.low_rank._routing import collect_aux
from mmunify.heads._token_head import TokenHead
from mmunify.layers.modes import set_modes
from mmunify.parts import Adapter, Backbone, Context, Detokenizer, Draw, Encoder, Head, Tuner
from mmunify.tokens import TokenRegistry
from mmunify.tokens.slots import strings
from mmunify.types import (
    Batch,
    Condition,
    Embeds,
    Features,
    HeadOutput,
    Hidden,
    MediaBatch,
    ModelSpec,
    NodeSpec,
    Preprocess,
    SlotSpec,
    StepReport,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """How a node is joined: the kind of medium it handles and the node that it reads ("encoders.image")."""

    kind: str
    source: str


class UnifiedModel(nn.Module):
    """A unified multimodal model made of built parts. Most users call `compose` or a recipe's `build`.

    Args:
        encoders, adapters, heads, detokenizers: node name -> built part.
        backbone: the language model; None when only an encoder or a de-tokenizer trains.
        tuners: low-rank tuners that were applied, for the record.
        wiring: "encoders.image" -> how that node is joined.
        weights: loss weight by head node ("text") or de-tokenizer ("detokenizers.image"); a head of weight 0 isn't run.
        tokens: the token registry.
    """

    def __init__(
        self,
        *,
        encoders: Mapping[str, Encoder],
        adapters: Mapping[str, Adapter],
        backbone: Backbone | None,
        heads: Mapping[str, Head],
        detokenizers: Mapping[str, Detokenizer],
        wiring: Mapping[str, Wiring],
        tuners: Sequence[Tuner] = (),
        weights: Mapping[str, float] | None = None,
        tokens: TokenRegistry | None = None,
    ) -> None:
        super().__init__()
        self.encoders, self.adapters = nn.ModuleDict(encoders), nn.ModuleDict(adapters)
        self.backbone = backbone
        self.heads, self.detokenizers = nn.ModuleDict(heads), nn.ModuleDict(detokenizers)
        self.wiring, self.tuners = dict(wiring), list(tuners)
        self.weights: dict[str, float] = dict(weights or {})
        self.tokens = _add_strings(tokens or TokenRegistry(), heads, backbone)

    # --------------------------------------------------------------------------------------- plain data

    def spec(self) -> ModelSpec:
        """All that the data side needs to know of the model."""
        media = {node: self._media_spec(node) for node in self.encoders}
        outputs = {node: self._output_spec(node) for node in self.heads if self.wiring[f"heads.{node}"].kind != "text"}
        return ModelSpec(media=media, outputs=outputs)

    def _media_spec(self, node: str) -> NodeSpec:
        encoder, kind = self.encoders[node], self.wiring[f"encoders.{node}"].kind
        layouts = [
            adapter.layout(encoder.layout(None))  # type: ignore[operator]
            for name, adapter in self.adapters.items()
            if self.wiring[f"adapters.{name}"].source == f"encoders.{node}"
        ]
        slot = None
        if layouts and self.backbone is not None:
            opens, closes = self.tokens.pair(kind)
            slot = SlotSpec(opens=opens, closes=closes, layout=layouts[0])
        return NodeSpec(kind=kind, slot=slot, preprocess=encoder.preprocess)  # type: ignore[arg-type]

    def _output_spec(self, node: str) -> NodeSpec:
        head: Head = self.heads[node]  # type: ignore[assignment]
        preprocess: Preprocess | None = self.encoders[head.target].preprocess if head.target else None  # type: ignore[assignment]
        if isinstance(head, TokenHead) and (head.features or "") in self.encoders:
            preprocess = head.target_preprocess(self.encoders[str(head.features)]) or preprocess  # type: ignore[arg-type]
        return NodeSpec(kind=self.wiring[f"heads.{node}"].kind, slot=head.spec, preprocess=preprocess)

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden states that heads ask for; -1 = the last."""
        heads = [head for head in self.heads.values() if isinstance(head, TokenHead)]
        return tuple(sorted({layer for head in heads for layer in head.layers}))

    # --------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> StepReport:
        """All losses of a batch, as sums with counts: (B, T) ids and packed media -> StepReport."""
        features = self.encode(batch)
        hidden = None
        if self.backbone is not None:
            nodes = [f"encoders.{name}" for name in self.encoders] + [f"heads.{name}" for name in self.heads]
            with use_tokens(TokenContext.of(batch, nodes)):
                inputs_embeds = self.embed(batch, features)
                layers = [layer for layer in self.layers if layer != -1]
                hidden = self.backbone(inputs_embeds, batch.attention, batch.position_ids, layers=layers)
                hidden = replace(hidden, aux={**hidden.aux, **collect_aux(self.backbone)})
        outputs = {name: out for name in self.heads if (out := self._run_head(name, hidden, batch, features))}
        outputs |= self._run_detokenizers(batch, features, outputs)
        return self._report(outputs, hidden)

    def encode(self, batch: Batch) -> dict[str, Features]:
        """Features of the batch's media by encoder node; a node without items is absent."""
        features: dict[str, Features] = {}
        for node, encoder in self.encoders.items():
            media = batch.media.get(node)
            if media is None:
                continue
            if media.features is not None:
                features[node] = media.features
                continue
            features[node] = self._encode(encoder, media.values, self._context(node, media, batch, features))  # type: ignore[arg-type]
        return features

    def embed(self, batch: Batch, features: Mapping[str, Features]) -> Float[Tensor, "B T D"]:
        """Token rows, with adapter embeddings in the input slots and head inputs in the output slots."""
        assert self.backbone is not None
        embeds = self.backbone.embed(batch.input_ids)
        untouched = embeds.new_zeros(())
        for node, adapter in self.adapters.items():
            source = self.wiring[f"adapters.{node}"].source.removeprefix("encoders.")
            if source in features:
                made = adapter(features[source], self._context(source, batch.media[source], batch, features))
                slots = batch.media[source].slots
                embeds = place(embeds, slots, made, f"encoders.{source}", batch) if slots is not None else embeds
            elif self.training and _learns(adapter):
                blank, kind = self._blank(source, adapter, embeds), self.wiring[f"adapters.{node}"].kind
                untouched = untouched + adapter(blank, Context(kind=kind)).tokens.sum() * 0
        for node, head in self.heads.items():
            embeds, extra = self._embed_outputs(node, head, embeds, batch)  # type: ignore[arg-type]
            untouched = untouched + extra
        return embeds + untouched

    def _embed_outputs(self, node: str, head: Head, embeds: Tensor, batch: Batch) -> tuple[Tensor, Tensor | float]:
        outputs = batch.outputs.get(node)
        if outputs is not None and outputs.slots is not None:
            made = head.slot_inputs(outputs, None, None)
            if made is not None:
                return place(embeds, outputs.slots, made, f"heads.{node}", batch), 0.0
        if self.training and _learns(head):
            return embeds, sum(parameter.sum() * 0 for parameter in head.parameters() if parameter.requires_grad)
        return embeds, 0.0

    # --------------------------------------------------------------------------------------- pieces

    def _encode(self, encoder: nn.Module, values: Tensor, context: Context) -> Features:
        """A frozen encoder builds no graph: nothing that learns lies upstream of a medium."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and _learns(encoder)):
            return encoder(values, context)

    def _context(self, node: str, media: MediaBatch, batch: Batch, features: Mapping[str, Features]) -> Context:
        wiring = self.wiring[f"encoders.{node}"]
        source = wiring.source.removeprefix("encoders.")
        return Context(
            kind=wiring.kind,
            extent=media.extent,
            document=media.document,
            task=batch.task,
            source=features.get(source) if source != node else None,
        )

    def _blank(self, node: str, adapter: nn.Module, like: Tensor) -> Features:
        """Zero features of the smallest layout, so that a learning adapter takes part in a step without media."""
        encoder = self.encoders[node]
        layout = encoder.layout(None)  # type: ignore[operator]
        grids = {run.grid for run in layout.runs if run.slots}
        grid = grids.pop() if len(grids) == 1 else None
        zeros = like.new_zeros(1, layout.num_slots, encoder.out_dim)  # type: ignore[arg-type]
        needs: frozenset[str] = adapter.needs  # type: ignore[assignment]
        layers = {int(need.removeprefix("layers:")): zeros for need in needs if need.startswith("layers:")}
        return Features(tokens=zeros, grid=grid, pooled=zeros[:, 0], layers=layers)

    def _run_head(
        self, name: str, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features]
    ) -> HeadOutput | None:
        head = self.heads[name]
        if self.weights.get(name, 1.0) == 0:
            return None
        outputs = batch.outputs.get(name)
        available = dict(features)
        if head.target and outputs is not None and isinstance(outputs.target, Tensor):
            encoder = self.encoders[head.target]  # type: ignore[index]
            with torch.no_grad():
                available["target"] = encoder(outputs.target.unsqueeze(1), Context(document=outputs.document))
        unembed = self.backbone.unembed if self.backbone is not None else None
        return head(hidden, batch, available, unembed)

    def _run_detokenizers(
        self, batch: Batch, features: Mapping[str, Features], heads: Mapping[str, HeadOutput]
    ) -> dict[str, HeadOutput]:
        """De-tokenizers that learn: alone (from an encoder's features) or linked to a head's predictions."""
        made = {}
        for node, detokenizer in self.detokenizers.items():
            name = f"detokenizers.{node}"
            if self.weights.get(name, 1.0) == 0 or not _learns(detokenizer) or not self.training:
                continue
            side, _, source = self.wiring[name].source.partition(".")
            pair = (
                self._from_encoder(source, batch, features)
                if side == "encoders"
                else self._from_head(source, batch, heads)
            )
            target, condition, document = pair or self._no_items(side, source, batch)
            keys = [batch.keys[i] for i in document.tolist()]
            draw = Draw(seed=batch.seed, step=batch.step, keys=keys, part=name)
            made[name] = detokenizer.loss(target, condition, draw)  # type: ignore[operator]
        return made

    def _no_items(self, side: str, source: str, batch: Batch) -> tuple[Tensor, Condition, Tensor]:
        """Zero items of the right shape, so that a learning de-tokenizer takes part in a step without pictures."""
        encoder = self.encoders[source if side == "encoders" else str(self.heads[source].target)]
        preprocess: Preprocess = encoder.preprocess  # type: ignore[assignment]
        device = batch.input_ids.device
        states = torch.zeros(0, encoder.layout(None).num_slots, encoder.out_dim, device=device)  # type: ignore[operator]
        return torch.zeros(0, 3, *preprocess.size, device=device), Condition(states=states), batch.task[:0]

    def _from_encoder(
        self, node: str, batch: Batch, features: Mapping[str, Features]
    ) -> tuple[Tensor, Condition, Tensor] | None:
        """A de-tokenizer alone: the pictures that went in are what should come out."""
        media = batch.media.get(node)
        if media is None or media.values is None:
            return None
        return self._pixels(node, media.values[:, 0]), Condition(states=features[node].tokens), media.document

    def _from_head(
        self, node: str, batch: Batch, heads: Mapping[str, HeadOutput]
    ) -> tuple[Tensor, Condition, Tensor] | None:
        """A de-tokenizer behind a head: its loss reaches the backbone through the predicted features."""
        outputs, made, encoder = batch.outputs.get(node), heads.get(node), self.heads[node].target
        if outputs is None or made is None or made.conditions is None or not isinstance(outputs.target, Tensor):
            return None
        return self._pixels(str(encoder), outputs.target), made.conditions, outputs.document

    def _pixels(self, node: str, values: Float[Tensor, "K C H W"]) -> Float[Tensor, "K C H W"]:
        """Undo an encoder's normalisation: pixels in 0..1."""
        preprocess: Preprocess = self.encoders[node].preprocess  # type: ignore[assignment]
        mean, std = (values.new_tensor(numbers).view(1, -1, 1, 1) for numbers in (preprocess.mean, preprocess.std))
        return (values * std + mean).clamp(0, 1)

    def _report(self, outputs: Mapping[str, HeadOutput], hidden: Hidden | None) -> StepReport:
        losses = {f"{node}/{name}": loss for node, out in outputs.items() for name, loss in out.losses.items()}
        counts = {f"{node}/{name}": count for node, out in outputs.items() for name, count in out.counts.items()}
        weights = {name: self.weights.get(name.split("/")[0], 1.0) for name in losses}
        aux = dict(hidden.aux) if hidden is not None else {}
        return StepReport(losses=losses, counts=counts, weights=weights, aux=aux, outputs=dict(outputs))

    def train(self, mode: bool = True) -> "UnifiedModel":
        """Train mode for modules that learn; frozen ones keep still (their dropout and batch statistics too)."""
        super().train(mode)
        if mode:
            set_modes(self)
        return self


def place(
    embeds: Float[Tensor, "B T D"], slots: Bool[Tensor, "B T"], items: Embeds, node: str, batch: Batch
) -> Float[Tensor, "B T D"]:
    """Put the items' embeddings into their slots, in row-major order.

    Raises:
        PlacementError: the numbers differ; the message carries both and the first sample's id.
    """
    tokens = items.tokens if items.mask is None else items.tokens[items.mask]
    tokens = tokens.reshape(-1, embeds.shape[-1])
    wanted = int(slots.sum())
    if len(tokens) != wanted:
        first = batch.sample_ids[0] if batch.sample_ids else "?"
        raise PlacementError(
            f"node {node!r} made {len(tokens)} embeddings for {wanted} slots (batch of {batch.batch_size}, "
            f"first sample {first!r}): the layout that data.encode used is not that of the part"
        )
    return embeds.masked_scatter(slots.unsqueeze(-1), tokens.to(embeds.dtype))


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _add_strings(tokens: TokenRegistry, heads: Mapping[str, Head], backbone: Backbone | None) -> TokenRegistry:
    """The registry with the strings of the heads' slots; new ones become rows of the backbone, a group per head."""
    for node, head in heads.items():
        own = strings(head.spec) if head.spec is not None else ()
        wanted = tokens.with_signals([*own, *(head.strings if isinstance(head, TokenHead) else ())])
        new = wanted.signals[len(tokens.signals) :]
        tokens = wanted
        if new and backbone is not None and backbone.tokenizer is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(zlib.crc32(f"strings/{node}".encode()))
                backbone.add_tokens({f"signals_{node}": new})
    return tokens
